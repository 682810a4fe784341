"""Canvases: made, found, listed and deleted.

Of a canvas the store holds its spec, the vectors of its prompts, and two marks for each of its
owners: one to list the canvases of an owner, which holds the time, and one to know whether a canvas
is still held. They are written in an order in which a death between two steps loses nothing: what
a canvas needs before its spec, and the owner's mark first of all and last to go, so that whoever
began something can end it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from handscroll.branch import Lineage
from handscroll.canvas import Canvas, check_learned
from handscroll.errors import InvalidRequest, NotFound, SpecMismatch, StillNeeded
from handscroll.geometry import Extent
from handscroll.words import prompts_of
from svckit.jobs import READS, at_once
from svckit.keys import (
    Key,
    Prefix,
    branch_key,
    branch_prefix,
    canvas_key,
    canvas_of,
    check_canvas_id,
    export_of,
    exported_prefix,
    holder_key,
    holder_prefix,
    owner_key,
    owner_prefix,
    patches_prefix,
    text_key,
    tiles_prefix,
)
from svckit.specs import Specs
from svckit.store import Store
from svckit.wire import Model
from tiler_svc import exports
from tiler_svc.peers import Models, Tokenizer
from tiler_svc.pictures import Pictures

PATIENCE_S = 0.5
"""How long the generator may take to say which models it serves, where the store knows too."""
PAGE, LONGEST_PAGE = 100, 1000
PAGE_BYTES = 2**21
"""Of the specs on a page, so that it fits into a message."""
FIRST_CANVASES = "the canvases to open first"
"""Owner of those; the spaces keep every caller from being the same one."""
ANYBODY = "whoever made it without a name"
"""Holder of canvases that were made anonymously, so that no stranger deletes them."""


class World(NamedTuple):
    """A world, and the canvas to open first of it."""

    name: str
    extent: Extent
    canvas_id: str
    model: str


class OwnCanvas(NamedTuple):
    """A canvas of the caller's own, and when the caller made it."""

    canvas: Canvas
    made_at: datetime


