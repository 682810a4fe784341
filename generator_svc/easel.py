"""Where patches that have all they need wait to be drawn: most urgent first, so many at a time.

What draws them (`Painters`) and what keeps several processes from drawing the same patch
(`Ledger`) are parameters; `actors` has both on Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from generator_svc.scene import Scene
from handscroll.context import Codes, Context
from svckit.keys import Key, patch_key

Urgency = tuple[int, int, int]
"""Priority, number of the request, place in its list: lower is drawn first."""

_DRAWN = Counter("handscroll_patches_drawn", "Patches drawn and committed", ["level"])
_STOPPED = Counter("handscroll_drawings_stopped", "Drawings given up because nobody asked any more")
_SECONDS = Histogram(
    "handscroll_draw_seconds",
    "Time to draw one batch of patches",
    buckets=(0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30),
)
_WAITING = Gauge("handscroll_patches_ready", "Patches that wait for nothing but a painter")

_BREATH_S = 0.001
"""Before a free painter takes the next patch, those that waited for its last one get ready: they
may be more urgent than all that wait now."""


class Painters(Protocol):
    """Draw batches of patches somewhere, ``slots`` of them at a time."""

    slots: int

    async def draw(self, scene: Scene, contexts: Sequence[Context]) -> list[Codes]:
        """Draw patches of one canvas and one shape; stops soon after it is cancelled."""
        ...


class Ledger(Protocol):
    """Who draws what, across processes. If it forgets, work is done twice; no byte differs."""

    async def claim(self, keys: Sequence[Key]) -> list[bool]:
        """Take what nobody else has; says which of the keys are ours now. Never fails."""
        ...

    async def release(self, keys: Sequence[Key]) -> None:
        """Give back what was ours, and nothing else."""
        ...

    async def released(self, key: Key) -> None:
        """Wait until nobody has a key any more."""
        ...


@dataclass(eq=False)
class Drawing:
    """A patch that wants to be drawn.

    Attributes:
        scene: its canvas.
        context: what it sees.
        urgency: may change while it waits.
        committed: looks whether somebody else has committed it.
        commit: commits what was drawn, and tells what the patch is from now on.
    """

    scene: Scene
    context: Context
    urgency: Callable[[], Urgency]
    committed: Callable[[], Awaitable[Codes | None]]
    commit: Callable[[Codes], Awaitable[Codes]]
    codes: asyncio.Future[Codes] = field(init=False)

    @property
    def key(self) -> Key:
        """Its name in the store and in the ledger."""
        return patch_key(self.scene.canvas_id, self.context.patch)

    @property
    def kind(self) -> tuple[str, tuple[int, bytes]]:
        """What drawings of one batch must have in common."""
        return self.scene.canvas_id, self.context.shape


class Easel:
    """Hands drawings to painters.

    Args:
        painters: draw.
        ledger: keeps other processes from drawing the same.
    """

    def __init__(self, painters: Painters, ledger: Ledger) -> None:
        self.painters, self.ledger = painters, ledger
        self._ready: set[Drawing] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._pace_s = 0.25  # for one batch; learned as it goes

    async def draw(self, drawing: Drawing) -> Codes:
        """Draw and commit one patch; cancelled, it stops as soon as nobody waits for its batch."""
        drawing.codes = asyncio.get_running_loop().create_future()
        self._put(drawing)
        try:
            return await drawing.codes
        finally:
            self._ready.discard(drawing)
            _WAITING.set(len(self._ready))

    def seconds_for(self, patches: int) -> float:
        """About how long so many patches take."""
        return max(1.0, patches * self._pace_s / max(1, self.painters.slots))

    async def close(self) -> None:
        """Stop all drawing."""
        for task in self._batches:
            task.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)

    def _put(self, drawing: Drawing) -> None:
        self._ready.add(drawing)
        self._start()

    def _start(self) -> None:
        """Start batches while there are drawings and free painters."""
        while self._ready and len(self._batches) < self.painters.slots:
            first = min(self._ready, key=lambda one: one.urgency())
            rows = first.scene.canvas.sampling.rows
            batch = [first]
            if rows > 1:
                alike = sorted(
                    (one for one in self._ready if one is not first and one.kind == first.kind),
                    key=lambda one: one.urgency(),
                )
                batch += alike[: rows - 1]
            self._ready.difference_update(batch)
            task = asyncio.create_task(self._paint(batch))
            self._batches.add(task)
            for one in batch:
                one.codes.add_done_callback(partial(_stop_unwanted, batch, task))
            task.add_done_callback(self._batch_ended)
        _WAITING.set(len(self._ready))

    def _batch_ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        asyncio.get_running_loop().call_later(_BREATH_S, self._start)

    async def _paint(self, batch: list[Drawing]) -> None:
        """Claim, draw, commit and hand out one batch."""
        ours = batch  # for all we know, until the ledger has answered
        try:
            free = await self.ledger.claim([one.key for one in batch])
            ours = [one for one, granted in zip(batch, free, strict=True) if granted]
            for drawing, granted in zip(batch, free, strict=True):
                if not granted:
                    self._await_other(drawing)
            # Between our last look and the claim somebody else may have finished it.
            todo = []
            for drawing in ours:
                codes = await drawing.committed()
                if codes is None:
                    todo.append(drawing)
                else:
                    _settle(drawing, codes)
            if todo:
                began = time.monotonic()
                drawn = await self.painters.draw(todo[0].scene, [one.context for one in todo])
                seconds = time.monotonic() - began
                _SECONDS.observe(seconds)
                self._pace_s += 0.1 * (seconds - self._pace_s)
                for drawing, codes in zip(todo, drawn, strict=True):
                    _settle(drawing, await drawing.commit(codes))
                    _DRAWN.labels(drawing.context.patch.level).inc()
        except asyncio.CancelledError:
            _STOPPED.inc(len(ours))
            raise
        except Exception as error:
            for drawing in ours:
                if not drawing.codes.done():
                    drawing.codes.set_exception(error)
        finally:
            if ours:
                await self.ledger.release([one.key for one in ours])

    def _await_other(self, drawing: Drawing) -> None:
        """Wait for another process without a painter; take what it committed, or try again."""

        async def wait() -> None:
            await self.ledger.released(drawing.key)
            codes = await drawing.committed()
            if codes is not None:
                _settle(drawing, codes)
            elif not drawing.codes.done():
                self._put(drawing)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() and not drawing.codes.done():
                drawing.codes.set_exception(task.exception())  # type: ignore[arg-type]

        task = asyncio.create_task(wait())
        task.add_done_callback(ended)
        drawing.codes.add_done_callback(lambda _: task.cancel())


def _settle(drawing: Drawing, codes: Codes) -> None:
    if not drawing.codes.done():
        drawing.codes.set_result(codes)


def _stop_unwanted(
    batch: list[Drawing], task: asyncio.Task[None], _: asyncio.Future[Codes]
) -> None:
    """Stop a batch once nobody waits for any of it."""
    if all(one.codes.cancelled() for one in batch):
        task.cancel()
