"""Tiles, streams of tiles, and regions: from the store, or painted and then committed.

One job paints a tile, whoever and however many ask for it. What a stream waits for, the patches of
many tiles, is its own affair; it joins the job of a tile only when these are there, so that no job
ever waits for a slow reader.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np
from prometheus_client import Counter, Histogram

from handscroll.assemble import Pixels, strips
from handscroll.branch import Lineage
from handscroll.canvas import Canvas
from handscroll.errors import InvalidRequest, NotFound
from handscroll.formats import encode_tile
from handscroll.geometry import (
    TILE_PX,
    Patch,
    Region,
    Tile,
    tile_region,
    tile_to_xyz,
    tiles_of,
)
from svckit import trace
from svckit.jobs import READS, Jobs, at_once
from svckit.keys import TileFormat, tile_key
from svckit.specs import Specs, check_frame, shows
from svckit.store import Store
from svckit.wire import Model
from tiler_svc.admission import Admission
from tiler_svc.feed import Feed
from tiler_svc.peers import Generator, Models, Tokenizer, again
from tiler_svc.pictures import Pictures

LONGEST_JOB_S = 600.0
MAX_TILES = 256
MAX_WIDTH_PX = 16384
MAX_PIXELS = 64 * 2**20
MAX_REGION_TILES = 2048
STRIP_BYTES = 3 * 2**20
# Tiles of a region whose patches are asked for together: enough to keep painters busy.
BAND_TILES = 64
# Painted tiles of a stream that wait for a slow reader.
UNREAD = 16

_TILES = Counter("handscroll_tiles", "Tiles served, by where they were found", ["source"])
_STORE, _PAINTED = (_TILES.labels(source) for source in ("store", "painted"))
_SECONDS = Histogram(
    "handscroll_tile_seconds",
    "Time that the steps of painting a tile take, waiting included",
    ["step"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)


class Image(NamedTuple):
    """A tile as a file, and whether it came from the cache."""

    content: bytes
    cached: bool


class Engine:
    """Serves the pictures of all canvases.

    Args:
        store: where specs, patches and tiles are.
        specs: what is read of it.
        models: what is served.
        generator: draws patches.
        tokenizer: decodes them.
        pictures: that canvases are painted around.
        decodes: tiles being decoded at a time.
        quality: of WebP and JPEG, 1 to 100.
    """

    def __init__(
        self,
        store: Store,
        specs: Specs,
        models: Models,
        generator: Generator,
        tokenizer: Tokenizer,
        pictures: Pictures,
        decodes: int,
        quality: int,
    ) -> None:
        self._store, self._specs, self._models = store, specs, models
        self._generator, self._tokenizer, self._pictures = generator, tokenizer, pictures
        self._decodes, self._at_once = asyncio.Semaphore(decodes), decodes
        self._quality = quality
        self._admission = Admission(store)
        self._jobs = Jobs[tuple[str, Tile, TileFormat], Image]("tile", LONGEST_JOB_S)

    async def close(self) -> None:
        """Stop all work."""
        await self._jobs.close()

    async def tile(self, canvas_id: str, tile: Tile, format: TileFormat, urgent: bool) -> bytes:
        """One tile as a file, painted if it is not there.

        Raises:
            InvalidRequest: not an id, or the canvas has no such frame.
            NotFound: no such canvas, or the tile lies outside it.
            SpecMismatch: it must be painted, and the canvas' model is not served.
            Unauthenticated, Forbidden, OverBudget: see `Admission.paint`.
            Overloaded: too much is waiting to be drawn or decoded.
        """
        canvas = await self._specs.get(canvas_id)
        check_frame(canvas, tile.frame)
        if not shows(canvas, tile):
            raise NotFound(f"the tile lies outside this {canvas.extent.kind}")
        canvas = await self._specs.shown(canvas, tile)
        found = await self._store.look(tile_key(canvas.id, tile, format))
        if found:
            _STORE.inc()
            return found
        await self._admit(canvas, [tile])
        return await self._image(canvas, tile, format, urgent)

    async def rectangle(self, canvas_id: str, first: Tile, last: Tile) -> tuple[Canvas, list[Tile]]:
        """The tiles of the canvas in a rectangle, from its middle outwards.

        Args:
            canvas_id: the canvas.
            first: top left tile.
            last: bottom right tile, included.

        Raises:
            InvalidRequest: not an id, no such frame, or a rectangle that is empty, of two levels or
                of more than MAX_TILES tiles.
            NotFound: no such canvas.
        """
        if first.level != last.level:
            raise InvalidRequest("first and last must be of the same zoom")
        height, width = last.row - first.row + 1, last.col - first.col + 1
        if height < 1 or width < 1:
            raise InvalidRequest("first must lie neither below nor to the right of last")
        if height * width > MAX_TILES:
            raise InvalidRequest(f"a rectangle may hold {MAX_TILES} tiles, not {height} x {width}")
        canvas = await self._specs.get(canvas_id)
        check_frame(canvas, first.frame)
        tiles = [
            first._replace(row=row, col=col)
            for row in range(first.row, last.row + 1)
            for col in range(first.col, last.col + 1)
        ]
        down, right = first.row + last.row, first.col + last.col
        return canvas, sorted(
            (tile for tile in tiles if shows(canvas, tile)),
            key=lambda tile: (2 * tile.row - down) ** 2 + (2 * tile.col - right) ** 2,
        )

    async def stream(
        self, canvas: Canvas, tiles: Iterable[Tile], format: TileFormat, urgent: bool
    ) -> AsyncGenerator[tuple[Tile, bytes], None]:
        """Tiles of a canvas as files: those that are there first, the others as they are painted.

        Raises:
            SpecMismatch: a tile must be painted, and the canvas' model is not served.
            Unauthenticated, Forbidden, OverBudget: see `Admission.paint`.
            Overloaded: too much is waiting to be drawn or decoded.
        """
        rest, missing = iter(tiles), []
        while some := list(islice(rest, READS)):
            shown = [await self._specs.shown(canvas, tile) for tile in some]
            keys = [tile_key(one.id, tile, format) for one, tile in zip(shown, some, strict=True)]
            for tile, found in zip(some, await at_once(READS, self._store.look, keys), strict=True):
                if not found:  # an empty one was cut short by a power cut
                    missing.append(tile)
                else:
                    _STORE.inc()
                    yield tile, found
        if missing:
            await self._admit(canvas, missing)
            async with aclosing(self._painted(canvas, missing, format, urgent)) as painted:
                async for one in painted:
                    yield one

    async def region(
        self, canvas_id: str, region: Region
    ) -> AsyncGenerator[tuple[int, Pixels], None]:
        """A region's pixels from top to bottom, in strips of at most STRIP_BYTES.

        Yields:
            The strip's first row, counted from the region's top, and it: (rows, width, 3) uint8.

        Raises:
            InvalidRequest: not an id, no such frame, or a region that is empty, too large, or
                outside the world of tiles.
            NotFound: no such canvas, or the region reaches beyond it.
            SpecMismatch: the canvas' model is not served.
            Unauthenticated, Forbidden, OverBudget: see `Admission.paint`.
            Overloaded: too much is waiting to be drawn or decoded.
        """
        canvas = await self._specs.get(canvas_id)
        _check_size(region)
        check_place(canvas, region)
        model = await self._models.of(canvas.model)
        rows = groupby(tiles_of(region, canvas.extent), key=lambda tile: tile.row)
        bands = (list(row) for _, row in rows)
        per_band = max(1, BAND_TILES // (region.width // TILE_PX + 2))
        while band := list(islice(bands, per_band)):
            under = await self._under(canvas, model, (tile for row in band for tile in row))
            await self._admission.paint(await self._line(canvas, model), under)
            # Nobody watches a region come; viewports go before it.
            async with self._feed(canvas, model, under, urgent=False) as feed:
                for row in band:
                    pictures = await at_once(
                        self._at_once, partial(self._decoded, canvas, model, feed), row
                    )
                    for top, strip in cut(canvas, region, row, pictures):
                        yield top, strip

    async def pixels(self, canvas: Canvas, tiles: Sequence[Tile]) -> list[Pixels]:
        """The pixels of some tiles, painted when no viewport waits: (TILE_PX, TILE_PX, 3) each.

        Raises:
            SpecMismatch: the canvas' model is not served.
            Unauthenticated, Forbidden, OverBudget: see `Admission.paint`.
            Overloaded: too much is waiting to be drawn or decoded.
        """
        model = await self._models.of(canvas.model)
        under = await self._under(canvas, model, tiles)
        await self._admission.paint(await self._line(canvas, model), under)
        async with self._feed(canvas, model, under, urgent=False) as feed:
            return await at_once(self._at_once, partial(self._decoded, canvas, model, feed), tiles)

    async def _admit(self, canvas: Canvas, tiles: Iterable[Tile]) -> None:
        """Go on only if these tiles may be painted; a job belongs to nobody, and asks no more."""
        model = await self._models.of(canvas.model)
        under = await self._under(canvas, model, tiles)
        await self._admission.paint(await self._line(canvas, model), under)

    async def _image(
        self,
        canvas: Canvas,
        tile: Tile,
        format: TileFormat,
        urgent: bool,
        codes: dict[Patch, bytes] | None = None,
    ) -> bytes:
        """A tile as a file, from the one job that there is for it."""

        async def work(urged: asyncio.Event) -> Image:
            return await self._find_or_paint(canvas, tile, format, urged, codes)

        image = await self._jobs.join((canvas.id, tile, format), work, urgent)
        (_STORE if image.cached else _PAINTED).inc()
        return image.content

    async def _find_or_paint(
        self,
        canvas: Canvas,
        tile: Tile,
        format: TileFormat,
        urged: asyncio.Event,
        codes: dict[Patch, bytes] | None,
    ) -> Image:
        key = tile_key(canvas.id, tile, format)
        trace.current().describe({"tile": key})
        found = await self._store.get(key)
        if found:
            return Image(found, cached=True)
        if found is not None:  # cut short by a power cut
            await self._store.delete(key)
        model = await self._models.of(canvas.model)
        if codes is None:
            with _timed("patches"):
                codes = await self._codes(canvas, model, tile, urged)
        rgb = await self._decode(canvas, model, tile, codes)
        with _timed("encode"):
            content = await asyncio.to_thread(
                encode_tile, rgb, tile, canvas.extent, format, self._quality
            )
        with _timed("commit"):
            return Image(await self._store.create(key, content), cached=False)

    async def _codes(
        self, canvas: Canvas, model: Model, tile: Tile, urged: asyncio.Event
    ) -> dict[Patch, bytes]:
        """The patches of one tile; asked for again when somebody comes who is in a hurry."""
        under = await self._under(canvas, model, [tile])
        async with self._feed(canvas, model, under, urged.is_set()) as feed:

            async def urge() -> None:
                await urged.wait()
                feed.urge()

            watching = asyncio.create_task(urge())
            try:
                return await feed.codes(under)
            finally:
                watching.cancel()

    async def _painted(
        self, canvas: Canvas, tiles: list[Tile], format: TileFormat, urgent: bool
    ) -> AsyncGenerator[tuple[Tile, bytes], None]:
        """Tiles as they are painted, each as soon as its own patches are there."""
        model = await self._models.of(canvas.model)
        room = asyncio.Semaphore(UNREAD)
        done: asyncio.Queue[tuple[Tile, bytes] | Exception] = asyncio.Queue()
        async with self._feed(
            canvas, model, await self._under(canvas, model, tiles), urgent
        ) as feed:

            async def paint(tile: Tile) -> None:
                try:
                    codes = await feed.codes(await self._under(canvas, model, [tile]))
                    await room.acquire()
                    shown = await self._specs.shown(canvas, tile)
                    image = await self._image(shown, tile, format, urgent, codes)
                    done.put_nowait((tile, image))
                except Exception as error:
                    done.put_nowait(error)

            tasks = [asyncio.create_task(paint(tile)) for tile in tiles]
            try:
                for _ in tiles:
                    one = await done.get()
                    if isinstance(one, Exception):
                        raise one
                    yield one
                    room.release()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _decoded(self, canvas: Canvas, model: Model, feed: Feed, tile: Tile) -> Pixels:
        codes = await feed.codes(await self._under(canvas, model, [tile]))
        return await self._decode(canvas, model, tile, codes)

    async def _decode(
        self, canvas: Canvas, model: Model, tile: Tile, found: dict[Patch, bytes]
    ) -> Pixels:
        """A tile's pixels (TILE_PX, TILE_PX, 3) from its patches."""
        view = (await self._line(canvas, model)).view(tile, model.radius_tok)
        tokens = view.tokens(lambda patch: model.codes_of(found[patch]))
        with _timed("decode"):
            async with self._decodes:
                decode = partial(self._tokenizer.decode, model.digest)
                pixels = [
                    await again("the tokenizer", partial(decode, window)) for window in tokens
                ]
        line = await self._specs.line(canvas)
        with _timed("detail"):
            return view.cut(await self._pictures.shown(line, model, view, pixels))

    @asynccontextmanager
    async def _feed(
        self, canvas: Canvas, model: Model, patches: Iterable[Patch], urgent: bool
    ) -> AsyncIterator[Feed]:
        line = await self._line(canvas, model)
        async with Feed(
            self._store, self._generator, line, patches, model.patch_bytes, urgent
        ) as feed:
            yield feed

    async def _line(self, canvas: Canvas, model: Model) -> Lineage:
        return Lineage.of(await self._specs.line(canvas), model.side_tok)

    async def _under(self, canvas: Canvas, model: Model, tiles: Iterable[Tile]) -> list[Patch]:
        """The patches that tiles are decoded from, each once."""
        line = await self._line(canvas, model)
        found = (line.view(tile, model.radius_tok).patches() for tile in tiles)
        return list(dict.fromkeys(patch for patches in found for patch in patches))