class Canvases:
    """All canvases of a store.

    Args:
        store: the store.
        specs: what is read of it.
        models: the models that are served.
        tokenizer: embeds prompts.
        pictures: that canvases are painted around.
        first_seeds: seeds of the canvases to open first, by world.
    """

    def __init__(
        self,
        store: Store,
        specs: Specs,
        models: Models,
        tokenizer: Tokenizer,
        pictures: Pictures,
        first_seeds: Mapping[str, int],
    ) -> None:
        self._store, self._specs, self._models = store, specs, models
        self._tokenizer, self._pictures = tokenizer, pictures
        self._first_seeds = first_seeds
        self._held: set[str] = set()

    async def worlds(self) -> list[World]:
        """Each world that can be painted, by name, with the canvas to open first.

        Painters take a while to wake. Who comes meanwhile may look at what is painted already, and
        so is told of the first canvases that the store has.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                models = await self._models.all()
        except TimeoutError:
            kept = await self._kept_first()
            if kept:
                return kept
            models = await self._models.all()
        found: dict[str, World] = {}
        for model in models:
            for name, extent in model.worlds.items():
                if name not in found:
                    canvas = Canvas(
                        model.digest,
                        name,
                        self._first_seeds.get(name, 0),
                        extent,
                        sampling=model.sampling,
                    )
                    await self._keep_first(canvas, model)
                    found[name] = World(name, extent, canvas.id, model.digest)
        return [found[name] for name in sorted(found)]

    async def _kept_first(self) -> list[World]:
        """The worlds of the canvases to open first that are in the store, the newest of each."""
        found: dict[str, World] = {}
        for own in (await self.own(FIRST_CANVASES, LONGEST_PAGE, ""))[0]:
            canvas = own.canvas
            found.setdefault(
                canvas.world, World(canvas.world, canvas.extent, canvas.id, canvas.model)
            )
        return [found[name] for name in sorted(found)]

    async def create(self, canvas: Canvas, model: Model, owner: str | None) -> tuple[Canvas, bool]:
        """Make a canvas, or find it.

        Args:
            canvas: its spec. A prompt of nothing but spaces is taken as no prompt.
            model: the model it names.
            owner: whose it becomes; None for nobody's.

        Returns:
            The canvas, and whether there was none.

        Raises:
            SpecMismatch: its world cannot be painted like this, or its parent is another's.
            NotFound: there is no such picture to paint around, or no such parent of a branch.
            InvalidRequest: the chain of branches would be too long.
        """
        canvas = replace(
            canvas,
            prompt=_said(canvas.prompt),
            sampling=replace(
                canvas.sampling, negative_prompt=_said(canvas.sampling.negative_prompt)
            ),
            regions=tuple(replace(one, prompt=_said(one.prompt)) for one in canvas.regions),
        )
        check_learned(canvas.world, model.worlds[canvas.world], canvas.extent)
        Lineage.of(await self._specs.line(canvas), model.side_tok)  # refuses what is none
        texts = [await self._text(model, prompt) for prompt in prompts_of(canvas)]
        for key, vector in texts:
            await self._store.create(key, vector)
        if canvas.known is not None:
            await self._pictures.encode(canvas, model)
        canvas_id = canvas.id
        if owner is None:
            await self._store.create(holder_key(canvas_id, ANYBODY), b"")
        else:
            now = datetime.now(UTC).isoformat(timespec="microseconds").encode()
            await self._store.create(owner_key(owner, canvas_id), now)
            await self._store.create(holder_key(canvas_id, owner), now)
        key = canvas_key(canvas_id)
        stored = await self._store.get(key)
        if stored not in (None, canvas.canonical()):
            await self._store.delete(key)  # what a power cut left: only this spec has this id
        if canvas.branch is not None:
            await self._store.create(branch_key(canvas.branch.parent, canvas_id), b"")
        if stored != canvas.canonical():
            await self._store.create(key, canvas.canonical())
        if canvas.branch is not None:
            await self._keep_with_parent(canvas.branch.parent, key)
        return canvas, stored is None

    async def _keep_with_parent(self, parent: str, key: Key) -> None:
        """Take the spec of a branch back whose parent was deleted meanwhile.

        Looked up after the spec is there: whoever deletes the parent looks for it the other way
        round, so that one of both sees the other.
        """
        if await self._store.get(canvas_key(parent)) is None:
            await self._store.delete(key)
            self._specs.forget(parent)
            raise NotFound(f"there is no canvas {parent}")

    async def get(self, canvas_id: str) -> Canvas:
        """The canvas of an id.

        Raises:
            InvalidRequest: not an id.
            NotFound: no such canvas.
        """
        return await self._specs.get(canvas_id)

    async def own(self, owner: str, page_size: int, page_token: str) -> tuple[list[OwnCanvas], str]:
        """A page of an owner's canvases, newest first, and the token of the next; empty at the end.

        Args:
            owner: whose.
            page_size: how many at most; 0 for PAGE.
            page_token: where the last page ended; empty for the first.

        Raises:
            InvalidRequest: page_size is above LONGEST_PAGE, or the token is none of ours.
        """
        if page_size > LONGEST_PAGE:
            raise InvalidRequest(f"page_size must be 0 to {LONGEST_PAGE}, not {page_size}")
        size = page_size or PAGE
        last = _read_token(page_token) if page_token else None
        keys = [key async for key in self._store.keys(owner_prefix(owner))]
        times = await at_once(READS, self._store.get, keys)
        marks = sorted(
            (
                (time.decode(), canvas_of(key))
                for key, time in zip(keys, times, strict=True)
                if time is not None  # deleted since it was listed
            ),
            reverse=True,
        )
        rest = [mark for mark in marks if last is None or mark < last]
        page, count, length = list[OwnCanvas](), 0, 0
        for found in await at_once(READS, self._own, rest[:size]):
            length += len(found.canvas.canonical()) if found else 0
            if count and length > PAGE_BYTES:
                break
            count += 1
            page += [found] if found else []
        token = _token(*rest[count - 1]) if len(rest) > count else ""
        return page, token

    async def delete(self, canvas_id: str, owner: str, admin: bool = False) -> None:
        """Take a canvas from an owner's; delete it when it is nobody's any more.

        Args:
            canvas_id: which.
            owner: whose.
            admin: whether a canvas that is nobody's, since it was made without a name, may go too.

        Raises:
            InvalidRequest: not an id.
            NotFound: not among the owner's own.
            StillNeeded: others branch off from it.
        """
        mark = owner_key(owner, canvas_id)
        own = holder_key(canvas_id, owner)
        if await self._store.get(mark) is None:
            own = holder_key(canvas_id, ANYBODY)
            alone = not await self._any(holder_prefix(canvas_id), but=own)
            if not (admin and alone and await self._store.get(own) is not None):
                raise NotFound(f"canvas {canvas_id} is not among your own")
        if not await self._any(holder_prefix(canvas_id), but=own) and await self._branched(
            canvas_id
        ):
            raise StillNeeded(f"other canvases branch off from {canvas_id}: delete those first")
        await self._store.delete(own)
        # Looked up after our own mark is gone: of two who leave together, the later sees no other.
        if not await self._any(holder_prefix(canvas_id)):
            await self._wipe(canvas_id)
        await self._store.delete(mark)

    async def _wipe(self, canvas_id: str) -> None:
        """Delete a canvas, the spec first, so that nothing half deleted is served."""
        spec = await self._store.get(canvas_key(canvas_id))
        await self._store.delete(canvas_key(canvas_id))
        self._specs.forget(canvas_id)
        if spec is not None and await self._branched(canvas_id):
            await self._store.create(holder_key(canvas_id, ANYBODY), b"")  # it is nobody's else
        if spec is not None and await self._any(holder_prefix(canvas_id)):
            # Somebody made it again or branched it, and may have found the spec still there.
            await self._store.create(canvas_key(canvas_id), spec)
            return
        async for key in self._store.keys(exported_prefix(canvas_id)):
            await exports.wipe(self._store, export_of(key))
            await self._store.delete(key)
        await self._store.delete_all(tiles_prefix(canvas_id))
        await self._store.delete_all(patches_prefix(canvas_id))
        with suppress(InvalidRequest):  # a power cut may have cut the spec short
            branch = None if spec is None else Canvas.parse(spec).branch
            if branch is not None:
                await self._store.delete(branch_key(branch.parent, canvas_id))

    async def _branched(self, canvas_id: str) -> bool:
        """Whether there are branches of a canvas; marks of such as were deleted do not count."""
        async for key in self._store.keys(branch_prefix(canvas_id)):
            if await self._store.get(canvas_key(canvas_of(key))) is not None:
                return True
        return False

    async def _any(self, prefix: Prefix, but: Key | None = None) -> bool:
        async for key in self._store.keys(prefix):
            if key != but:
                return True
        return False

    async def _keep_first(self, canvas: Canvas, model: Model) -> None:
        """Have a canvas be there that no caller can delete."""
        try:
            await self._specs.get(canvas.id)
        except (NotFound, SpecMismatch):
            self._held.discard(canvas.id)
        if canvas.id not in self._held:
            await self.create(canvas, model, FIRST_CANVASES)
            self._held.add(canvas.id)

    async def _text(self, model: Model, prompt: str) -> tuple[Key, bytes]:
        """Where the vector of a prompt is to be, and what it is."""
        key = text_key(model.text_encoder, prompt)
        return key, await self._store.get(key) or await self._tokenizer.embed(model, prompt)

    async def _own(self, mark: tuple[str, str]) -> OwnCanvas | None:
        made_at, canvas_id = mark
        try:
            canvas = await self._specs.get(canvas_id)
        except (NotFound, SpecMismatch):
            return None  # its making or its deletion was cut short
        return OwnCanvas(canvas, datetime.fromisoformat(made_at))


def _said(prompt: str) -> str:
    return prompt if prompt.strip() else ""


def _token(made_at: str, canvas_id: str) -> str:
    return base64.urlsafe_b64encode(f"{made_at} {canvas_id}".encode()).decode()


def _read_token(token: str) -> tuple[str, str]:
    try:
        made_at, canvas_id = base64.b64decode(token, b"-_", validate=True).decode().split(" ")
        datetime.fromisoformat(made_at)
        return made_at, check_canvas_id(canvas_id)
    except (ValueError, InvalidRequest) as error:
        message = f"page_token must be one that a page gave, not {token!r:.80}"
        raise InvalidRequest(message) from error
