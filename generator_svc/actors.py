"""Painters and ledger as Ray actors: the one place that imports ray.

A painter holds the model and draws with one thread. It belongs to the process that made it, and
dies with it; if it dies alone, Ray restarts it and draws again, which gives the same patches. The
ledger is one actor for the whole cluster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from cachetools import LRUCache
from prometheus_client import Counter
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from generator_svc.scene import Scene, Served
from handscroll.canvas import Canvas
from handscroll.context import Codes, Context
from handscroll.errors import Unavailable
from handscroll.words import Vectors
from svckit import logs, trace
from svckit.keys import Key
from svckit.wire import Model

if TYPE_CHECKING:
    from handscroll.sample import PatchSampler

NAMESPACE = "handscroll"
LEASE_S = 4.0
"""A process that the ledger has not heard of for so long has lost its claims."""
NICE = 10
"""The niceness of painters."""
MISSES = 8
"""A process that has told the ledger so often in vain that it lives has lost its cluster."""
TRIES = 3
"""Painters that may be lost over one drawing, before it is taken for what kills them."""

_LOST = Counter(
    "handscroll_painters_lost", "Times that a painter was found dead, or to have been started again"
)
_log = logging.getLogger(__name__)


def join(address: str) -> None:
    """Become part of a Ray cluster.

    Raises:
        Unavailable: there is none at this address.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, RayError) as error:
        raise Unavailable(f"no Ray cluster at {address}: {error}") from error
    finally:
        # Ray takes SIGTERM for itself, and would end us in the middle of what we do.
        signal.signal(signal.SIGTERM, handler)


def _stand_back() -> None:
    """Let services on this machine go first: they have little to do, but soon."""
    os.nice(NICE)
    # Linux may weigh sessions before it weighs processes: sched(7), "The autogroup feature".
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


class _Stopped(Exception):
    """Nobody wants what is being drawn any more."""


class _Drawn(NamedTuple):
    """What a painter has drawn, and which process of it has."""

    codes: list[Codes]
    process: str


class _Painter:
    """The model, drawing patches one batch at a time.

    Args:
        folder: of the checkpoint; None for the shipped one.
        gpus: how much of a GPU it holds, to draw there; 0 for a CPU.
        tracing: what the environment of whoever made it says about traces; None where it is not
            alone in its process.

    Raises:
        Unavailable: there is no GPU where it was placed.
    """

    def __init__(
        self, folder: Path | None, gpus: float = 0, tracing: Mapping[str, str] | None = None
    ) -> None:
        import torch  # here, because the front does without

        from handscroll import checkpoint

        if tracing is not None:
            _stand_back()
            os.environ.update(tracing)
            logs.configure("painter", "INFO")
            trace.configure("painter")
        self.process = logs.new_request_id()
        torch.set_num_threads(1)
        self.checkpoint = checkpoint.load(folder or checkpoint.SHIPPED)
        if gpus:
            if not torch.cuda.is_available():
                raise Unavailable(
                    f"a painter is to hold {gpus:g} of a GPU, and torch {torch.__version__} sees "
                    "none: check the driver, and that the image has CUDA"
                )
            self.checkpoint.decoder.to("cuda")
        self.thread = ThreadPoolExecutor(1)
        self.samplers: LRUCache[bytes, PatchSampler] = LRUCache(16)

    async def describe(self) -> Served:
        from handscroll.tokenizer import RADIUS_TOK

        loaded = self.checkpoint
        config = loaded.decoder.config
        model = Model(
            digest=loaded.digest,
            worlds={name: world.extent for name, world in loaded.worlds.items()},
            sampling=loaded.sampling,
            side_tok=config.side,
            codes=config.codes,
            radius_tok=RADIUS_TOK,
            text_encoder=loaded.text_encoder,
        )
        return Served(
            model,
            {name: world.palette for name, world in loaded.worlds.items()},
        )

    async def greet(self) -> tuple[Served, str]:
        return await self.describe(), self.process

    async def draw(
        self,
        canvas: bytes,
        vectors: Vectors,
        contexts: list[Context],
        traceparent: str = "",
    ) -> _Drawn:
        stop = threading.Event()
        trace.receive(traceparent)
        with trace.span("paint", {"patches": len(contexts)}, serves=True):
            try:
                codes = await asyncio.get_running_loop().run_in_executor(
                    self.thread, self._draw, canvas, vectors, contexts, stop
                )
            finally:
                stop.set()
        return _Drawn(codes, self.process)

    def _draw(
        self,
        spec: bytes,
        vectors: Vectors,
        contexts: list[Context],
        stop: threading.Event,
    ) -> list[Codes]:
        from handscroll.paint import sampler_of

        def pause() -> None:
            if stop.is_set():
                raise _Stopped

        pause()
        sampler = self.samplers.get(spec)
        if sampler is None:
            sampler = sampler_of(self.checkpoint, Canvas.parse(spec), vectors)
            self.samplers[spec] = sampler
        return [codes for _, codes in sampler.draw(contexts, pause)]