@contextmanager
def _timed(step: str) -> Iterator[None]:
    began = time.monotonic()
    with trace.span(step):
        yield
    _SECONDS.labels(step).observe(time.monotonic() - began)


def _check_size(region: Region) -> None:
    height, width = region.height, region.width
    if width > MAX_WIDTH_PX or height * width > MAX_PIXELS:
        raise InvalidRequest(
            f"a region may be {MAX_WIDTH_PX} px wide and have {MAX_PIXELS} pixels in all; this "
            f"one is {height} x {width} px"
        )
    touched = (height // TILE_PX + 2) * (width // TILE_PX + 2)
    if touched > MAX_REGION_TILES:
        raise InvalidRequest(
            f"a region may touch {MAX_REGION_TILES} tiles; one of {height} x {width} px touches "
            f"up to {touched}"
        )


def check_place(canvas: Canvas, region: Region) -> None:
    """Refuse a region that a canvas has not.

    Raises:
        InvalidRequest: no such frame, the region is empty, or outside the world of tiles.
        NotFound: it reaches beyond the canvas.
    """
    level, top, left, height, width, frame = region
    check_frame(canvas, frame)
    if not (height and width):
        raise InvalidRequest(f"a region must not be empty; this one is {height} x {width} px")
    if level > canvas.extent.finest:
        raise NotFound(f"the canvas has levels 0 to {canvas.extent.finest}, not {level}")
    for place, length, size in zip(
        (top, left), (height, width), canvas.extent.size(level), strict=True
    ):
        if size is not None and not 0 <= place <= size - length:
            raise NotFound(
                f"the region reaches beyond the canvas: from {place} px to {place + length} px, "
                f"where it has {size} px at level {level}"
            )
    for row, col in ((top, left), (top + height - 1, left + width - 1)):
        corner = region._replace(top=row, left=col, height=1, width=1)
        tile_to_xyz(next(tiles_of(corner, canvas.extent)))


def cut(
    canvas: Canvas, region: Region, row: list[Tile], pictures: list[Pixels]
) -> Iterator[tuple[int, Pixels]]:
    """What a row of tiles shows of a region, in strips of at most STRIP_BYTES."""
    corner = tile_region(row[0], canvas.extent)
    top = max(region.top, corner.top)
    bottom = min(region.top + region.height, corner.top + TILE_PX)
    part = region._replace(top=top, height=bottom - top)
    whole = np.concatenate(list(strips(part, canvas.extent, lambda tiles: pictures)))
    rows = max(1, STRIP_BYTES // (3 * region.width))
    for start in range(0, len(whole), rows):
        yield top - region.top + start, whole[start : start + rows]
