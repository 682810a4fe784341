"""How fast it is: ``python -m benchmarks.speed [--checkpoint FOLDER] [--size S] [--out FILE.md]``.

One run measures the machine, Handscroll and its peers, round by round, each thing once a round, so
that whatever else the machine does falls on all alike. The table shows medians over the rounds;
ratios are taken within a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, get_args

import torch
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.machine import (
    CORES,
    GIB,
    description,
    flops,
    matmul_gflop_s,
    read_gib_s,
    step_bytes,
)
from benchmarks.ours import Patches, Tiles, decoder_in, random_model
from benchmarks.peers import SIDE, TIMED_WINDOWS, peers
from handscroll import checkpoint as checkpoints
from handscroll.canvas import Dtype, Sampling, TokenOrder
from handscroll.checkpoint import Checkpoint, World
from handscroll.decoder import SIZES

ONE = "1 thread"
WORKERS = f"{CORES} workers"
THREADS = f"{CORES} threads"
WAYS = {ONE: 1, WORKERS: 1, THREADS: CORES}
"""Ways of using the cores, and torch's threads in each; a worker is a thread of its own."""

GROUPS = (16, 32)
ROWS = (1, 4)
TOKENS = 256


@dataclass
class Line:
    """One line of the table.

    Attributes:
        name: what is measured.
        unit: of its values.
        measures: takes one measurement, for each way of using the cores.
        patches: how many are drawn in one unit; 0 where that says nothing.
        floor: what no program can beat on one thread.
        beside: the line to compare with.
        values: of each way, one for each round.
    """

    name: str
    unit: str
    measures: dict[str, Callable[[], float]]
    patches: int = 0
    floor: Floor | None = None
    beside: Line | None = None
    values: dict[str, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        """One round."""
        for way, measurement in self.measures.items():
            torch.set_num_threads(WAYS[way])
            self.values.setdefault(way, []).append(measurement())

    def median(self, way: str) -> float:
        """The middle of its rounds."""
        return median(self.values[way])

    def times(self, other: Line, way: str = ONE) -> float:
        """How many times as long as another line, in the middle of the rounds."""
        pairs = zip(self.values[way], other.values[way], strict=True)
        return median(own / others for own, others in pairs)

    def cells(self) -> list[str]:
        """Its line of the table."""
        values = [number(self.median(way)) if way in self.values else "" for way in WAYS]
        rate = floor = ratio = ""
        if not self.measures:
            values[0] = "not installed"
        elif self.patches:
            rate = number(self.patches / min(self.median(way) for way in self.values))
        if self.floor and self.values:
            pairs = zip(self.values[ONE], self.floor.seconds(), strict=True)
            floor = number(median(own / least for own, least in pairs))
        if self.beside and self.values:
            ratio = number(self.times(self.beside))
        return [self.name, self.unit, *values, rate, floor, ratio]


@dataclass(frozen=True)
class Floor:
    """What a patch takes at least, at the speeds that the machine's own lines found.

    Attributes:
        read, multiply: those lines.
        size_bytes: weights read for a patch.
        flop: operations of a patch.
    """

    read: Line
    multiply: Line
    size_bytes: float
    flop: float

    def seconds(self) -> list[float]:
        """The floor on one thread, for each round."""
        speeds = zip(self.read.values[ONE], self.multiply.values[ONE], strict=True)
        return [max(self.size_bytes / GIB / read, self.flop / 1e9 / flop) for read, flop in speeds]


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


@dataclass
class Lines:
    """All lines, and those that the targets name."""

    machine: list[Line]
    patches: dict[tuple[Dtype, int, int], Line]
    tiles: dict[tuple[Dtype, str], Line]
    peers: list[Line]

    def __iter__(self) -> Iterator[Line]:
        yield from (*self.machine, *self.patches.values(), *self.tiles.values(), *self.peers)


def machine_lines(weights: dict[Dtype, int]) -> tuple[list[Line], dict[Dtype, tuple[Line, Line]]]:
    """Lines of the machine, and of each format the two that make its floor."""

    def line(name: str, unit: str, call: Callable[[], float]) -> Line:
        return Line(name, unit, {ONE: call, THREADS: call})

    memory = line("machine: read 512 MiB", "GiB/s", partial(read_gib_s, GIB // 2))
    floors = {
        dtype: (
            line(
                f"machine: read the weights of a step, {dtype}, {size / 1e6:.1f} MB",
                "GiB/s",
                partial(read_gib_s, size),
            ),
            line(
                f"machine: matrix product, {dtype}",
                "GFLOP/s",
                partial(matmul_gflop_s, getattr(torch, dtype)),
            ),
        )
        for dtype, size in weights.items()
    }
    return [memory, *(one for pair in floors.values() for one in pair)], floors


def patch_lines(
    model: Checkpoint, world: World, workers: ThreadPoolExecutor
) -> tuple[list[Line], dict[tuple[Dtype, int, int], Line]]:
    """Lines of the machine, and of patches by format, group and rows."""
    decoders = {dtype: decoder_in(model, dtype) for dtype in get_args(Dtype)}
    weights = {dtype: step_bytes(decoder) for dtype, decoder in decoders.items()}
    machine, floors = machine_lines(weights)
    lines: dict[tuple[Dtype, int, int], Line] = {}
    ways = [(group, rows) for group in GROUPS for rows in ROWS]
    for dtype, decoder in decoders.items():
        for group, rows in (*ways, (1, 1)):
            order: TokenOrder = "raster" if group == 1 else "spread"
            sampling = Sampling(dtype=dtype, rows=rows, group=group, token_order=order)
            patches = Patches(decoder, world, sampling)
            steps = TOKENS // group
            size, work = steps * weights[dtype] / rows, flops(patches.draw) / rows
            lines[dtype, group, rows] = Line(
                f"ours: patch, {dtype}, {steps} steps, {rows} at a time",
                "s/patch",
                {
                    ONE: patches.alone,
                    WORKERS: partial(patches.beside, workers, CORES),
                    THREADS: patches.alone,
                },
                patches=1,
                floor=Floor(*floors[dtype], size, work),
                beside=lines.get((dtype, GROUPS[0], 1)),
            )
    return machine, lines


def tile_lines(model: Checkpoint, world: World) -> dict[tuple[Dtype, str], Line]:
    """Lines of tiles by format, and by what is there already."""
    lines: dict[tuple[Dtype, str], Line] = {}
    for dtype in get_args(Dtype):
        one, all_cores = (Tiles(model, world, dtype, workers) for workers in (1, CORES))
        cone = one.cone()
        finest = sum(patch.level == world.extent.finest for patch in cone)
        for name, count, visit in (
            ("over parents", finest, Tiles.over_parents),
            ("warm", 0, Tiles.warm),
            ("cold", len(cone), Tiles.cold),
        ):
            lines[dtype, name] = Line(
                f"ours: tile, {dtype}, {name}, {count} patches and the pixels",
                "s/tile",
                {ONE: partial(visit, one), WORKERS: partial(visit, all_cores)},
                patches=count,
            )
    return lines


def peer_lines(model: Checkpoint, beside: Line) -> list[Line]:
    """Lines of the peers, compared with our own."""
    return [
        Line(
            f"peer: {peer.name}",
            "s/patch",
            {} if peer.draw is None else {ONE: peer.draw, THREADS: peer.draw},
            patches=1,
            beside=beside,
        )
        for peer in peers(model.decoder.config)
    ]


def targets(lines: Lines) -> list[str]:
    """What we hold ourselves to, and whether it holds here."""

    def at_most(name: str, value: float, limit: float) -> str:
        return (
            f"- {'pass' if value <= limit else 'FAIL'}: {name}: {number(value)} s, "
            f"at most {limit} s ({number(value / limit)} of it)"
        )

    def at_least(name: str, ratio: float, limit: float) -> str:
        return (
            f"- {'pass' if ratio >= limit else 'FAIL'}: {name}: {number(ratio)}x, "
            f"at least {limit}x ({number(ratio / limit)} of it)"
        )

    found = [
        at_most(
            f"a patch in a batch of 4, float32, {WORKERS}",
            lines.patches["float32", GROUPS[0], 4].median(WORKERS),
            0.25,
        )
    ]
    for dtype in get_args(Dtype):
        found.append(
            at_most(
                f"a cold tile over ready parents, {dtype}, {WORKERS}",
                lines.tiles[dtype, "over parents"].median(WORKERS),
                1.0,
            )
        )
    for dtype in get_args(Dtype):
        ours = lines.patches[dtype, GROUPS[0], 1]
        raster = lines.patches[dtype, 1, 1]
        found.append(at_least(f"faster than own raster, {dtype}, {ONE}", raster.times(ours), 4))
    ours = lines.patches["float32", GROUPS[0], 1]
    for line in lines.peers[:2]:
        if line.values:
            found.append(
                at_least(
                    f"faster than {line.name.removeprefix('peer: ')}, {ONE}", line.times(ours), 50
                )
            )
        else:
            found.append(f"- {line.name}: not installed")
    return found


def report(model: Checkpoint, world: World, rounds: int, lines: Lines) -> str:
    """The table, what it was measured on, and the targets."""
    config = model.decoder.config
    size = sum(weight.numel() for weight in model.decoder.parameters()) / 1e6
    floor = lines.patches["float32", GROUPS[0], 1].floor
    assert floor is not None
    head = ["", "unit", *WAYS, "patches/s", "÷ floor", "÷ ours"]
    table = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *(line.cells() for line in lines)]
    return "\n".join(
        (
            f"Machine: {description()}, torch {torch.__version__}.",
            f"Decoder: {config.layers} layers x {config.width}, {size:.1f}M parameters, "
            f"{'model ' + model.digest[:16] if model.digest else 'random weights'}; patches of "
            f"level {world.extent.finest} that see all their neighbours, {floor.flop / 1e9:.1f} GFLOP "
            f"each; medians over {rounds} rounds.",
            "",
            *(f"| {' | '.join(row)} |" for row in table),
            "",
            "÷ floor: on one thread, beside reading the weights or multiplying at the machine's "
            "speed. ÷ ours: on one thread, beside our 16 steps, 1 at a time, in the same format; "
            f"peers beside float32. Of taming's windows {TIMED_WINDOWS} of {SIDE**2} are timed, "
            "and scaled.",
            "",
            *targets(lines),
        )
    )


def main(
    checkpoint: Annotated[Path | None, typer.Option(help="model to time; default: random")] = None,
    size: Annotated[str, typer.Option(help=f"one of {', '.join(SIZES)}, if random")] = "S",
    out: Annotated[Path | None, typer.Option(help="file to write the table to, too")] = None,
    with_peers: Annotated[bool, typer.Option("--peers/--no-peers", help="race them")] = True,
    rounds: Annotated[int, typer.Option(min=1, help="how often each thing is measured")] = 3,
) -> None:
    """Measure this machine, Handscroll and its peers, and print one table."""
    if size not in SIZES:
        raise typer.BadParameter(f"--size must be one of {', '.join(SIZES)}, not {size!r}")
    model = checkpoints.load(checkpoint) if checkpoint else random_model(SIZES[size])
    planes = [world for world in model.worlds.values() if world.extent.kind == "plane"]
    if not planes:
        raise typer.BadParameter("the checkpoint has no plane, where all tiles cost the same")
    world = planes[0]
    with ThreadPoolExecutor(CORES) as workers:
        machine, patches = patch_lines(model, world, workers)
        ours = patches["float32", GROUPS[0], 1]
        rivals = peer_lines(model, ours) if with_peers else []
        lines = Lines(machine, patches, tile_lines(model, world), rivals)
        turns: Sequence[Line] = list(lines) * rounds
        for line in track(turns, "measuring", console=Console(stderr=True), transient=True):
            line.measure()
    text = report(model, world, rounds, lines)
    typer.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
