"""Pictures that canvases are painted around: taken in, encoded, laid over what is painted, deleted.

A picture has owners (see `tiler_svc.marks`), and cannot be deleted while a canvas stands on it. So
each canvas leaves a mark at its picture, which counts as long as the canvas is there; and whoever
makes or deletes such a canvas leaves another meanwhile, before they look whether the picture is
there. Who deletes the picture looks for these marks once more when its file is gone, and puts it
back if there are any.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import NamedTuple

from cachetools import LRUCache

from handscroll.assemble import Pixels
from handscroll.branch import BranchPlace
from handscroll.canvas import Canvas, Known
from handscroll.context import Codes
from handscroll.detail import Detail
from handscroll.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    OverQuota,
    StillNeeded,
    StoreUnavailable,
)
from handscroll.field import statistics
from handscroll.geometry import PATCH_PX, Extent
from handscroll.known import KnownPixels, KnownTokens, Slices, Window, digest_of, joined, windows
from handscroll.picture import from_png, read_picture, size_of, to_png
from handscroll.view import View
from svckit.jobs import READS, Jobs, at_once
from svckit.keys import (
    Key,
    canvas_key,
    canvas_of,
    known_key,
    making_key,
    making_prefix,
    new_nonce,
    picture_key,
    tokens_prefix,
    uploaders_prefix,
    use_key,
    uses_prefix,
)
from svckit.known import content_bytes, load_pixels, load_tokens, tokens_content
from svckit.refusal import Refusal
from svckit.store import Store
from svckit.wire import Model
from tiler_svc import marks
from tiler_svc.marks import Marks, token_after
from tiler_svc.peers import Tokenizer, again

UPLOADS = 2
"""Pictures taken in at a time: each takes up to 250 MB for a moment."""
KEPT_BYTES = 2**28
"""Of pictures in memory: one takes up to 64 MiB, and as much again for what is decoded of it."""
LAID = 4
"""Tiles at a time to which detail is given."""
AT_ONCE = 2
"""Windows of one picture that are encoded or decoded at a time."""
LONGEST_S = 600.0
"""How long the windows of a picture may take in all."""
RETRY_S = 2.0
MAKING_S = 3600.0
"""After how long the making of a canvas counts as given up; clocks may differ by some of it."""
FACTS = 3
"""What the mark of a picture says: bytes of its file, height and width."""
_FULL = Refusal("uploads")


class OwnPicture(NamedTuple):
    """A picture of the caller's own.

    Attributes:
        name: what it is called.
        height: in pixels.
        width: in pixels.
        size_bytes: of its file, as it is kept.
        made_at: when the caller gave it.
    """

    name: str
    height: int
    width: int
    size_bytes: int
    made_at: datetime


class _Kept(NamedTuple):
    """A canvas' picture in memory.

    Attributes:
        picture: the picture.
        details: what the tokenizer has lost of it, by level, as far as that was asked for.
    """

    picture: KnownPixels
    details: dict[int, Detail]


class Pictures:
    """All pictures of a store.

    Args:
        store: the store.
        tokenizer: encodes them, and decodes what it has made of them.
    """

    def __init__(self, store: Store, tokenizer: Tokenizer) -> None:
        self._store, self._tokenizer = store, tokenizer
        self._kept: LRUCache[tuple[Known, Extent, str], _Kept] = LRUCache(
            KEPT_BYTES, getsizeof=lambda kept: 2 * sum(one.nbytes for one in kept.picture.levels)
        )
        self._uploads = asyncio.Semaphore(UPLOADS)
        # Each takes a hundred megabytes for a moment.
        self._reading, self._decoding = asyncio.Semaphore(1), asyncio.Semaphore(1)
        self._laying = ThreadPoolExecutor(LAID, "detail")  # up to 70 each; none can be stopped
        self._marks = Marks(store, marks.PICTURES)
        self._encoding = Jobs[Key, None]("encode", LONGEST_S)
        self._details: dict[tuple[str, str, int], Detail | None] = {}
        self._asking = Jobs[tuple[str, str, int], Detail | None]("pieces", LONGEST_S)
        self._finding = Jobs[tuple[Known | None, Extent, str, int], Detail]("detail", LONGEST_S)

    async def close(self) -> None:
        """Stop all work."""
        await self._encoding.close()
        await self._finding.close()
        await self._asking.close()
        self._laying.shutdown(wait=False, cancel_futures=True)

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

    async def take(
        self, content: bytes | bytearray, owner: str | None, most_bytes: int = 0
    ) -> tuple[str, int, int]:
        """Keep a picture's pixels.

        Args:
            content: of its file.
            owner: whose it becomes; None for nobody's.
            most_bytes: of pictures that the owner may hold; 0 for no limit.

        Returns:
            Its name, height and width.

        Raises:
            InvalidRequest: not a picture, or none that we take.
            OverQuota: the owner would hold more than they may.
        """

        def read() -> tuple[Pixels, bytes]:
            pixels = read_picture(content)
            return pixels, to_png(pixels)

        pixels, file = await asyncio.to_thread(read)
        picture = await asyncio.to_thread(digest_of, pixels)
        height, width = pixels.shape[:2]
        if owner is not None and most_bytes and not await self._marks.has(picture, owner):
            held = await self.held_bytes(owner)
            if held + len(file) > most_bytes:
                raise OverQuota(
                    f"you hold {held} bytes of pictures, and may hold {most_bytes}; this one has "
                    f"{len(file)}: delete some first"
                )
        await self._marks.hold(picture, owner, len(file), height, width)
        key = picture_key(picture)
        kept = await self._store.create(key, file)
        if kept != file and not await asyncio.to_thread(_shows, kept, picture):
            await self._store.delete(key)  # a power cut has cut it short
            await self._store.create(key, file)
        if not await self._marks.held_by(picture, owner):  # the same owner has let go of it
            return await self.take(content, owner, most_bytes)
        return picture, height, width

    async def own(
        self, owner: str, page_size: int, page_token: str
    ) -> tuple[list[OwnPicture], str]:
        """A page of an owner's pictures, newest first, and the token of the next; empty at the end.

        Raises:
            InvalidRequest: see `Marks.page`.
        """
        held, size = await self._marks.page(owner, FACTS, page_size, page_token)
        page = []
        for mark in held[:size]:
            size_bytes, height, width = mark.facts
            page.append(OwnPicture(mark.id, height, width, size_bytes, mark.made_at))
        return page, token_after(held, len(page))

    async def held_bytes(self, owner: str) -> int:
        """How many bytes of pictures an owner holds."""
        return sum(mark.facts[0] for mark in await self._marks.of(owner, FACTS))

    async def delete(self, picture: str, owner: str, admin: bool = False) -> None:
        """Take a picture from an owner's; delete it when it is nobody's any more.

        Args:
            picture: which.
            owner: whose.
            admin: whether a picture that is nobody's, since it came without a name, may go too.

        Raises:
            InvalidRequest: not a picture's name.
            NotFound: not among the owner's own.
            StillNeeded: canvases stand on it.
        """
        check = partial(check_free, self._store)
        await self._marks.let_go(picture, owner, admin, check, partial(wipe, self._store))

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

    async def shown(
        self, line: Sequence[Canvas], model: Model, view: View, pixels: Sequence[Pixels]
    ) -> Pixels:
        """What is to be seen (h, w, 3), with detail, and the pictures that lie there.

        Args:
            line: the canvas, what it was branched from, and so on.
            model: that paints them.
            view: how a tile is decoded.
            pixels: what each of its tokens was decoded to.

        Raises:
            Unavailable: a picture is not in the store any more, or was cut short.
        """
        loop, level, (*_, oldest) = asyncio.get_running_loop(), view.tile.level, line
        detail: Detail | None = None
        if oldest.known is None:
            detail = await self._detail_of_world(model, oldest.world, level)
        plain: Pixels | None = None  # with the detail of the last picture, or of the world
        found = pixels[0]
        for canvas in reversed(line):
            kept = None
            if canvas.known is not None:
                kept = await self._read(canvas, model)
                detail, plain = await self._detail(kept, canvas, model, level), None
            own = plain
            if own is None:
                own = await loop.run_in_executor(self._laying, _laid, view, pixels, detail, kept)
                plain = None if kept else own
            if canvas.branch is not None and found is not own:
                place = BranchPlace(canvas.extent, canvas.branch, model.side_tok)
                own = place.laid(view.region, found, own)
            found = own
        return found

    async def _detail_of_world(self, model: Model, world: str, level: int) -> Detail | None:
        """What the tokenizer loses of a world's pictures, asked for once however many wait."""
        key = (model.digest, world, level)
        if key not in self._details:

            async def ask() -> Detail | None:
                held = partial(self._tokenizer.pieces, model, world, level)
                pieces = await again("the tokenizer", held)
                return await asyncio.to_thread(Detail, pieces) if pieces else None

            self._details[key] = await self._asking.join(key, lambda _: ask(), urgent=True)
        return self._details[key]

    async def _read(self, canvas: Canvas, model: Model) -> _Kept:
        """A canvas' picture, read once however many wait for it."""
        assert canvas.known is not None
        key = (canvas.known, canvas.extent, model.digest)
        if key not in self._kept:
            async with self._reading:
                if key not in self._kept:
                    self._kept[key] = _Kept(await load_pixels(self._store, canvas, model), {})
        return self._kept[key]

    async def _detail(self, kept: _Kept, canvas: Canvas, model: Model, level: int) -> Detail:
        """What the tokenizer has lost of a picture at a level, found once however many wait."""
        if level not in kept.details:
            key = (canvas.known, canvas.extent, model.digest, level)

            async def find() -> Detail:
                tokens, _ = await load_tokens(self._store, canvas, model)
                codes, f = tokens.codes[level], PATCH_PX // model.side_tok
                shape = (codes.shape[0], codes.shape[1])
                decode = partial(self._decoded, model, codes)
                async with self._decoding:
                    parts = await at_once(AT_ONCE, decode, windows(*shape))
                    return await asyncio.to_thread(
                        lambda: kept.picture.detail(level, joined(shape, parts, f))
                    )

            kept.details[level] = await self._finding.join(key, lambda _: find(), urgent=True)
        return kept.details[level]

    async def _encode(self, key: Key, canvas: Canvas, model: Model) -> None:
        stored = await self._store.get(key)
        if stored is not None:
            if len(stored) == content_bytes(canvas, model):
                return
            await self._store.delete(key)  # a power cut has cut it short
        picture, f = (await self._read(canvas, model)).picture, PATCH_PX // model.side_tok
        levels = []
        for level, pixels in enumerate(picture.levels):
            shape = picture.place.shape_tok(level)
            encode = partial(self._encoded, model, pixels)
            levels.append(joined(shape, await at_once(AT_ONCE, encode, windows(*shape))))
        tokens = KnownTokens(picture.place, levels)
        content = tokens_content(tokens, statistics(picture.levels[0], f))
        await self._store.create(key, content)

    async def _encoded(self, model: Model, picture: Pixels, window: Window) -> tuple[Slices, Codes]:
        pixels = window.pixels(picture, PATCH_PX // model.side_tok)
        encode = partial(self._tokenizer.encode, model, pixels)
        codes = await again("the tokenizer", encode, patient=True)
        return window.part, codes[window.inner]

    async def _decoded(self, model: Model, codes: Codes, window: Window) -> tuple[Slices, Pixels]:
        tokens = window.tokens(codes, PATCH_PX // model.side_tok)
        decode = partial(self._tokenizer.decode, model.digest, tokens)
        return window.part, await again("the tokenizer", decode, patient=True)

    async def _size(self, picture: str) -> tuple[int, int]:
        file = await self._store.get(picture_key(picture))
        if file is None:
            raise NotFound(f"there is no picture {picture}")
        return size_of(file)


@asynccontextmanager
async def needed(store: Store, canvas: Canvas | None) -> AsyncIterator[Key | None]:
    """Keep a canvas' picture, if it has one, while the canvas is made or deleted inside.

    Yields:
        The mark that the canvas stands on it; None where there is no picture.
    """
    if canvas is None or canvas.known is None:
        yield None
        return
    making = making_key(canvas.known.picture, new_nonce())
    await store.create(making, f"{time.time():.0f}".encode())
    try:
        yield use_key(canvas.known.picture, canvas.id)
    finally:
        with suppress(StoreUnavailable):  # it counts for MAKING_S then
            await store.delete(making)


async def check_free(store: Store, picture: str) -> None:
    """Go on only with a picture that no canvas stands on; marks that count no more are cleared.

    Raises:
        StillNeeded: one does, or is being made or deleted.
    """
    # These first: who takes back theirs has left the other by then.
    async for making in store.keys(making_prefix(picture)):
        began = await store.get(making)
        if began is not None and time.time() - float(began or 0) < MAKING_S:
            raise StillNeeded(f"a canvas around picture {picture} is being made or deleted")
        await store.delete(making)
    async for use in store.keys(uses_prefix(picture)):
        if await store.size(canvas_key(canvas_of(use))) is not None:
            raise StillNeeded(
                f"canvas {canvas_of(use)} stands on picture {picture}: delete that first"
            )


async def wipe(store: Store, picture: str) -> None:
    """Delete a picture that nobody holds, with its tokens.

    Raises:
        StillNeeded: a canvas stands on it, or is being made or deleted.
    """
    await check_free(store, picture)
    key = picture_key(picture)
    file = await store.get(key)
    await store.delete(key)
    wanted = True
    try:
        await check_free(store, picture)
        # Somebody who gave it again may have found the file still there.
        wanted = await store.any(uploaders_prefix(picture))
    finally:
        if wanted and file is not None:
            await store.create(key, file)
    if wanted:
        return
    prefixes = (tokens_prefix(picture), uses_prefix(picture))
    left = [key for prefix in prefixes async for key in store.keys(prefix)]
    contents = await at_once(READS, store.get, left)
    await store.delete_many(left)
    if await store.size(key) is not None:
        # It was given again meanwhile, and a canvas may have been made around it.
        for one, content in zip(left, contents, strict=True):
            if content is not None:
                await store.create(one, content)


def _laid(
    view: View, pixels: Sequence[Pixels], detail: Detail | None, kept: _Kept | None
) -> Pixels:
    """What came of a view, with detail, and with a picture where it lies."""
    painted = view.painted(pixels, detail)
    return kept.picture.lay_over(painted) if kept else painted.shown()


def _shows(file: bytes, picture: str) -> bool:
    """Whether a file holds the pixels of a picture."""
    try:
        return digest_of(from_png(file)) == picture
    except (OSError, SyntaxError, ValueError):
        return False
