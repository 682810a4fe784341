"""How well it serves: ``python -m benchmarks.serving [--peers PYTHON] [--out FILE.md]``.

Starts the product as users do, in a folder of its own, and measures from outside: how long a start
takes until there is something to see, how long tiles take that nobody has seen before, beside the
same painting in one process, and how fast tiles come that are there, beside a published tile
server. Nothing is left behind.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Annotated

import torch
import typer
from playwright.async_api import Browser, async_playwright

from benchmarks.machine import CORES, description, seconds
from benchmarks.servers import (
    CONNECTIONS,
    Course,
    Load,
    Product,
    Server,
    client,
    etags,
    gateway_without_memory,
    mapproxy,
    mapproxy_path,
    versions,
)
from handscroll import checkpoint as checkpoints
from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Region, Tile, tile_region, tile_to_xyz
from handscroll.paint import Painter

FINEST = 2
ROWS, COLS = 3, 4
"""A window of 1024 x 768 px, in tiles."""
FRAMES, MOTION = 8, "clouds drift left"
STEPS = 4
"""Steps of one column, after which patches lie under tiles as they did before."""
ASKED_AT_ONCE = 32
RATE = "requests/s"
UNCHANGED = "If-None-Match answered 304"
NO_PEER = "not measured: --peers was not given"

# A place is so many tiles from the next, farther than what a tile stands on reaches.
_FAR = 64


@dataclass
class Line:
    """One line of the table; every list has one value for each round.

    Attributes:
        name: what is measured.
        unit: of its values.
        values: the measurements.
        patches: how many were drawn in each.
        busy: how much of the painters' time they drew; 1 is all of it.
        p50_ms, p99_ms: how long single requests took.
        beside: the line to compare with, measured in the same rounds.
        beside_name: what that is, in the table.
        note: said instead of values, where there are none.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    patches: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    beside: Line | None = None
    beside_name: str = ""
    note: str = ""

    def cells(self) -> list[str]:
        """Its line of the table."""
        if not self.values:
            return [self.name, self.unit, self.note, *[""] * 8]
        several = len(self.values) > 1
        rates = [count / value for count, value in zip(self.patches, self.values, strict=False)]
        columns = (self.patches, rates, self.busy, self.p50_ms, self.p99_ms)
        return [
            self.name,
            self.unit,
            number(median(self.values)),
            f"{number(min(self.values))} to {number(max(self.values))}" if several else "",
            str(len(self.values)),
            *(number(median(column)) if column else "" for column in columns),
            self._times(),
        ]

    def add(self, load: Load) -> None:
        """A round under load."""
        self.values.append(load.requests_s)
        self.p50_ms.append(load.p50_ms)
        self.p99_ms.append(load.p99_ms)

    def add_mean(self, other: Line) -> None:
        """A round: the mean of another line's."""
        for values, others in (
            (self.values, other.values),
            (self.patches, other.patches),
            (self.busy, other.busy),
        ):
            values += [fmean(others)] if others else []

    def _times(self) -> str:
        """How many times as much as the line beside it, in the middle of the rounds."""
        if self.beside is None or not self.beside.values:
            return ""
        pairs = zip(self.values, self.beside.values, strict=True)
        return f"{number(median(own / other for own, other in pairs))} x {self.beside_name}"


HEAD = (
    *("", "unit", "median", "min to max", "n", "patches", "patches/s", "busy"),
    *("p50 ms", "p99 ms", "beside"),
)


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def say(text: str) -> None:
    """What is going on, for those who wait."""
    typer.echo(text, err=True)


async def starts(times: int) -> list[Line]:
    """Starts from an empty folder, and again on what the first left, until a window is painted."""
    lines = {
        (store, moment): Line(f"start, {store}: {moment}", "s")
        for store in ("empty folder", "warm store")
        for moment in ("page answers", "painters awake", "first tile seen", "window painted")
    }
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for turn in range(times):
            with tempfile.TemporaryDirectory(prefix="handscroll-") as folder:
                for store in ("empty folder", "warm store"):
                    say(f"start {turn + 1} of {times}, {store}")
                    with Product(Path(folder)) as product:
                        for moment, took_s in (await _start(product, browser)).items():
                            lines[store, moment].values.append(took_s)
    return list(lines.values())