class RayPainters:
    """A set of painters, spread over the cluster.

    Args:
        count: how many; 0 for one per CPU.
        folder: of the checkpoint; None for the shipped one.
        gpus: how much of a GPU each holds; 0 to draw on CPUs.
    """

    def __init__(self, count: int, folder: Path | None, gpus: float = 0) -> None:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.slots = count or max(1, int(resources.get("CPU", 1)))
        kind: Any = ray.remote(
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=3,
            scheduling_strategy="SPREAD",
        )(_Painter)
        self.actors = [kind.remote(folder, gpus, trace.settings()) for _ in range(self.slots)]
        self._processes: dict[Any, str] = {}
        self._busy = 0
        self._idle: asyncio.Queue[Any] = asyncio.Queue()
        self._served: asyncio.Future[Served] = asyncio.get_running_loop().create_future()
        self._greetings: set[asyncio.Task[None]] = set()
        for actor in self.actors:
            self._greet(actor)

    async def describe(self) -> Served:
        """What the painters paint.

        Raises:
            HandscrollError: the checkpoint cannot be loaded.
        """
        return await asyncio.shield(self._served)

    @property
    def away(self) -> int:
        """Painters that do not answer: Ray has not placed them yet, or they died."""
        return self.slots - self._busy - self._idle.qsize()

    async def draw(self, scene: Scene, contexts: Sequence[Context]) -> list[Codes]:
        """Draw patches of one canvas and one shape; what a lost painter leaves, another takes.

        Raises:
            Unavailable: one painter after the other was lost over it.
        """
        for left in reversed(range(TRIES)):
            try:
                return await self._draw(scene, contexts)
            except RayError as error:
                if isinstance(error, RayTaskError) or not left:
                    raise _cause(error) from error
                _log.warning("a painter is away", extra={"reason": type(error).__name__})
        raise AssertionError("the last try returns or raises")

    async def _draw(self, scene: Scene, contexts: Sequence[Context]) -> list[Codes]:
        painter, idle = await self._idle.get(), False
        self._busy += 1
        try:
            drawing = painter.draw.remote(
                scene.canvas.canonical(),
                scene.vectors,
                list(contexts),
                trace.current().traceparent,
            )
            try:
                drawn: _Drawn = await drawing
            except asyncio.CancelledError:
                ray.cancel(drawing)
                raise
            self._look_for_restart(painter, drawn.process)
            idle = True
            return drawn.codes
        finally:
            self._busy -= 1
            if idle:
                self._idle.put_nowait(painter)
            else:
                self._greet(painter)

    def _look_for_restart(self, painter: Any, process: str) -> None:
        """Ray starts a painter again and repeats what it was drawing, without a word."""
        before = self._processes.setdefault(painter, process)
        self._processes[painter] = process
        if before != process:
            _LOST.inc()
            _log.warning(
                "a painter was started again",
                extra={"reason": "its process died", "before": before, "now": process},
            )

    def _greet(self, actor: Any) -> None:
        """Have a painter among the idle as soon as it answers, wherever Ray places it."""
        greeting = asyncio.create_task(self._until_it_answers(actor))
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)

    async def _until_it_answers(self, actor: Any) -> None:
        while True:
            try:
                served, process = await actor.greet.remote()
            except ActorDiedError as error:  # for good: it cannot load its model
                _log.error("a painter cannot start", extra={"reason": str(error)})
                if not self._served.done():
                    reason = str(error).strip().splitlines()[-1]
                    self._served.set_exception(Unavailable(f"a painter cannot start: {reason}"))
                return
            except RayError as error:
                _log.warning("a painter is away", extra={"reason": type(error).__name__})
                await asyncio.sleep(1.0)
            else:
                self._look_for_restart(actor, process)
                if not self._served.done():
                    self._served.set_result(served)
                self._idle.put_nowait(actor)
                return

    def close(self) -> None:
        """Let the painters go."""
        for greeting in self._greetings:
            greeting.cancel()
        for actor in self.actors:
            ray.kill(actor)


