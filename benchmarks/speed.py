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
from handscroll.decoder import SIZES, Decoder

ONE = "1 thread"
WORKERS = f"{CORES} workers"
THREADS = f"{CORES} threads"
WAYS = {ONE: 1, WORKERS: 1, THREADS: CORES}
"""Ways of using the cores, and torch's threads in each; a worker is a thread of its own."""

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
GROUPS = (16, 32)
ROWS = (1, 4)


@dataclass
class Line:
    """One line of the table.

    Attributes:
        name: what is measured.
        unit: of its values.
        measures: takes one measurement, for each way of using the cores; none: not installed.
        patches: how many are drawn in one unit; 0 where that says nothing.
        floor: so many times so many lines; it takes at least as long as the longest.
        beside: the line to compare with.
        values: of each way, one for each round.
    """

    name: str
    unit: str
    measures: dict[str, Callable[[], float]]
    patches: int = 0
    floor: Sequence[tuple[float, Line]] = ()
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

    def times(self, other: Line) -> float:
        """How many times as long as another line on one thread, in the middle of the rounds."""
        pairs = zip(self.values[ONE], other.values[ONE], strict=True)
        return median(own / others for own, others in pairs)

    def times_floor(self) -> float:
        """How many times as long as its floor, in the middle of the rounds."""
        return median(
            own / max(count * line.values[ONE][turn] for count, line in self.floor)
            for turn, own in enumerate(self.values[ONE])
        )

    def cells(self) -> list[str]:
        """Its line of the table."""
        if not self.measures:
            return [self.name, self.unit, "not installed", *[""] * (len(WAYS) + 2)]
        values = {way: self.median(way) for way in self.values}
        return [
            self.name,
            self.unit,
            *(number(values[way]) if way in values else "" for way in WAYS),
            number(self.patches / min(values.values())) if self.patches else "",
            number(self.times_floor()) if self.floor else "",
            number(self.times(self.beside)) if self.beside else "",
        ]


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


@dataclass
class Lines:
    """All lines, those of ours by what the targets call them: format, group, rows; format, name."""

    machine: list[Line]
    patches: dict[tuple[Dtype, int, int], Line]
    tiles: dict[tuple[Dtype, str], Line]
    peers: list[Line]

    def __iter__(self) -> Iterator[Line]:
        yield from (*self.machine, *self.patches.values(), *self.tiles.values(), *self.peers)


