"""Store and engine under whatever Hypothesis thinks of: any order of comings, goings and deaths."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from generator_svc.easel import Easel
from generator_svc.engine import PREFETCH, VIEWPORT, Engine
from generator_svc.scene import Scene, Served
from handscroll.canvas import Canvas, Sampling
from handscroll.context import Codes, Context
from handscroll.errors import StoreUnavailable, Unavailable
from handscroll.field import Palette
from handscroll.geometry import Extent, Patch
from handscroll.order import Lattice
from svckit.keys import canvas_key, patch_key
from svckit.wire import Model
from tests.support.history import History, Witnessed
from tests.support.toys import ToyLedger, toy_codes

LONG = "HANDSCROLL_LONG" in os.environ
MACHINE = settings(max_examples=1000 if LONG else 40, stateful_step_count=100 if LONG else 30)
PLANE = Extent("plane", 1)
SERVED = Served(
    Model("ab" * 32, {"planet": PLANE}, Sampling(group=64), 16, 4, 5, "0" * 64),
    {"planet": Palette(np.zeros((24, 1, 1, 4), np.float32), None, 6, layered=False)},
)
CANVAS = Canvas(SERVED.model.digest, "planet", 1, PLANE, sampling=Sampling(group=64))
STILL_S, STILL_PASSES = 0.004, 50


class Machine(RuleBasedStateMachine):
    """Rules that run in an event loop of the machine's own."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    def turn(self, seconds: float = STILL_S) -> None:
        """Let happen what can; on a busy machine all of the time passes in one pass of a loop."""

        async def still() -> None:
            await asyncio.sleep(seconds)
            for _ in range(STILL_PASSES):
                await asyncio.sleep(0)

        self.runner.run(still())

    def end(self) -> None:
        """What must hold when all is over."""

    def teardown(self) -> None:
        try:
            self.end()
        finally:
            self.runner.close()


# The engine.


class HeldPainters:
    """Draw nothing until they are told to, each drawing for itself."""

    def __init__(self) -> None:
        self.slots, self.away = 2, 0
        self.held: list[tuple[list[Patch], asyncio.Future[None]]] = []
        self.drawn: Counter[Patch] = Counter()

    async def draw(self, scene: Scene, contexts: Sequence[Context]) -> list[Codes]:
        patches = [one.patch for one in contexts]
        holding = (patches, asyncio.get_running_loop().create_future())
        self.held.append(holding)
        assert len(self.held) <= self.slots
        try:
            await holding[1]
        finally:
            self.held.remove(holding)
        self.drawn.update(patches)
        return [toy_codes(scene, one) for one in contexts]


@dataclass(eq=False)
class Asker:
    """A client of an engine, and what it was told."""

    engine: int
    wanted: list[Patch]
    task: asyncio.Task[None] = field(init=False)
    told: dict[Patch, bytes] = field(default_factory=dict)

    async def ask(self, engine: Engine, priority: int) -> None:
        async for patch, codes in engine.patches(CANVAS.id, self.wanted, priority):
            self.told[patch] = codes.tobytes()