async def _start(product: Product, browser: Browser) -> dict[str, float]:
    """Seconds from the start of a product until each of the moments that a user waits for."""
    waking = asyncio.create_task(product.awake())
    try:
        found = {"page answers": await product.answers("/")}
        size = {"width": 256 * COLS, "height": 256 * ROWS}
        async with await browser.new_context(viewport=size) as context:  # type: ignore[arg-type]
            page = await context.new_page()
            page.set_default_timeout(120_000)
            await page.goto(product.url, wait_until="commit")
            await page.wait_for_selector("img.handscroll-tile")
            found["first tile seen"] = perf_counter() - product.began
            await page.wait_for_selector("html[data-state=ready]")
            found["window painted"] = perf_counter() - product.began
        return found | {"painters awake": await waking}
    finally:
        waking.cancel()


async def serve(product: Product, canvas_id: str, tiles: Sequence[Tile], line: Line) -> list[bytes]:
    """Ask for tiles, many at a time, and measure until all are painted.

    Raises:
        RuntimeError: one cannot be had.
    """
    slots = asyncio.Semaphore(ASKED_AT_ONCE)

    async def get(tile: Tile) -> bytes:
        async with slots:
            how = {"frame": tile.frame, "wait": 60}
            answer = await asking.get(path_of(canvas_id, tile), params=how)
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.url}: {answer.status_code}, {answer.text:.500}")
        return answer.content

    async with client(product.url) as asking:
        before, began = await product.drawn(), perf_counter()
        bodies = await asyncio.gather(*map(get, tiles))
        took_s, after = perf_counter() - began, await product.drawn()
    line.values.append(took_s)
    line.patches.append(after.patches - before.patches)
    line.busy.append((after.busy_s - before.busy_s) / took_s / CORES)
    return bodies


class Easels:
    """A canvas twice: as the product serves it, and in this process on as many workers.

    Both paint the same tiles, one after the other, so that neither finds anything ready.
    """

    def __init__(self, product: Product, painter: Painter) -> None:
        self.product, self.painter = product, painter

    def paint(self, region: Region) -> None:
        """Paint a region here, all its patches as one job and then its pixels."""
        for _ in self.painter.patches(list(self.painter.cone(region))):
            pass
        for _ in self.painter.region(region):
            pass

    async def both(self, served: Line, inside: Line, corner: Tile, rows: int, cols: int) -> None:
        """Measure one rectangle of tiles, served and here."""
        await serve(self.product, self.painter.canvas.id, rectangle(corner, rows, cols), served)
        region = tile_region(corner, self.painter.canvas.extent)
        region = region._replace(height=rows * region.height, width=cols * region.width)
        inside.patches.append(len(self.painter.cone(region)))
        inside.values.append(seconds(lambda: self.paint(region)))


def places(canvas: Canvas) -> Iterator[Tile]:
    """Tiles of the finest level far from each other, the same ones in every run."""
    chance = random.Random(0)
    spots = list(range(-400, 400))
    chance.shuffle(spots)
    for spot in spots:
        col = _FAR * spot + chance.randrange(8)
        row = 0 if canvas.extent.height_px else _FAR * chance.randrange(-400, 400)
        yield Tile(FINEST, row, col)


def rectangle(corner: Tile, rows: int, cols: int) -> list[Tile]:
    """The tiles of a rectangle, row by row."""
    return [
        corner._replace(row=corner.row + down, col=corner.col + right)
        for down in range(rows)
        for right in range(cols)
    ]


def path_of(canvas_id: str, tile: Tile) -> str:
    """Where the gateway serves a tile."""
    x, y, z = tile_to_xyz(tile)
    return f"/tiles/{canvas_id}/{z}/{x}/{y}.webp"


async def painting(product: Product, model: Checkpoint, rounds: int) -> list[Line]:
    """Tiles that nobody has seen before, in every world."""
    lines: list[Line] = []
    for canvas in (await product.worlds()).values():
        with Painter(model, canvas, CORES) as painter:
            lines += await _world(Easels(product, painter), rounds)
    return lines


