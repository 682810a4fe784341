"""Who holds what: marks in the store, of canvases, pictures and exports.

For each owner of a thing there are two: one to list what an owner holds, with the time and how much
it is, and one to know whether a thing is still held. They are written in an order in which a death
between two steps loses nothing: the owner's mark first of all and last to go, so that whoever began
something can end it.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from handscroll.errors import InvalidRequest, NotFound, StillNeeded
from svckit.jobs import READS, at_once
from svckit.keys import (
    Key,
    Prefix,
    canvas_of,
    export_of,
    holder_key,
    holder_prefix,
    owner_key,
    owner_prefix,
    picture_of,
    saved_key,
    saved_prefix,
    saver_key,
    savers_prefix,
    upload_key,
    uploader_key,
    uploaders_prefix,
    uploads_prefix,
)
from svckit.store import Store

PAGE, LONGEST_PAGE = 100, 1000
ANYBODY = "whoever made it without a name"
"""Holder of what was made anonymously, so that no stranger deletes it."""


class Kind(NamedTuple):
    """What is held, and where its marks are.

    Attributes:
        name: of the kind.
        mark: of an owner and a thing, among those of the owner.
        marks: all of an owner.
        holder: of a thing and an owner, among those of the thing.
        holders: all of a thing.
        named: the thing that an owner's mark names.
    """

    name: str
    mark: Callable[[str, str], Key]
    marks: Callable[[str], Prefix]
    holder: Callable[[str, str], Key]
    holders: Callable[[str], Prefix]
    named: Callable[[Key], str]


CANVASES = Kind("canvas", owner_key, owner_prefix, holder_key, holder_prefix, canvas_of)
PICTURES = Kind("picture", upload_key, uploads_prefix, uploader_key, uploaders_prefix, picture_of)
EXPORTS = Kind("export", saved_key, saved_prefix, saver_key, savers_prefix, export_of)


class Mark(NamedTuple):
    """That an owner holds a thing.

    Attributes:
        time: since when, in ISO 8601, in UTC.
        id: of the thing.
        facts: about it.
    """

    time: str
    id: str
    facts: tuple[int, ...]

    @property
    def made_at(self) -> datetime:
        """The time."""
        return datetime.fromisoformat(self.time)


class Marks:
    """All marks of a kind.

    Args:
        store: the store.
        kind: of what is held.
    """

    def __init__(self, store: Store, kind: Kind) -> None:
        self._store, self._kind = store, kind

    async def hold(self, id: str, owner: str | None, *facts: int) -> None:
        """Have an owner hold a thing; None for nobody. Who holds it already, since then."""
        if owner is None:
            await self._store.create(self._kind.holder(id, ANYBODY), b"")
            return
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        text = " ".join([now, *(f"{fact:d}" for fact in facts)]).encode()
        key = self._kind.mark(owner, id)
        stored = await self._store.create(key, text)
        if _read(id, stored, len(facts)) is None:  # a power cut has cut it short
            await self._store.delete(key)
            await self._store.create(key, text)
        await self._store.create(self._kind.holder(id, owner), b"")
        if not await self.has(id, owner):  # the same owner lets go of it elsewhere
            await self._store.create(key, text)

    async def has(self, id: str, owner: str) -> bool:
        """Whether an owner holds a thing."""
        return await self._store.size(self._kind.mark(owner, id)) is not None

    async def held(self, id: str) -> bool:
        """Whether anybody holds a thing."""
        return await self._store.any(self._kind.holders(id))

    async def held_by(self, id: str, owner: str | None) -> bool:
        """Whether this owner still holds a thing.

        Who takes hold looks once the thing is written: the same owner may be letting go of it in
        another window. If it does later, all of the thing goes, and if it did before our mark, it
        has found that or was done with the thing.
        """
        return await self._store.size(self._kind.holder(id, owner or ANYBODY)) is not None

    async def ids(self, owner: str) -> list[str]:
        """The things that an owner holds, in no order."""
        return [self._kind.named(key) async for key in self._store.keys(self._kind.marks(owner))]

    async def of(self, owner: str, facts: int) -> list[Mark]:
        """All that an owner holds, newest first, with so many facts about each."""
        keys = [key async for key in self._store.keys(self._kind.marks(owner))]
        texts = await at_once(READS, self._store.get, keys)
        marks = (
            _read(self._kind.named(key), text, facts)
            for key, text in zip(keys, texts, strict=True)
            if text is not None  # deleted since it was listed
        )
        return sorted((mark for mark in marks if mark is not None), reverse=True)

    async def page(
        self, owner: str, facts: int, page_size: int, page_token: str
    ) -> tuple[list[Mark], int]:
        """What a page and those after it show of an owner's, and how many it may show.

        Args:
            owner: whose.
            facts: about each.
            page_size: how many at most; 0 for PAGE.
            page_token: where the last page ended; empty for the first.

        Raises:
            InvalidRequest: page_size is above LONGEST_PAGE, or the token is none of ours.
        """
        if page_size > LONGEST_PAGE:
            raise InvalidRequest(f"page_size must be 0 to {LONGEST_PAGE}, not {page_size}")
        last = self._read_token(page_token) if page_token else None
        marks = await self.of(owner, facts)
        return [mark for mark in marks if last is None or mark[:2] < last], page_size or PAGE

    async def let_go(
        self,
        id: str,
        owner: str,
        admin: bool,
        check: Callable[[str], Awaitable[None]],
        wipe: Callable[[str], Awaitable[None]],
    ) -> None:
        """Take a thing from an owner's, and delete it when it is nobody's any more.

        Args:
            id: of the thing.
            owner: whose.
            admin: whether what is nobody's, since it was made without a name, may go too.
            check: raises StillNeeded if something stands on the thing.
            wipe: deletes the thing; may find that it is needed by now, and raise the same.

        Raises:
            InvalidRequest: not an id.
            NotFound: not among the owner's own.
            StillNeeded: something stands on it; the owner still holds it.
        """
        kind, store = self._kind, self._store
        mark, own = kind.mark(owner, id), kind.holder(id, owner)
        told = await store.get(mark)
        if told is None:
            own = kind.holder(id, ANYBODY)
            alone = not await store.any(kind.holders(id), but=own)
            if not (admin and alone and await store.get(own) is not None):
                raise NotFound(f"{kind.name} {id} is not among your own")
        if not await store.any(kind.holders(id), but=own):
            await check(id)
        await store.delete(own)
        # Looked up after our own mark is gone: of two who leave together, the later sees no other.
        if not await self.held(id):
            try:
                await wipe(id)
            except StillNeeded:
                await store.create(own, b"")
                raise
        await store.delete(mark)
        if told is not None and await store.size(own) is not None:
            await store.create(mark, told)  # the same owner has taken hold of it elsewhere

    def _read_token(self, token: str) -> tuple[str, str]:
        try:
            time, id = base64.b64decode(token, b"-_", validate=True).decode().split(" ")
            datetime.fromisoformat(time)
            return time, self._kind.named(Key(id))
        except (ValueError, InvalidRequest) as error:
            message = f"page_token must be one that a page gave, not {token!r:.80}"
            raise InvalidRequest(message) from error


def token_after(marks: Sequence[Mark], shown: int) -> str:
    """What asks for the page after one that showed the first so many; empty after the last."""
    if len(marks) <= shown:
        return ""
    last = marks[shown - 1]
    return base64.urlsafe_b64encode(f"{last.time} {last.id}".encode()).decode()


def _read(id: str, text: bytes, facts: int) -> Mark | None:
    """A mark; None if a power cut has cut it short."""
    try:
        time, *told = text.decode().split(" ")
        mark = Mark(time, id, tuple(map(int, told)))
        return mark if len(told) == facts and mark.made_at.tzinfo is not None else None
    except ValueError:
        return None
