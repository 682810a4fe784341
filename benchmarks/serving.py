"""How well it serves: ``python -m benchmarks.serving [--peers PYTHON] [--out FILE.md]``.

Starts the product as users do, in a folder of its own, and measures from outside: how long a start
takes until there is something to see, how long tiles take that nobody has seen before, beside the
same painting in one process, and how fast tiles come that are there, beside a published tile
server. Nothing is left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Annotated, TypeVar

import httpx
import torch
import typer
from playwright.async_api import Browser, async_playwright

from benchmarks.machine import CORES, description, seconds
from benchmarks.servers import (
    HOST,
    Product,
    Server,
    client,
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
ASKED_AT_ONCE = 32
CONNECTIONS = 32
HEADERS_BYTES = 1500
"""More than the headers of any answer take."""

# A place is so many tiles from the next, farther than what a tile stands on reaches.
_FAR = 64

_LUA = """
local wanted = {{
{wanted}
}}
local requests, at = {{}}, 0

function init(arguments)
  for number, one in ipairs(wanted) do
    requests[number] = wrk.format("GET", one[1], one[2] and {{["If-None-Match"] = one[2]}})
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '{{"count": %d, "us": %d, "bytes": %d, "errors": %d, "p50_us": %d, "p99_us": %d}}\\n',
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""

_T = TypeVar("_T")


