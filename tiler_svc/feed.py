"""Patches of one canvas as they come: from the store, and what is missing from the generator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import aclosing
from typing import Self

from handscroll.branch import Lineage
from handscroll.geometry import Patch
from svckit.jobs import READS, at_once
from svckit.keys import patch_key
from svckit.store import Store
from tiler_svc.peers import Generator, again


class Feed:
    """Fetches patches until it is closed; what then still is being drawn for it is given up.

    Args:
        store: where committed patches are.
        generator: draws the others.
        line: the canvas, and those it was branched from.
        patches: what is wanted, the most wanted first.
        patch_bytes: size of each. A stored one of another size was cut short by a power cut: the
            generator mends it.
        urgent: whether somebody looks at them now.
    """

    def __init__(
        self,
        store: Store,
        generator: Generator,
        line: Lineage,
        patches: Iterable[Patch],
        patch_bytes: int,
        urgent: bool,
    ) -> None:
        self._patch_bytes = patch_bytes
        self._store, self._generator, self._line = store, generator, line
        loop = asyncio.get_running_loop()
        self._codes: dict[Patch, asyncio.Future[bytes]] = {
            patch: loop.create_future() for patch in patches
        }
        self._looked = asyncio.Event()
        self._urgent = urgent
        self._tasks = [asyncio.create_task(self._run(self._look_and_draw()))]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self._codes.values():
            waiting.cancel()

    async def codes(self, patches: Iterable[Patch]) -> dict[Patch, bytes]:
        """Codes of some of the patches, as soon as these are there."""
        # Shielded, because others may wait for the same.
        return {patch: await asyncio.shield(self._codes[patch]) for patch in patches}

    def urge(self) -> None:
        """Say that somebody looks at them now, though nobody did at first."""
        if not self._urgent:
            self._urgent = True
            if self._looked.is_set():
                # The generator draws each patch once, so it is enough to ask again.
                self._tasks.append(asyncio.create_task(self._run(self._draw())))

    async def _look_and_draw(self) -> None:
        async def look(patch: Patch) -> None:
            found = await self._store.get(patch_key(self._line.home(patch).id, patch))
            if found is not None and len(found) == self._patch_bytes:
                self._put(patch, found)

        await at_once(READS, look, self._codes)
        self._looked.set()
        await self._draw()

    async def _draw(self) -> None:
        urgent = self._urgent

        async def draw() -> None:
            missing = [patch for patch, codes in self._codes.items() if not codes.done()]
            if missing:
                drawn = self._generator.patches(self._line.id, missing, urgent)
                async with aclosing(drawn):
                    async for patch, codes in drawn:
                        self._put(patch, codes)

        try:
            await again("the generator", draw)
            if not all(codes.done() for codes in self._codes.values()):
                raise RuntimeError("the generator ended a stream before all patches had come")
        except Exception:
            if urgent is self._urgent:  # else they have been asked for again, more urgently
                raise

    async def _run(self, work: Awaitable[None]) -> None:
        """Do work; its failure is that of all patches still waited for."""
        try:
            await work
        except Exception as error:
            for waiting in self._codes.values():
                if not waiting.done():
                    waiting.set_exception(error)
                    waiting.exception()  # not all are waited for

    def _put(self, patch: Patch, codes: bytes) -> None:
        waiting = self._codes[patch]
        if not waiting.done():
            waiting.set_result(codes)