def lines_of(
    model: Checkpoint, world: World, workers: ThreadPoolExecutor, with_peers: bool
) -> Lines:
    """Everything there is to measure, in the order of the table."""
    lines = Lines([_speed("read 512 MiB", "GiB/s", partial(read_gib_s, GIB // 2))], {}, {}, [])
    fewest = Patches(model.decoder, world, Sampling(group=GROUPS[-1]))
    work = flops(fewest.draw)  # a count takes seconds, and other groups differ by 1 %
    for dtype in DTYPES:
        decoder = decoder_in(model, dtype)
        size = step_bytes(decoder)
        weights = f"the weights of a step, {size / 1e6:.1f} MB in {dtype}"
        read = _speed(f"read {weights}", "GiB/s", partial(read_gib_s, size))
        multiply = _speed(
            f"multiply matrices, {dtype}",
            "GFLOP/s",
            partial(matmul_gflop_s, getattr(torch, dtype)),
        )
        reading = _floor(weights, "s/step", size / GIB, read)
        multiplying = _floor(
            f"{work / 1e9:.1f} GFLOP of a patch, {dtype}", "s/patch", work / 1e9, multiply
        )
        lines.machine += [read, multiply, reading, multiplying]
        lines.patches |= _patches(decoder, world, dtype, workers, reading, multiplying)
    for dtype in DTYPES:
        lines.tiles |= _tiles(model, world, dtype)
    if with_peers:
        ours = lines.patches["float32", GROUPS[0], 1]
        for peer in peers(model.decoder.config):
            measures = {} if peer.draw is None else {ONE: peer.draw, THREADS: peer.draw}
            lines.peers.append(Line(peer.name, "s/patch", measures, patches=1, beside=ours))
    return lines


def _speed(name: str, unit: str, call: Callable[[], float]) -> Line:
    return Line(f"machine: {name}", unit, {ONE: call, THREADS: call})


def _floor(name: str, unit: str, amount: float, speed: Line) -> Line:
    """What an amount takes at the speed that was measured just before."""

    def at_speed(way: str) -> float:
        return amount / speed.values[way][-1]

    return Line(f"floor: {name}", unit, {way: partial(at_speed, way) for way in speed.measures})


def _patches(
    decoder: Decoder,
    world: World,
    dtype: Dtype,
    workers: ThreadPoolExecutor,
    reading: Line,
    multiplying: Line,
) -> dict[tuple[Dtype, int, int], Line]:
    """Group decoding, and one token at a time in reading order with the same weights."""
    lines: dict[tuple[Dtype, int, int], Line] = {}
    for group, rows in (*((group, rows) for group in GROUPS for rows in ROWS), (1, 1)):
        order: TokenOrder = "raster" if group == 1 else "spread"
        sampling = Sampling(dtype=dtype, rows=rows, group=group, token_order=order)
        patches = Patches(decoder, world, sampling)
        steps = decoder.config.side**2 // group
        lines[dtype, group, rows] = Line(
            f"ours: patch, {dtype}, {steps} steps{' in raster' if group == 1 else ''}, "
            f"{rows} at a time",
            "s/patch",
            {
                ONE: patches.alone,
                WORKERS: partial(patches.beside, workers, CORES),
                THREADS: patches.alone,
            },
            patches=1,
            floor=((steps / rows, reading), (1, multiplying)),
            beside=lines.get((dtype, GROUPS[0], 1)),
        )
    return lines


def _tiles(model: Checkpoint, world: World, dtype: Dtype) -> dict[tuple[Dtype, str], Line]:
    """Tiles of which more or less is there already."""
    one, all_cores = (Tiles(model, world, dtype, workers) for workers in (1, CORES))
    cone = one.cone()
    finest = sum(patch.level == world.extent.finest for patch in cone)
    visits = (
        ("over ready parents", finest, Tiles.over_parents),
        ("warm", 0, Tiles.warm),
        ("cold", len(cone), Tiles.cold),
    )
    return {
        (dtype, name): Line(
            f"ours: tile {name}, {dtype}: {f'{count} patches and ' if count else ''}its pixels",
            "s/tile",
            {ONE: partial(visit, one), WORKERS: partial(visit, all_cores)},
            patches=count,
        )
        for name, count, visit in visits
    }


def targets(lines: Lines) -> list[str]:
    """What we hold ourselves to, and whether it holds here."""
    ours = {dtype: lines.patches[dtype, GROUPS[0], 1] for dtype in DTYPES}
    batch = lines.patches["float32", GROUPS[0], 4].median(WORKERS)
    found = [_verdict(f"a patch in a batch of 4, float32, {WORKERS}", batch, 0.25, "s")]
    for dtype in DTYPES:
        tile = lines.tiles[dtype, "over ready parents"].median(WORKERS)
        found.append(_verdict(f"a tile over ready parents, {dtype}, {WORKERS}", tile, 1, "s"))
    for dtype in DTYPES:
        ratio = lines.patches[dtype, 1, 1].times(ours[dtype])
        found.append(_verdict(f"our own raster beside ours, {dtype}, {ONE}", ratio, 4, "x"))
    for peer in lines.peers[:2]:
        name = f"{peer.name}, beside ours, float32, {ONE}"
        if peer.values:
            found.append(_verdict(name, peer.times(ours["float32"]), 50, "x"))
        else:
            found.append(f"- not installed: {name}")
    return found


def _verdict(name: str, value: float, limit: float, unit: str) -> str:
    """One target: at most so many seconds, or at least so many times."""
    share = value / limit if unit == "s" else limit / value
    kind = "at most" if unit == "s" else "at least"
    return (
        f"- {'pass' if share <= 1 else 'FAIL'}: {name}: {number(value)} {unit}, "
        f"wanted {kind} {limit} {unit} (ratio {number(value / limit)})"
    )


def report(model: Checkpoint, world: World, rounds: int, lines: Lines) -> str:
    """What was measured on what, the table, and the targets."""
    config = model.decoder.config
    size = sum(weight.numel() for weight in model.decoder.parameters()) / 1e6
    head = ["", "unit", *WAYS, "patches/s", "÷ floor", "÷ ours"]
    table = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *(line.cells() for line in lines)]
    return "\n".join(
        (
            f"Machine: {description()}, torch {torch.__version__}. Decoder: {config.layers} "
            f"layers x {config.width}, {size:.1f}M parameters, "
            f"{f'model {model.digest[:16]}' if model.digest else 'random weights'}. Patches of "
            f"level {world.extent.finest} that see all their neighbours. Medians of {rounds} "
            f"rounds; of taming's windows {TIMED_WINDOWS} of {SIDE**2} are timed, and scaled.",
            "",
            *(f"| {' | '.join(row)} |" for row in table),
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
    with ThreadPoolExecutor(CORES) as workers:
        lines = lines_of(model, planes[0], workers, with_peers)
        turns = list(lines) * rounds
        for line in track(turns, "measuring", console=Console(stderr=True), transient=True):
            line.measure()
    text = report(model, planes[0], rounds, lines)
    typer.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
