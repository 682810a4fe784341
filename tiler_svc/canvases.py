"""Canvases: made, found, listed and deleted.

Of a canvas the store holds its spec, the vectors of its prompts, the marks of its owners (see
`tiler_svc.marks`) and one that it stands on a picture. They are written in an order in which a
death between two steps loses nothing: what a canvas needs comes before its spec.

A canvas goes with the last who holds it, or with the last of its branches where others have made
such: so nobody's branch loses what it shows, and nobody keeps another from deleting their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import NamedTuple

from cachetools import TTLCache

from handscroll.branch import Lineage
from handscroll.canvas import Canvas, check_learned
from handscroll.errors import InvalidRequest, NotFound, OverQuota, SpecMismatch, StillNeeded
from handscroll.geometry import Extent
from handscroll.words import prompts_of
from svckit.jobs import READS, at_once
from svckit.keys import (
    Key,
    branch_key,
    branch_prefix,
    canvas_key,
    canvas_of,
    export_of,
    exported_prefix,
    holder_prefix,
    patches_prefix,
    text_key,
    tiles_prefix,
)
from svckit.specs import Specs
from svckit.store import Store
from svckit.wire import Model
from tiler_svc import exports, marks
from tiler_svc.marks import LONGEST_PAGE, Mark, Marks, token_after
from tiler_svc.peers import Models, Tokenizer
from tiler_svc.pictures import Pictures, needed

PATIENCE_S = 0.5
"""How long the generator may take to say which models it serves, where the store knows too."""
PAGE_BYTES = 2**21
"""Of the specs on a page, so that it fits into a message."""
SIZES, SIZES_S = 4096, 600.0
"""How many canvases' sizes are remembered, and for how long: to know one is to list its patches."""
FIRST_CANVASES = "the canvases to open first"
"""Owner of those; the spaces keep every caller from being the same one."""


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
        self._marks = Marks(store, marks.CANVASES)
        self._held: set[str] = set()
        self._sizes: TTLCache[str, asyncio.Task[int]] = TTLCache(SIZES, SIZES_S)

    async def close(self) -> None:
        """Stop counting."""
        counting = list(self._sizes.values())
        for task in counting:
            task.cancel()
        await asyncio.gather(*counting, return_exceptions=True)

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

    async def create(
        self,
        canvas: Canvas,
        model: Model,
        owner: str | None,
        most: int = 0,
        most_bytes: int = 0,
    ) -> tuple[Canvas, bool]:
        """Make a canvas, or find it.

        Args:
            canvas: its spec. A prompt of nothing but spaces is taken as no prompt.
            model: the model it names.
            owner: whose it becomes; None for nobody's.
            most: how many the owner may hold; 0 for no limit.
            most_bytes: of patches that these may have when another is made; 0 for no limit.

        Returns:
            The canvas, and whether there was none.

        Raises:
            SpecMismatch: its world cannot be painted like this, or its parent is another's.
            NotFound: there is no such picture to paint around, or no such parent of a branch.
            InvalidRequest: the chain of branches would be too long.
            OverQuota: the owner holds as many, or as much of them, as they may.
        """
        canvas = replace(
            canvas,
            prompt=_said(canvas.prompt),
            sampling=replace(
                canvas.sampling, negative_prompt=_said(canvas.sampling.negative_prompt)
            ),
            regions=tuple(replace(one, prompt=_said(one.prompt)) for one in canvas.regions),
            motion=_said(canvas.motion),
        )
        check_learned(canvas.world, model.worlds[canvas.world], canvas.extent)
        Lineage.of(await self._specs.line(canvas), model.side_tok)  # refuses what is none
        if owner is not None and not await self._marks.has(canvas.id, owner):
            await self._check_room(owner, most, most_bytes)
        async with needed(self._store, canvas) as use:
            return await self._commit(canvas, model, owner, use)

    async def _check_room(self, owner: str, most: int, most_bytes: int) -> None:
        if most and (held := await self.count(owner)) >= most:
            raise OverQuota(f"you hold {held} canvases, and may hold {most}: delete some first")
        if most_bytes and (held := await self.held_bytes(owner)) >= most_bytes:
            raise OverQuota(
                f"your canvases hold {held} bytes of patches, and may hold {most_bytes}: "
                "delete some first"
            )

    async def _commit(
        self, canvas: Canvas, model: Model, owner: str | None, use: Key | None
    ) -> tuple[Canvas, bool]:
        """Write all of a canvas, with the mark that it stands on a picture if it does."""
        texts = [await self._text(model, prompt) for prompt in prompts_of(canvas)]
        for key, vector in texts:
            await self._store.create(key, vector)
        if canvas.known is not None:
            await self._pictures.encode(canvas, model)
        await self._marks.hold(canvas.id, owner)
        if use is not None:
            await self._store.create(use, b"")
        key = canvas_key(canvas.id)
        stored = await self._store.get(key)
        if stored not in (None, canvas.canonical()):
            await self._store.delete(key)  # what a power cut left: only this spec has this id
        if canvas.branch is not None:
            await self._store.create(branch_key(canvas.branch.parent, canvas.id), b"")
        if stored != canvas.canonical():
            await self._store.create(key, canvas.canonical())
        if canvas.branch is not None:
            await self._keep_with_parent(canvas.branch.parent, key)
        if not await self._marks.held_by(canvas.id, owner):  # the same owner has let go of it
            return await self._commit(canvas, model, owner, use)
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
        marks, size = await self._marks.page(owner, 0, page_size, page_token)
        page, count, length = list[OwnCanvas](), 0, 0
        for found in await at_once(READS, self._own, marks[:size]):
            length += len(found.canvas.canonical()) if found else 0
            if count and length > PAGE_BYTES:
                break
            count += 1
            page += [found] if found else []
        return page, token_after(marks, count)

    async def count(self, owner: str) -> int:
        """How many canvases an owner holds."""
        return len(await self._marks.ids(owner))

    async def held_bytes(self, owner: str) -> int:
        """How many bytes of patches an owner's canvases have, as counted in the last SIZES_S."""
        return sum(await at_once(READS, self._size, await self._marks.ids(owner)))

    async def _size(self, canvas_id: str) -> int:
        """Counted on if whoever asks has no time left, so that the next one need not begin anew."""
        task = self._sizes.get(canvas_id)
        if task is None or (task.done() and task.exception()):
            task = self._sizes[canvas_id] = asyncio.create_task(self._count(canvas_id))
        return await asyncio.shield(task)

    async def _count(self, canvas_id: str) -> int:
        size = 0
        async for batch in self._store.batches(patches_prefix(canvas_id)):
            size += sum(entry.size_bytes for entry in batch)
        return size

    async def delete(self, canvas_id: str, owner: str, admin: bool = False) -> None:
        """Take a canvas from an owner's; delete it when it is nobody's any more, see `wipe`.

        Args:
            canvas_id: which.
            owner: whose.
            admin: whether a canvas that is nobody's, since it was made without a name, may go too.

        Raises:
            InvalidRequest: not an id.
            NotFound: not among the owner's own.
            StillNeeded: others of the owner's branch off from it.
        """
        check = partial(self._check_free, owner)
        gone = partial(wipe, self._store, forget=self._forget)
        await self._marks.let_go(canvas_id, owner, admin, check, gone)
        self._forget(canvas_id)  # what was asked for meanwhile

    def _forget(self, canvas_id: str) -> None:
        self._specs.forget(canvas_id)
        self._sizes.pop(canvas_id, None)

    async def _check_free(self, owner: str, canvas_id: str) -> None:
        async for child in branches(self._store, canvas_id):
            if await self._marks.has(child, owner):
                raise StillNeeded(
                    f"your canvas {child} branches off from {canvas_id}: delete that first"
                )

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

    async def _own(self, mark: Mark) -> OwnCanvas | None:
        try:
            canvas = await self._specs.get(mark.id)
        except (NotFound, SpecMismatch):
            return None  # its making or its deletion was cut short
        return OwnCanvas(canvas, mark.made_at)


