"""Files of regions, written piece by piece as their tiles are painted, when no viewport waits."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, TypeVar

import numpy as np

from handscroll.archive import head_of, levels_of, tiles_in
from handscroll.assemble import Pixels
from handscroll.canvas import Canvas
from handscroll.errors import InvalidRequest, OutOfTime, Overloaded, Unavailable
from handscroll.film import FilmFormat, film, is_film
from handscroll.formats import LOSSY, PictureFormat, encoder_of
from handscroll.geometry import Region, Tile
from svckit.deadline import within
from tiler_svc.engine import Engine, cut

BATCH_TILES = 64
"""Tiles painted together: enough to keep painters busy."""
BATCH_S = 600.0
"""How long these may take."""

Format = Literal[PictureFormat, FilmFormat, "pmtiles"]
Write = Callable[[bytes], Awaitable[None]]
Painted = Callable[[int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Export:
    """What an export shows, and how.

    Attributes:
        canvas: id of the canvas.
        region: of one level and frame.
        format: kind of file.
        quality: of JPEG, WebP and the tiles of Deep Zoom, 1 to 100; 0 for the other formats.
        fps: of films, frames a second; 0 for the other formats.
        back_and_forth: whether a film's frames are played forth and back.

    Raises:
        InvalidRequest: what is said is not for the format.
    """

    canvas: str
    region: Region
    format: Format
    quality: int
    fps: int = 0
    back_and_forth: bool = False

    def __post_init__(self) -> None:
        if is_film(self.format):
            if self.region.frame:
                raise InvalidRequest(f"a film shows all frames, not frame {self.region.frame}")
        elif self.fps or self.back_and_forth:
            raise InvalidRequest(f"{self.format} is no film: it has no fps and is not played")
        if self.format in LOSSY and not 1 <= self.quality <= 100:
            raise InvalidRequest(f"quality must be 1 to 100, not {self.quality}")
        if self.format not in LOSSY and self.quality:
            raise InvalidRequest(f"{self.format} has no quality; {self.quality} was given")

    def canonical(self) -> bytes:
        """The one JSON text of this spec."""
        fields = {
            "canvas": self.canvas,
            "format": self.format,
            "quality": self.quality,
            **self.region._asdict(),
        }
        if is_film(self.format):
            fields |= {"fps": self.fps, "back_and_forth": self.back_and_forth}
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, content: bytes) -> Export:
        """The spec of a canonical text."""
        fields = json.loads(content)
        canvas, format, quality = (fields.pop(name) for name in ("canvas", "format", "quality"))
        fps, back_and_forth = fields.pop("fps", 0), fields.pop("back_and_forth", False)
        return cls(canvas, Region(**fields), format, quality, fps, back_and_forth)

    @property
    def id(self) -> str:
        """SHA-256 of the canonical text."""
        return hashlib.sha256(self.canonical()).hexdigest()


class Press:
    """Makes files.

    Args:
        engine: paints tiles.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def make(self, canvas: Canvas, export: Export, write: Write, painted: Painted) -> None:
        """Make one file.

        Args:
            canvas: what is shown.
            export: which part of it, and how; it lies in the canvas.
            write: takes the next piece of the file.
            painted: is told how many more tiles are painted.

        Raises:
            SpecMismatch: the canvas' model is not served.
            Unauthenticated, Forbidden, InvalidRequest: the caller may not have it painted, or not
                so many patches at a time. A budget that is spent is waited for.
            Unavailable: a service does not answer in time.
        """
        if export.format == "pmtiles":
            await self._archive(canvas, export.region, write, painted)
        elif is_film(export.format):
            frames = []
            for frame in range(canvas.frames):
                strips = self._strips(canvas, export.region._replace(frame=frame), painted)
                frames.append(np.concatenate([strip async for strip in strips]))
            fps, loop = export.fps, export.back_and_forth
            await write(await asyncio.to_thread(film, export.format, frames, fps, loop))
        else:
            region = export.region
            encoder = encoder_of(export.format, region.height, region.width, export.quality)
            async for strip in self._strips(canvas, region, painted):
                await write(await asyncio.to_thread(encoder.add, strip))
            await write(await asyncio.to_thread(encoder.end))

    async def _strips(
        self, canvas: Canvas, region: Region, painted: Painted
    ) -> AsyncIterator[Pixels]:
        """A region from top to bottom, as its tiles are painted: (rows, width, 3)."""
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
                yield strip

    async def _archive(
        self, canvas: Canvas, region: Region, write: Write, painted: Painted
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