async def _world(easels: Easels, rounds: int) -> list[Line]:
    """Single tiles, a first window and a step to its right, each at fresh places."""
    canvas = easels.painter.canvas
    world, fresh = canvas.world, places(canvas)
    cold, over, window, step = (
        _pair(f"{world}, level {FINEST}, {what}")
        for what in (
            "cold: one tile",
            f"after the tile of level {FINEST - 1}: one tile",
            f"cold: a window of {COLS} x {ROWS} tiles, asked at once",
            f"then a step of one column, {ROWS} tiles: mean of {STEPS} on end",
        )
    )
    slowest = Line(f"{world}, level {FINEST}, the slowest of these steps", "s")
    # What is loaded at the first tile of a canvas is not measured.
    await easels.both(*_pair(""), next(fresh), 1, 1)
    for turn in range(rounds):
        say(f"painting {world}, round {turn + 1} of {rounds}")
        await easels.both(*cold, next(fresh), 1, 1)
        tile = next(fresh)
        await easels.both(*_pair(""), Tile(FINEST - 1, tile.row // 2, tile.col // 2), 1, 1)
        await easels.both(*over, tile, 1, 1)
        corner = next(fresh)
        await easels.both(*window, corner, ROWS, COLS)
        steps = _pair("")
        for ahead in range(STEPS):
            right = corner.col + COLS + ahead
            await easels.both(*steps, corner._replace(col=right), ROWS, 1)
        for line, taken in zip(step, steps, strict=True):
            line.add_mean(taken)
        slowest.values.append(max(steps[0].values))
    return [*cold, *over, *window, *step, slowest]


def _pair(name: str) -> tuple[Line, Line]:
    """The lines of a thing that is painted, served and in this process."""
    inside = Line(f"{name}, in one process", "s")
    return Line(name, "s", beside=inside, beside_name="in one process"), inside


async def film(product: Product, model: Checkpoint, rounds: int) -> list[Line]:
    """The frames of a window of the first scroll, one after another, as a viewer asks for them."""
    worlds = (await product.worlds()).items()
    scroll = next(name for name, canvas in worlds if canvas.extent.kind == "scroll")
    canvas = await product.canvas(world=scroll, frames=FRAMES, motion=MOTION)
    name = f"{canvas.world}, level {FINEST}, a film: a frame of {COLS} x {ROWS} tiles"
    first, later = _pair(f"{name}, the first"), _pair(f"{name}, mean of {FRAMES - 1} more")
    with Painter(model, canvas, CORES) as painter:
        easels, fresh = Easels(product, painter), places(canvas)
        await easels.both(*_pair(""), next(fresh), 1, 1)
        for turn in range(rounds):
            say(f"painting a film, round {turn + 1} of {rounds}")
            corner, frames = next(fresh), _pair("")
            await easels.both(*first, corner, ROWS, COLS)
            for frame in range(1, FRAMES):
                await easels.both(*frames, corner._replace(frame=frame), ROWS, COLS)
            for line, taken in zip(later, frames, strict=True):
                line.add_mean(taken)
    return [*first, *later]


async def wide(product: Product, count: int) -> tuple[Line, str, dict[Tile, bytes]]:
    """Have a wide picture painted: tiles that lie side by side, asked for many at a time.

    Returns:
        How long it took, the canvas, and the tiles.
    """
    say(f"painting {count} tiles")
    world, canvas = next(iter((await product.worlds()).items()))
    cols = round((2 * count) ** 0.5)
    tiles = rectangle(Tile(FINEST, 0, _FAR // 3), -(-count // cols), cols)[:count]
    name = f"{world}, level {FINEST}, cold: {count} tiles side by side, {ASKED_AT_ONCE} at a time"
    line = Line(name, "s")
    bodies = await serve(product, canvas.id, tiles, line)
    return line, canvas.id, dict(zip(tiles, bodies, strict=True))


async def cached(
    product: Product, folder: Path, peers: Path | None, rounds: int, lasting_s: int, count: int
) -> list[Line]:
    """Tiles that are there already, served by each in turn; and then the memory of each."""
    painted, canvas_id, tiles = await wide(product, count)
    paths, bodies = [path_of(canvas_id, tile) for tile in tiles], list(tiles.values())
    with ExitStack() as running:
        bare = running.enter_context(gateway_without_memory(product, folder / "bare.log"))
        await bare.answers("/healthz")
        servers: dict[str, Server] = {"serve": product, "gateway without memory": bare}
        whole, unchanged = (
            Line(f"cached tiles, {how}", RATE, note=NO_PEER)
            for how in ("MapProxy, from its disk", f"MapProxy, {UNCHANGED}")
        )
        tags = await etags(product, paths)
        courses = [
            (_raced("from memory", whole), Course(product, paths, bodies)),
            (_raced("without memory, from the store", whole), Course(bare, paths, bodies)),
            (_raced(UNCHANGED, unchanged), Course(product, paths, bodies, tags)),
        ]
        if peers:
            rival = running.enter_context(mapproxy(peers, folder / "mapproxy", tiles))
            servers["MapProxy"] = rival
            there = [mapproxy_path(tile) for tile in tiles]
            await rival.answers(there[0])
            courses += [
                (whole, Course(rival, there, bodies)),
                (unchanged, Course(rival, there, bodies, await etags(rival, there))),
            ]
        for _, course in courses:
            await course.check()
        for turn in range(rounds):
            for line, course in courses:
                say(f"{line.name}, round {turn + 1} of {rounds}")
                line.add(course.run(lasting_s))
        raced = [line for line, _ in courses]
        missing = [line for line in (whole, unchanged) if line not in raced]
        return [painted, *raced, *missing, *memory(servers)]


def _raced(how: str, rival: Line) -> Line:
    return Line(f"cached tiles, {how}", RATE, beside=rival, beside_name="MapProxy")


def memory(servers: Mapping[str, Server]) -> list[Line]:
    """What each server's processes hold, those of a kind together; shared pages count in each."""
    lines: list[Line] = []
    for name, server in servers.items():
        found = server.memory_mib()
        for kind, sizes in sorted(found.items(), key=lambda item: -sum(item[1])):
            several = f", {len(sizes)} processes" if len(sizes) > 1 else ""
            lines.append(Line(f"resident memory, {name}: {kind}{several}", "MiB", [sum(sizes)]))
        lines.append(Line(f"resident memory, {name}: all", "MiB", [sum(map(sum, found.values()))]))
    return lines


async def measured(
    peers: Path | None, times: int, rounds: int, lasting_s: int, count: int
) -> list[Line]:
    """Everything there is to measure, in the order of the table."""
    lines = await starts(times)
    with tempfile.TemporaryDirectory(prefix="handscroll-") as name:
        folder = Path(name)
        with Product(folder / "product") as product:
            await product.awake()
            lines += await painting(product, checkpoints.load(), rounds)
            lines += await film(product, checkpoints.load(), rounds)
            lines += await cached(product, folder, peers, rounds, lasting_s, count)
    return lines


def report(lines: Sequence[Line], about: str) -> str:
    """What was measured on what, and the table."""
    table = [HEAD, ["---"] * 2 + ["---:"] * (len(HEAD) - 2), *(line.cells() for line in lines)]
    return "\n".join((about, "", *(f"| {' | '.join(row)} |" for row in table)))


def main(
    peers: Annotated[
        Path | None,
        typer.Option(exists=True, help="python of an environment with MapProxy and gunicorn"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="file to write the table to, too")] = None,
    times: Annotated[int, typer.Option(min=1, help="how often it is started from nothing")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="how often each other thing is measured")] = 3,
    lasting_s: Annotated[int, typer.Option(min=1, help="seconds of load in each round")] = 10,
    tiles: Annotated[int, typer.Option(min=1, help="distinct tiles under load")] = 200,
) -> None:
    """Measure the product as its users have it, beside MapProxy, and print one table."""
    for needed in ("wrk", "chromium"):
        if shutil.which(needed) is None:
            raise typer.BadParameter(f"{needed} is not installed")
    peer = versions(peers, "MapProxy", "gunicorn") if peers else "no peer"
    load = os.getloadavg()[0]
    # However we are ended, everything is stopped first; a shell may have us ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    lines = asyncio.run(measured(peers, times, rounds, lasting_s, tiles))
    text = report(
        lines,
        f"Machine: {description()}, torch {torch.__version__}; load average {load:.1f} before "
        f"the first start. Shipped model {checkpoints.load().digest[:16]}, {CORES} painters, "
        f"beside as many workers in one process. Load: wrk, 1 thread, {CONNECTIONS} connections, "
        f"{tiles} distinct tiles, {lasting_s} s a round; {peer}.",
    )
    typer.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