@dataclass
class Line:
    """One line of the table; every list has one value for each round.

    Attributes:
        name: what is measured.
        unit: of its values.
        values: the measurements.
        patches: how many were drawn in each.
        p50_ms, p99_ms: how long single requests took.
        beside: the line to compare with, measured in the same rounds.
        beside_name: what that is, in the table.
        note: said instead of values, where there are none.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    patches: list[int] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    beside: Line | None = None
    beside_name: str = ""
    note: str = ""

    def cells(self) -> list[str]:
        """Its line of the table."""
        if not self.values:
            return [self.name, self.unit, self.note, *[""] * 7]
        several = len(self.values) > 1
        rates = [count / value for count, value in zip(self.patches, self.values, strict=False)]
        return [
            self.name,
            self.unit,
            number(median(self.values)),
            f"{number(min(self.values))} to {number(max(self.values))}" if several else "",
            str(len(self.values)),
            *(number(median(column)) if column else "" for column in (self.patches, rates)),
            *(number(median(column)) if column else "" for column in (self.p50_ms, self.p99_ms)),
            self._times(),
        ]

    def _times(self) -> str:
        """How many times as much as the line beside it, in the middle of the rounds."""
        if self.beside is None or not self.beside.values:
            return ""
        pairs = zip(self.values, self.beside.values, strict=True)
        return f"{number(median(own / other for own, other in pairs))} x {self.beside_name}"


HEAD = (
    *("", "unit", "median", "min to max", "n", "patches", "patches/s"),
    *("p50 ms", "p99 ms", "beside"),
)


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def say(text: str) -> None:
    """What is going on, for those who wait."""
    typer.echo(text, err=True)


# ---------------------------------------------------------------------------------------- starts


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
    waking = asyncio.create_task(product.answers("/worlds"))
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


# -------------------------------------------------------------------------------------- painting


class Easels:
    """A canvas twice: as the product serves it, and in this process on as many workers.

    Both paint the same tiles, one after the other, so that neither finds anything ready.
    """

    def __init__(self, product: Product, asking: httpx.AsyncClient, painter: Painter) -> None:
        self.product, self.asking, self.painter = product, asking, painter
        self.world, self.canvas_id = painter.canvas.world, painter.canvas.id

    async def serve(self, tiles: Sequence[Tile]) -> list[bytes]:
        """Ask for tiles, many at a time, and wait until all are there."""
        slots = asyncio.Semaphore(ASKED_AT_ONCE)

        async def get(tile: Tile) -> bytes:
            async with slots:
                answer = await self.asking.get(path_of(self.canvas_id, tile), params={"wait": 60})
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.url}: {answer.status_code}, {answer.text:.500}")
            return answer.content

        return await asyncio.gather(*map(get, tiles))

    def paint(self, region: Region) -> None:
        """Paint a region here, all its patches as one job and then its pixels."""
        for _ in self.painter.patches(self.painter.cone(region)):
            pass
        for _ in self.painter.region(region):
            pass

    async def both(self, served: Line, inside: Line, corner: Tile, rows: int, cols: int) -> None:
        """Measure one rectangle of tiles, served and here."""
        before, began = await self.product.patches_drawn(), perf_counter()
        await self.serve(rectangle(corner, rows, cols))
        served.values.append(perf_counter() - began)
        served.patches.append(await self.product.patches_drawn() - before)
        region = tile_region(corner, self.painter.canvas.extent)
        region = region._replace(height=rows * region.height, width=cols * region.width)
        inside.patches.append(len(self.painter.cone(region)))
        inside.values.append(await asyncio.to_thread(seconds, lambda: self.paint(region)))


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
    async with client(product.url) as asking:
        for canvas in (await product.worlds()).values():
            with Painter(model, canvas, CORES) as painter:
                lines += await _world(Easels(product, asking, painter), rounds)
    return lines


async def _world(easels: Easels, rounds: int) -> list[Line]:
    """Single tiles, a first window and a step to its right, each at fresh places."""
    fresh = places(easels.painter.canvas)
    cold, over, window, step = (
        _pair(f"{easels.world}, {what}")
        for what in (
            "level 2, cold: one tile",
            "level 2, after the tile of level 1: one tile",
            f"level 2, cold: a window of {COLS} x {ROWS} tiles, asked at once",
            f"level 2, one column on: {ROWS} tiles",
        )
    )
    # What is loaded and compiled at the first tile of a canvas is not measured.
    await easels.both(*_pair(""), next(fresh), 1, 1)
    for turn in range(rounds):
        say(f"painting {easels.world}, round {turn + 1} of {rounds}")
        await easels.both(*cold, next(fresh), 1, 1)
        tile = next(fresh)
        await easels.both(*_pair(""), Tile(FINEST - 1, tile.row // 2, tile.col // 2), 1, 1)
        await easels.both(*over, tile, 1, 1)
        corner = next(fresh)
        await easels.both(*window, corner, ROWS, COLS)
        await easels.both(*step, corner._replace(col=corner.col + COLS), ROWS, 1)
    return [*cold, *over, *window, *step]


def _pair(name: str) -> tuple[Line, Line]:
    """The lines of a thing that is painted, served and in this process."""
    inside = Line(f"{name}, in one process", "s")
    return Line(name, "s", beside=inside, beside_name="in one process"), inside


# ---------------------------------------------------------------------------------- cached tiles


@dataclass(frozen=True)
class Runner:
    """One that serves tiles that it has.

    Attributes:
        line: where its figures go.
        server: who serves.
        paths: of the tiles.
        bodies: what they must be.
        etags: sent as If-None-Match, and then answered 304; empty for none.
    """

    line: Line
    server: Server
    paths: Sequence[str]
    bodies: Sequence[bytes]
    etags: Sequence[str] = ()

    async def check(self) -> None:
        """Ask for every tile once, so that what can be in memory is.

        Raises:
            RuntimeError: another answer than the tile, or than that it is unchanged.
        """
        async with client(self.server.url) as asking:
            for place, (path, body) in enumerate(zip(self.paths, self.bodies, strict=True)):
                tag = {"If-None-Match": self.etags[place]} if self.etags else {}
                answer = await asking.get(path, headers=tag)
                wanted = (304, b"") if self.etags else (200, body)
                if (answer.status_code, answer.content) != wanted:
                    raise RuntimeError(
                        f"{self.line.name}: {path} answered {answer.status_code} with "
                        f"{len(answer.content)} bytes, not {wanted[0]} with {len(wanted[1])}"
                    )

    def run(self, took_s: int, folder: Path) -> None:
        """One round.

        Raises:
            RuntimeError: some requests failed, or were answered with something else.
        """
        script = folder / "tiles.lua"
        tags = self.etags or [""] * len(self.paths)
        wanted = (
            f"  {{{json.dumps(path)}{f', {json.dumps(tag)}' if tag else ''}}},"
            for path, tag in zip(self.paths, tags, strict=True)
        )
        script.write_text(_LUA.format(wanted="\n".join(wanted)))
        load = ("-t1", f"-c{CONNECTIONS}", f"-d{took_s}s", "--latency", "-s", str(script))
        done = subprocess.run(
            ["wrk", *load, self.server.url], check=True, capture_output=True, text=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        fewest = 0 if self.etags else fmean(map(len, self.bodies)) * 0.9
        most = HEADERS_BYTES if self.etags else fmean(map(len, self.bodies)) * 1.1 + HEADERS_BYTES
        if found["errors"] or not fewest < found["bytes"] / found["count"] < most:
            raise RuntimeError(f"{self.line.name}: wrk was not served what it asked for: {found}")
        self.line.values.append(1e6 * found["count"] / found["us"])
        self.line.p50_ms.append(found["p50_us"] / 1000)
        self.line.p99_ms.append(found["p99_us"] / 1000)


async def etags(server: Server, paths: Sequence[str]) -> list[str]:
    """What a server names the bytes of its tiles."""
    async with client(server.url) as asking:
        return [(await asking.get(path)).raise_for_status().headers["ETag"] for path in paths]


async def wide(product: Product, canvas: Canvas, count: int, line: Line) -> dict[Tile, bytes]:
    """Have a wide picture painted: so many tiles that lie side by side."""
    cols = max(1, round((2 * count) ** 0.5))
    tiles = rectangle(Tile(FINEST, 0, 0), -(-count // cols), cols)[:count]
    async with client(product.url) as asking:
        with Painter(checkpoints.load(), canvas) as painter:
            before, began = await product.patches_drawn(), perf_counter()
            bodies = await Easels(product, asking, painter).serve(tiles)
    line.values.append(perf_counter() - began)
    line.patches.append(await product.patches_drawn() - before)
    return dict(zip(tiles, bodies, strict=True))
