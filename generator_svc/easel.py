"""Where patches that have all they need wait to be drawn: most urgent first, so many at a time.

What draws them (`Painters`) and what keeps several processes from drawing the same patch
(`Ledger`) are parameters; `actors` has both on Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from prometheus_client import Counter, Gauge, Histogram

from generator_svc.scene import Scene
from handscroll.context import Codes, Context
from svckit import trace
from svckit.keys import Key, patch_key

Urgency = tuple[int, int, int]
"""Priority, number of the request, place in its list: lower is drawn first."""

PRIORITIES = ("viewport", "prefetch")
"""What the first number of an urgency stands for."""
RATE_S = 60.0
"""The rate of drawing is told over so long."""

_DRAWN = Counter("handscroll_patches_drawn", "Patches drawn and committed", ["level"])
_ADOPTED = Counter(
    "handscroll_patches_adopted", "Patches that another process had committed when we began"
)
_STOPPED = Counter("handscroll_drawings_stopped", "Drawings given up because nobody asked any more")
_SECONDS = Histogram(
    "handscroll_draw_seconds",
    "Time to draw one batch of patches",
    buckets=(0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30),
)
_READY = Gauge("handscroll_patches_ready", "Patches that wait for a painter", ["priority"])
_QUEUE_SECONDS = Histogram(
    "handscroll_queue_seconds",
    "Time that a patch waited for a painter",
    ["priority"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
_PAINTERS = Gauge("handscroll_painters", "Painters of this process, by what they do", ["state"])
_CLAIMS = Gauge("handscroll_ledger_claims", "Patches that this process has claimed in the ledger")
_log = logging.getLogger(__name__)

_BREATH_S = 0.001
"""Before a free painter takes the next patch, those that waited for its last one get ready: they
may be more urgent than all that wait now."""


class Painters(Protocol):
    """Draw batches of patches somewhere, ``slots`` of them at a time."""

    slots: int

    @property
    def away(self) -> int:
        """Of the slots, those whose painter does not answer."""
        ...

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


class Painting(NamedTuple):
    """How painting goes.

    Attributes:
        busy, idle, away: painters that draw, that have nothing to draw, that do not answer.
        ready: patches that wait for a painter, by priority.
        patches_per_s: drawn over the last RATE_S.
    """

    busy: int
    idle: int
    away: int
    ready: Tally[int]
    patches_per_s: float


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
    ready_s: float = field(init=False)
    span: trace.Span = field(default_factory=trace.current)

    @property
    def key(self) -> Key:
        """Its name in the store and in the ledger."""
        return patch_key(self.scene.canvas_id, self.context.patch)

    @property
    def kind(self) -> tuple[object, ...]:
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
        self._busy = 0
        self._drawn_s: deque[float] = deque(maxlen=10_000)
        # Looked up when they are asked for, from another thread: so numbers only.
        _PAINTERS.labels("busy").set_function(lambda: self._busy)
        _PAINTERS.labels("idle").set_function(lambda: painters.slots - self._busy - painters.away)
        _PAINTERS.labels("away").set_function(lambda: painters.away)

    async def draw(self, drawing: Drawing) -> Codes:
        """Draw and commit one patch; cancelled, it stops as soon as nobody waits for its batch."""
        drawing.codes = asyncio.get_running_loop().create_future()
        self._put(drawing)
        try:
            return await drawing.codes
        finally:
            self._ready.discard(drawing)

    def painting(self) -> Painting:
        """How it goes now."""
        away, since_s = self.painters.away, time.monotonic() - RATE_S
        return Painting(
            self._busy,
            self.painters.slots - self._busy - away,
            away,
            Tally(one.urgency()[0] for one in self._ready),
            sum(drawn_s > since_s for drawn_s in self._drawn_s) / RATE_S,
        )

    def seconds_for(self, patches: int) -> float:
        """About how long so many patches take."""
        return max(1.0, patches * self._pace_s / max(1, self.painters.slots))

    async def close(self) -> None:
        """Stop all drawing."""
        for task in self._batches:
            task.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)

    def _put(self, drawing: Drawing) -> None:
        drawing.ready_s = time.monotonic()
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
            for one in batch:
                trace.since("queue", one.ready_s, one.span)
                _QUEUE_SECONDS.labels(_priority(one)).observe(time.monotonic() - one.ready_s)
            task = asyncio.create_task(self._paint(batch), context=trace.detached(first.span))
            self._batches.add(task)
            for one in batch:
                one.codes.add_done_callback(partial(_stop_unwanted, batch, task))
            task.add_done_callback(self._batch_ended)

    def _batch_ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        asyncio.get_running_loop().call_later(_BREATH_S, self._go_on)

    def _go_on(self) -> None:
        self._start()
        # Here and not wherever a patch comes or goes: thousands may wait.
        ready = Tally(_priority(one) for one in self._ready)
        for priority in PRIORITIES:
            _READY.labels(priority).set(ready[priority])

    async def _paint(self, batch: list[Drawing]) -> None:
        """Claim, draw, commit and hand out one batch."""
        ours = batch  # for all we know, until the ledger has answered
        _CLAIMS.inc(len(batch))
        try:
            free = await self.ledger.claim([one.key for one in batch])
            ours = [one for one, granted in zip(batch, free, strict=True) if granted]
            _CLAIMS.dec(len(batch) - len(ours))
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
                    _ADOPTED.inc()
                    _settle(drawing, codes)
            if todo:
                for drawing, codes in zip(todo, await self._drawn(todo), strict=True):
                    with trace.span("commit", parent=drawing.span):
                        _settle(drawing, await drawing.commit(codes))
                    _DRAWN.labels(drawing.context.patch.level).inc()
                    self._drawn_s.append(time.monotonic())
        except asyncio.CancelledError:
            _STOPPED.inc(len(ours))
            raise
        except Exception as error:
            for drawing in ours:
                if not drawing.codes.done():
                    drawing.codes.set_exception(error)
        finally:
            _CLAIMS.dec(len(ours))
            if ours:
                await self.ledger.release([one.key for one in ours])

    async def _drawn(self, batch: list[Drawing]) -> list[Codes]:
        """What a painter draws."""
        began = time.monotonic()
        self._busy += 1
        try:
            with trace.span("draw", {"patches": len(batch)}, parent=batch[0].span) as span:
                for one in batch[1:]:
                    one.span.link(span)
                codes = await self.painters.draw(batch[0].scene, [one.context for one in batch])
        finally:
            self._busy -= 1
        seconds = time.monotonic() - began
        _SECONDS.observe(seconds)
        self._pace_s += 0.1 * (seconds - self._pace_s)
        return codes

    def _await_other(self, drawing: Drawing) -> None:
        """Wait for another process without a painter; take what it committed, or try again."""

        async def wait() -> None:
            with trace.span("elsewhere", parent=drawing.span):
                await self.ledger.released(drawing.key)
            codes = await drawing.committed()
            if codes is not None:
                _ADOPTED.inc()
                _settle(drawing, codes)
            elif not drawing.codes.done():
                _log.info(
                    "taken over",
                    extra={
                        "patch": drawing.key,
                        "reason": "the process that had claimed it gave it up or is gone",
                    },
                )
                self._put(drawing)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() and not drawing.codes.done():
                drawing.codes.set_exception(task.exception())  # type: ignore[arg-type]

        task = asyncio.create_task(wait())
        task.add_done_callback(ended)
        drawing.codes.add_done_callback(lambda _: task.cancel())


def _priority(drawing: Drawing) -> str:
    """What it is drawn for; one that nobody asks for any more goes with the last."""
    return PRIORITIES[min(drawing.urgency()[0], len(PRIORITIES) - 1)]


def _settle(drawing: Drawing, codes: Codes) -> None:
    if not drawing.codes.done():
        drawing.codes.set_result(codes)


def _stop_unwanted(
    batch: list[Drawing], task: asyncio.Task[None], _: asyncio.Future[Codes]
) -> None:
    """Stop a batch once nobody waits for any of it."""
    if all(one.codes.cancelled() for one in batch):
        task.cancel()
