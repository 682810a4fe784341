"""Pictures that canvases are painted around: taken in, encoded, and laid over what is painted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from cachetools import LRUCache

from handscroll.assemble import Pixels
from handscroll.branch import BranchPlace
from handscroll.canvas import Canvas, Known
from handscroll.context import Codes
from handscroll.errors import InvalidRequest, NotFound, Overloaded
from handscroll.field import statistics
from handscroll.geometry import PATCH_PX, Extent, Tile
from handscroll.known import KnownPixels, KnownTokens, Slices, Window, digest_of, joined, windows
from handscroll.picture import from_png, read_picture, size_of, to_png
from svckit.jobs import Jobs, at_once
from svckit.keys import Key, known_key, picture_key
from svckit.known import content_bytes, load_pixels, place_of, tokens_content
from svckit.refusal import Refusal
from svckit.store import Store
from svckit.wire import Model
from tiler_svc.peers import Tokenizer, again

UPLOADS = 2
"""Pictures taken in at a time: each takes up to 250 MB for a moment."""
KEPT = 4
"""Pictures in memory: one takes up to 64 MiB."""
ENCODES = 2
"""Windows of one picture that are encoded at a time."""
LONGEST_ENCODE_S = 600.0
RETRY_S = 2.0
_FULL = Refusal("uploads")


class Pictures:
    """All pictures of a store.

    Args:
        store: the store.
        tokenizer: encodes them.
    """

    def __init__(self, store: Store, tokenizer: Tokenizer) -> None:
        self._store, self._tokenizer = store, tokenizer
        self._kept: LRUCache[tuple[Known, Extent], KnownPixels] = LRUCache(KEPT)
        self._uploads = asyncio.Semaphore(UPLOADS)
        self._reading = asyncio.Semaphore(1)  # each takes a hundred megabytes for a moment
        self._encoding = Jobs[Key, None]("encode", LONGEST_ENCODE_S)

    async def close(self) -> None:
        """Stop all work."""
        await self._encoding.close()

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """Where a picture may be taken in.

        Raises:
            Overloaded: there are enough of them already.
        """
        if self._uploads.locked():
            said = f"{UPLOADS} pictures are being taken in here already"
            raise _FULL(Overloaded(said, RETRY_S))
        async with self._uploads:
            yield

    async def take(self, content: bytes | bytearray) -> tuple[str, int, int]:
        """Keep a picture's pixels.

        Returns:
            Its name, height and width.

        Raises:
            InvalidRequest: not a picture, or none that we take.
        """

        def read() -> tuple[Pixels, bytes]:
            pixels = read_picture(content)
            return pixels, to_png(pixels)

        pixels, file = await asyncio.to_thread(read)
        picture = await asyncio.to_thread(digest_of, pixels)
        key = picture_key(picture)
        kept = await self._store.create(key, file)
        if kept != file and not await asyncio.to_thread(_shows, kept, picture):
            await self._store.delete(key)  # a power cut has cut it short
            await self._store.create(key, file)
        return picture, *pixels.shape[:2]

    async def placed(self, picture: str, top: int, left: int) -> Known:
        """A picture in its own size at a place of a canvas.

        Raises:
            NotFound: no such picture.
            InvalidRequest: not a picture's name.
        """
        height, width = await self._size(picture)
        return Known(picture, top, left, height, width)

    async def encode(self, canvas: Canvas, model: Model) -> None:
        """Commit the tokens of the picture that a canvas is painted around.

        Raises:
            NotFound: no such picture.
            InvalidRequest: it is of another size than the canvas says.
            Unavailable: it was cut short in the store.
        """
        known = canvas.known
        assert known is not None
        height, width = await self._size(known.picture)
        if (height, width) != (known.height, known.width):
            raise InvalidRequest(
                f"the picture is {height} x {width} px, not {known.height} x {known.width}"
            )
        key = known_key(model.digest, known.picture, canvas.extent.finest)
        await self._encoding.join(key, lambda _: self._encode(key, canvas, model), urgent=True)

    async def lay_over(
        self, line: Sequence[Canvas], model: Model, tile: Tile, pixels: Pixels
    ) -> Pixels:
        """A tile (TILE_PX, TILE_PX, 3) with the pictures laid over that lie there.

        Args:
            line: the canvas, what it was branched from, and so on.
            model: that paints them.
            tile: the tile.
            pixels: as it was decoded.

        Raises:
            Unavailable: a picture is not in the store any more, or was cut short.
        """
        laid = pixels
        for canvas in reversed(line):
            if canvas.branch is not None and laid is not pixels:
                place = BranchPlace(canvas.extent, canvas.branch, model.side_tok)
                laid = place.laid(tile, laid, pixels)
            if canvas.known is not None and place_of(canvas, model).under(tile) is not None:
                laid = (await self._pixels(canvas, model)).lay_over(tile, laid)
        return laid

    async def _pixels(self, canvas: Canvas, model: Model) -> KnownPixels:
        """A canvas' picture, read once however many wait for it."""
        assert canvas.known is not None
        key = (canvas.known, canvas.extent)
        if key not in self._kept:
            async with self._reading:
                if key not in self._kept:
                    self._kept[key] = await load_pixels(self._store, canvas, model)
        return self._kept[key]

    async def _encode(self, key: Key, canvas: Canvas, model: Model) -> None:
        stored = await self._store.get(key)
        if stored is not None:
            if len(stored) == content_bytes(canvas, model):
                return
            await self._store.delete(key)  # a power cut has cut it short
        picture, f = await self._pixels(canvas, model), PATCH_PX // model.side_tok
        levels = []
        for level, pixels in enumerate(picture.levels):
            shape = picture.place.shape_tok(level)
            encode = partial(self._encoded, model, pixels)
            levels.append(joined(shape, await at_once(ENCODES, encode, windows(*shape))))
        tokens = KnownTokens(picture.place, levels)
        content = tokens_content(tokens, statistics(picture.levels[0], f))
        await self._store.create(key, content)

    async def _encoded(self, model: Model, picture: Pixels, window: Window) -> tuple[Slices, Codes]:
        pixels = window.pixels(picture, PATCH_PX // model.side_tok)
        codes = await again("the tokenizer", lambda: self._tokenizer.encode(model, pixels))
        return window.part, codes[window.inner]

    async def _size(self, picture: str) -> tuple[int, int]:
        file = await self._store.get(picture_key(picture))
        if file is None:
            raise NotFound(f"there is no picture {picture}")
        return size_of(file)


def _shows(file: bytes, picture: str) -> bool:
    """Whether a file holds the pixels of a picture."""
    try:
        return digest_of(from_png(file)) == picture
    except (OSError, SyntaxError, ValueError):
        return False