class Engines(Machine):
    """Two processes of one ledger and one store; askers come and leave, painters die."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History()
        self.painters = [HeldPainters(), HeldPainters()]
        self.askers: list[Asker] = []
        self.told: dict[Patch, bytes] = {}
        self.deaths = 0

        async def start() -> None:
            self.ledger = ToyLedger()
            raw = MemoryStore()
            self.engines: list[Engine] = []
            for painters in self.painters:
                store = Witnessed(raw)
                store.history = self.history
                easel = Easel(painters, self.ledger.of(painters))
                self.engines.append(Engine(store, easel, SERVED, 4096, 4096))
            await store.create(canvas_key(CANVAS.id), CANVAS.canonical())

        self.runner.run(start())

    @rule(
        engine=st.integers(0, 1),
        level=st.integers(0, 1),
        places=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=3),
        priority=st.sampled_from((VIEWPORT, PREFETCH)),
    )
    def come(self, engine: int, level: int, places: set[tuple[int, int]], priority: int) -> None:
        asker = Asker(engine, [Patch(level, 0, row, col) for row, col in sorted(places)])

        async def begin() -> None:
            asker.task = asyncio.create_task(asker.ask(self.engines[engine], priority))

        self.runner.run(begin())
        self.askers.append(asker)
        self.turn()

    # Which of those that there are is a number, so that what is drawn does not depend on timing.

    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        if self.askers:
            self.askers[which % len(self.askers)].task.cancel()
            self.turn()

    @rule(which=st.integers(0, 3), dies=st.integers(0, 9).map(lambda die: die == 9))
    def end_a_drawing(self, which: int, dies: bool) -> None:
        if self.holding:
            _, drawing = self.holding[which % len(self.holding)]
            self.deaths += dies
            self.runner.run(self._end(drawing, dies))
            self.turn()

    @invariant()
    def no_patch_is_drawn_twice(self) -> None:
        drawing = Counter(patch for patches, _ in self.holding for patch in patches)
        drawn = self.painters[0].drawn + self.painters[1].drawn
        assert set((drawing + drawn).values()) <= {1}, (drawing, drawn)

    @invariant()
    def no_work_is_without_an_asker(self) -> None:
        order = Lattice(PLANE)
        for number, (engine, painters) in enumerate(zip(self.engines, self.painters, strict=True)):
            waiting = (one for one in self.askers if one.engine == number and not one.task.done())
            wanted = order.cone(patch for one in waiting for patch in one.wanted)
            assert {patch for _, patch in engine._works} <= wanted
            assert {patch for patches, _ in painters.held for patch in patches} <= wanted

    @invariant()
    def all_are_told_the_same(self) -> None:
        for asker in self.askers:
            for patch, codes in asker.told.items():
                assert self.told.setdefault(patch, codes) == codes

    def end(self) -> None:
        """No asker is forgotten: once painters paint, all who still wait are served."""

        async def finish() -> None:
            async with asyncio.timeout(60):
                while not all(asker.task.done() for asker in self.askers):
                    for _, drawing in self.holding:
                        await self._end(drawing, dies=False)
                    await asyncio.sleep(0.001)
            for engine in self.engines:
                await engine.easel.close()

        self.runner.run(finish())
        failed = 0
        for asker in self.askers:
            if asker.task.cancelled():
                continue
            if asker.task.exception() is not None:
                assert isinstance(asker.task.exception(), Unavailable)
                failed += 1
            else:
                assert asker.told.keys() == set(asker.wanted)
        assert not failed or self.deaths, "nobody fails unless a painter died"
        self.turn()
        assert not any(map(len, self.engines)) and not self.ledger.owners
        assert all(engine._admitted == [0, 0] for engine in self.engines)
        assert not self.history.faults()

    @property
    def holding(self) -> list[tuple[list[Patch], asyncio.Future[None]]]:
        """Drawings under way in both processes."""
        return [one for painters in self.painters for one in painters.held]

    async def _end(self, drawing: asyncio.Future[None], dies: bool) -> None:
        if drawing.done():
            return
        if dies:
            drawing.set_exception(Unavailable("a painter was lost"))
        else:
            drawing.set_result(None)


def test_engines_survive_any_order_of_comings_goings_and_deaths() -> None:
    run_state_machine_as_test(Engines, settings=MACHINE)


# The store.


class Flaky:
    """A back end that fails as it is told, once for each thing it is told."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.next: list[str] = []

    async def get_async(self, path: str) -> Any:
        await self._fail("read lost")
        return await self.inner.get_async(path)

    async def get_range_async(self, path: str, *, start: int, end: int) -> Any:
        await self._fail("read lost")
        return await self.inner.get_range_async(path, start=start, end=end)

    async def head_async(self, path: str) -> Any:
        await self._fail("read lost")
        return await self.inner.head_async(path)

    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        await self._fail("write lost")
        put = await self.inner.put_async(path, file, mode=mode)
        await self._fail("answer lost")
        return put

    async def delete_async(self, paths: str | Sequence[str]) -> None:
        await self.inner.delete_async(paths)

    def list(self, prefix: str, *, chunk_size: int) -> Any:
        return self.inner.list(prefix, chunk_size=chunk_size)

    async def _fail(self, how: str) -> None:
        if how in self.next:
            self.next.remove(how)
            raise GenericError(how)
        await asyncio.sleep(0)


class Writers(Machine):
    """Writers and readers of a few keys over a store that fails."""

    keys = st.integers(0, 2).map(lambda col: patch_key("cd" * 32, Patch(0, 0, 0, col)))

    def __init__(self) -> None:
        super().__init__()
        self.raw, self.history = Flaky(), History()
        self.store = Witnessed(self.raw, timeout_s=1.0)
        self.store.history = self.history
        self.running: list[asyncio.Task[None]] = []

    def _begin(self, work: Any) -> None:
        async def begin() -> None:
            self.running.append(asyncio.create_task(work))

        self.runner.run(begin())

    @rule(key=keys, value=st.integers(0, 2))
    def create(self, key: Any, value: int) -> None:
        async def work() -> None:
            began = asyncio.get_running_loop().time()
            try:
                held = await self.store.create(key, b"%d" % value)
            except StoreUnavailable:
                return
            self.history.read(key, held, began)  # whoever writes is told what is there

        self._begin(work())

    @rule(key=keys)
    def read(self, key: Any) -> None:
        async def work() -> None:
            try:
                await self.store.get(key)
            except StoreUnavailable:
                pass

        self._begin(work())

    @rule(how=st.sampled_from(["read lost", "write lost", "answer lost"]))
    def fail(self, how: str) -> None:
        self.raw.next.append(how)

    @rule(passes=st.integers(1, 5))
    def wait(self, passes: int) -> None:
        self.turn(0.0002 * passes)

    @rule(which=st.integers(0, 9))
    def give_up(self, which: int) -> None:
        if self.running:
            self.running[which % len(self.running)].cancel()

    def end(self) -> None:
        self.raw.next.clear()

        async def finish() -> None:
            await asyncio.gather(*self.running, return_exceptions=True)

        self.runner.run(finish())
        for task in self.running:
            assert task.cancelled() or task.exception() is None
        assert not self.history.faults()


def test_a_store_survives_any_order_of_writers_readers_and_losses() -> None:
    run_state_machine_as_test(Writers, settings=MACHINE)