async def branches(store: Store, canvas_id: str) -> AsyncIterator[str]:
    """The branches of a canvas; marks of such as were deleted do not count."""
    async for key in store.keys(branch_prefix(canvas_id)):
        if await store.size(canvas_key(canvas_of(key))) is not None:
            yield canvas_of(key)


async def wanted(store: Store, canvas_id: str) -> bool:
    """Whether somebody holds a canvas, or another branches off from it."""
    if await store.any(holder_prefix(canvas_id)):
        return True
    async for _ in branches(store, canvas_id):
        return True
    return False


async def wipe(store: Store, canvas_id: str, forget: Callable[[str], None]) -> None:
    """Delete a canvas that nobody wants, and what it branched off from if nobody else wants that.

    The spec goes before what it shows, so that nothing half deleted is served.

    Args:
        store: the store.
        canvas_id: which.
        forget: is told of each that goes.
    """
    if await wanted(store, canvas_id):
        return
    spec = await store.get(canvas_key(canvas_id))
    canvas = _parsed(spec)
    async with needed(store, canvas) as use:
        if use is not None:
            await store.delete(use)
        await store.delete(canvas_key(canvas_id))
        forget(canvas_id)
        if spec is not None and await wanted(store, canvas_id):
            # Somebody made it again or branched it, and may have found the spec still there.
            if use is not None:
                await store.create(use, b"")
            await store.create(canvas_key(canvas_id), spec)
            return
    async for key in store.keys(exported_prefix(canvas_id)):
        await exports.wipe(store, export_of(key))
        await store.delete(key)
    await store.delete_all(tiles_prefix(canvas_id))
    await store.delete_all(patches_prefix(canvas_id))
    if canvas is not None and canvas.branch is not None:
        await store.delete(branch_key(canvas.branch.parent, canvas_id))
        await wipe(store, canvas.branch.parent, forget)


def _said(prompt: str) -> str:
    return prompt if prompt.strip() else ""


def _parsed(spec: bytes | None) -> Canvas | None:
    """A spec as it is stored, if it is there and whole."""
    try:
        return None if spec is None else Canvas.parse(spec)
    except InvalidRequest:
        return None
