"""Files of regions, written piece by piece as their tiles are painted, when no viewport waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import Literal, TypeVar

from handscroll.archive import head_of, levels_of, tiles_in
from handscroll.assemble import Pixels
from handscroll.canvas import Canvas
from handscroll.errors import OutOfTime, Overloaded, Unavailable
from handscroll.formats import PictureFormat, encoder_of
from handscroll.geometry import Region, Tile
from svckit.deadline import within
from tiler_svc.engine import Engine, cut

BATCH_TILES = 64
"""Tiles painted together: enough to keep painters busy."""
BATCH_S = 600.0
"""How long these may take."""

Format = Literal[PictureFormat, "pmtiles"]
Write = Callable[[bytes], Awaitable[None]]
T = TypeVar("T")


class Press:
    """Makes files.

    Args:
        engine: paints tiles.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def make(
        self,
        canvas: Canvas,
        region: Region,
        format: Format,
        quality: int,
        write: Write,
        painted: Callable[[int], None],
    ) -> None:
        """Make one file.

        Args:
            canvas: what is shown,
            region: and where; it lies in the canvas.
            format: of the file.
            quality: of JPEG, WebP and Deep Zoom, 1 to 100.
            write: takes the next piece of the file.
            painted: is told how many more tiles are painted.

        Raises:
            SpecMismatch: the canvas' model is not served.
            Unauthenticated, Forbidden, InvalidRequest: the caller may not have it painted, or not
                so many patches at a time. A budget that is spent is waited for.
            Unavailable: a service does not answer in time.
        """
        if format == "pmtiles":
            await self._archive(canvas, region, write, painted)
        else:
            await self._picture(canvas, region, format, quality, write, painted)

    async def _picture(
        self,
        canvas: Canvas,
        region: Region,
        format: PictureFormat,
        quality: int,
        write: Write,
        painted: Callable[[int], None],
    ) -> None:
        encoder = encoder_of(format, region.height, region.width, quality)
        level, rows, cols = levels_of(region, canvas.extent)[-1]
        tiles = (Tile(level, row, col, region.frame) for row in rows for col in cols)
        pictures: list[Pixels] = []
        for row in rows:
            while len(pictures) < len(cols):
                batch = list(islice(tiles, BATCH_TILES))
                pictures += await _patiently(partial(self._engine.pixels, canvas, batch))
                painted(len(batch))
            shown, pictures = pictures[: len(cols)], pictures[len(cols) :]
            line = [Tile(level, row, col, region.frame) for col in cols]
            for _, strip in cut(canvas, region, line, shown):
                await write(await asyncio.to_thread(encoder.add, strip))
        await write(await asyncio.to_thread(encoder.end))

    async def _archive(
        self, canvas: Canvas, region: Region, write: Write, painted: Callable[[int], None]
    ) -> None:
        """Tiles are painted into the store first, since an archive begins with their sizes."""
        tiles = tiles_in(region, canvas.extent)
        batches = [tiles[at : at + BATCH_TILES] for at in range(0, len(tiles), BATCH_TILES)]
        sizes: list[int] = []
        for batch in batches:
            sizes += map(len, await _patiently(partial(self._images, canvas, batch)))
            painted(len(batch))
        await write(head_of(canvas, region, tiles, sizes))
        expected = iter(sizes)
        for batch in batches:
            for image in await _patiently(partial(self._images, canvas, batch)):
                size = next(expected)
                if len(image) != size:
                    raise Unavailable(f"a tile had {size} bytes, and has {len(image)} now")
                await write(image)

    async def _images(self, canvas: Canvas, tiles: Sequence[Tile]) -> list[bytes]:
        """Tiles as files, in the order that was asked for."""
        async with aclosing(self._engine.stream(canvas, tiles, "webp", urgent=False)) as stream:
            images = {tile: image async for tile, image in stream}
        return [images[tile] for tile in tiles]


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """The result of work, begun again whenever there was no room for it, or no budget left."""
    while True:
        try:
            with within(BATCH_S):
                async with asyncio.timeout(BATCH_S):
                    return await work()
        except TimeoutError:
            raise OutOfTime(f"{BATCH_TILES} tiles were not painted in {BATCH_S:g} s") from None
        except Overloaded as error:
            await asyncio.sleep(error.retry_after_s)