def _cause(error: RayError) -> Exception:
    """What went wrong in an actor, without Ray's wrapping."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return error.cause
    return Unavailable(f"a painter was lost: {type(error).__name__}")


class _Ledger:
    """Who draws what, and when each was last heard of."""

    def __init__(self) -> None:
        self.owners: dict[Key, str] = {}
        self.heard: dict[str, float] = {}
        self.changed = asyncio.Condition()

    async def beat(self, owner: str) -> None:
        self.heard[owner] = time.monotonic()

    async def claim(self, owner: str, keys: list[Key]) -> list[bool]:
        await self.beat(owner)
        granted = []
        for key in keys:
            free = not self._taken(key)
            if free:
                self.owners[key] = owner
            granted.append(free)
        return granted

    async def release(self, owner: str, keys: list[Key]) -> None:
        for key in keys:
            if self.owners.get(key) == owner:
                del self.owners[key]
        async with self.changed:
            self.changed.notify_all()

    async def released(self, key: Key) -> None:
        async with self.changed:
            while self._taken(key):
                with suppress(TimeoutError):  # then look whether its owner still lives
                    await asyncio.wait_for(self.changed.wait(), 1.0)

    def _taken(self, key: Key) -> bool:
        owner = self.owners.get(key)
        return owner is not None and time.monotonic() - self.heard[owner] < LEASE_S


class RayLedger:
    """The ledger of the cluster, as one process sees it."""

    def __init__(self) -> None:
        kind: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Ledger)
        self.actor = kind.options(name="ledger", get_if_exists=True, lifetime="detached").remote()
        self.owner = logs.new_request_id()
        self._beating = asyncio.create_task(self._beat())

    async def claim(self, keys: Sequence[Key]) -> list[bool]:
        """Take what nobody else has; all of it while the ledger is lost."""
        try:
            return await self.actor.claim.remote(self.owner, list(keys))
        except RayError:
            _log.warning("the ledger is lost; patches may be drawn twice until it is back")
            return [True] * len(keys)

    async def release(self, keys: Sequence[Key]) -> None:
        """Give back what was ours."""
        with suppress(RayError):
            await self.actor.release.remote(self.owner, list(keys))

    async def released(self, key: Key) -> None:
        """Wait until nobody has a key any more."""
        with suppress(RayError):
            await self.actor.released.remote(key)

    async def close(self) -> None:
        """Stop being heard of."""
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)

    async def _beat(self) -> None:
        missed = 0  # counted, not timed: a process that was held up itself has missed none
        while missed < MISSES:
            began = time.monotonic()
            try:
                # Not `wait_for`: it may lose a cancellation that comes with the answer.
                async with asyncio.timeout(LEASE_S):
                    await self.actor.beat.remote(self.owner)
                missed = 0
            except (RayError, TimeoutError):
                missed += 1
                # Where the ledger's node is lost, calls fail at once, until Ray has found out after
                # a quarter of a minute and started the ledger on another.
                await asyncio.sleep(began + LEASE_S - time.monotonic())
            await asyncio.sleep(LEASE_S / 5)
        # The cluster that we joined is gone, though another may have its address: only a new
        # process can join that one, and whoever keeps us alive starts it.
        _log.error("Ray is lost; stopping")
        signal.raise_signal(signal.SIGTERM)
