"""Pictures that canvases are painted around: taken in, encoded, and laid over what is painted."""

from __future__ import annotations

import asyncio
from functools import partial

from cachetools import LRUCache

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas, Known
from handscroll.context import Codes
from handscroll.errors import InvalidRequest, NotFound
from handscroll.geometry import PATCH_PX, Tile
from handscroll.known import (
    KnownPixels,
    KnownTokens,
    Slices,
    Window,
    digest_of,
    joined,
    known_pixels,
    windows,
)
from handscroll.picture import from_png, read_picture, size_of, to_png
from svckit.jobs import at_once
from svckit.keys import known_key, picture_key
from svckit.known import load_pixels, tokens_content
from svckit.store import Store
from svckit.wire import Model
from tiler_svc.peers import Tokenizer, again

KEPT = 4
"""Pictures in memory: one takes up to 64 MiB."""
ENCODES = 2
"""Windows of one picture that are encoded at a time."""


class Pictures:
    """All pictures of a store.

    Args:
        store: the store.
        tokenizer: encodes them.
    """

    def __init__(self, store: Store, tokenizer: Tokenizer) -> None:
        self._store, self._tokenizer = store, tokenizer
        self._kept: LRUCache[str, KnownPixels] = LRUCache(KEPT)
        self._reading = asyncio.Semaphore(1)  # each takes a hundred megabytes for a moment

    async def take(self, content: bytes) -> tuple[str, int, int]:
        """Keep a picture's pixels.

        Returns:
            Its name, height and width.

        Raises:
            InvalidRequest: not a picture, or none that we take.
        """

        def read() -> tuple[Pixels, bytes]:
            pixels = read_picture(content)
            return pixels, to_png(pixels)

        async with self._reading:
            pixels, file = await asyncio.to_thread(read)
            picture = await asyncio.to_thread(digest_of, pixels)
        await self._store.create(picture_key(picture), file)
        return picture, *pixels.shape[:2]

    async def placed(self, picture: str, top: int, left: int) -> Known:
        """A picture in its own size at a place of a canvas.

        Raises:
            NotFound: no such picture.
            InvalidRequest: not a picture's name.
        """
        height, width = size_of(await self._file(picture))
        return Known(picture, top, left, height, width)

    async def encode(self, canvas: Canvas, model: Model) -> None:
        """Commit the tokens of the picture that a canvas is painted around.

        Raises:
            NotFound: no such picture.
            InvalidRequest: it is of another size than the canvas says.
        """
        known = canvas.known
        assert known is not None
        key = known_key(model.digest, known.picture, canvas.extent.finest)
        file = await self._file(known.picture)
        if size_of(file) != (known.height, known.width):
            height, width = size_of(file)
            raise InvalidRequest(
                f"the picture is {height} x {width} px, not {known.height} x {known.width}"
            )
        if await self._store.get(key) is not None:
            return
        async with self._reading:
            pixels = await asyncio.to_thread(
                lambda: known_pixels(canvas, from_png(file), model.side_tok)
            )
            levels = []
            for level, picture in enumerate(pixels.levels):
                shape = pixels.place.shape_tok(level)
                found = await at_once(
                    ENCODES, partial(self._encoded, model, picture), windows(*shape)
                )
                levels.append(joined(shape, found))
        content = tokens_content(KnownTokens(pixels.place, levels))
        await self._store.create(key, content)

    async def lay_over(self, canvas: Canvas, model: Model, tile: Tile, pixels: Pixels) -> Pixels:
        """A tile (TILE_PX, TILE_PX, 3) with the canvas' picture, if it has one, laid over."""
        if canvas.known is None:
            return pixels
        canvas_id = canvas.id
        known = self._kept.get(canvas_id)
        if known is None:
            async with self._reading:
                known = await load_pixels(self._store, canvas, model)
            self._kept[canvas_id] = known
        return known.lay_over(tile, pixels)

    async def _encoded(self, model: Model, picture: Pixels, window: Window) -> tuple[Slices, Codes]:
        pixels = window.pixels(picture, PATCH_PX // model.side_tok)
        codes = await again("the tokenizer", lambda: self._tokenizer.encode(model, pixels))
        return window.part, codes[window.inner]

    async def _file(self, picture: str) -> bytes:
        file = await self._store.get(picture_key(picture))
        if file is None:
            raise NotFound(f"there is no picture {picture}")
        return file
