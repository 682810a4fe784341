"""The laws of generator_svc's outer loop: the same codes, each patch once, no work for nobody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest

from generator_svc.easel import Easel
from generator_svc.engine import PREFETCH, VIEWPORT, Engine
from handscroll.branch import Lineage
from handscroll.canvas import Branch, Canvas, Known, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes
from handscroll.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    SpecMismatch,
    StoreUnavailable,
    Unavailable,
)
from handscroll.field import statistics
from handscroll.geometry import Extent, Patch
from handscroll.known import KnownTokens, digest_of
from handscroll.order import Lattice
from handscroll.paint import Painter
from svckit.keys import Prefix, canvas_key, known_key, patch_key
from svckit.known import tokens_content
from svckit.store import Store
from tests.support.toys import ModelPainters, ToyLedger, ToyPainters, served_by

MakeEngine = Callable[..., Engine]
PutCanvas = Callable[..., Awaitable[Canvas]]
FAR = 30_000


def block(row: int, col: int, rows: int = 2, cols: int = 2, level: int = 2) -> list[Patch]:
    return [Patch(level, 0, row + r, col + c) for r in range(rows) for c in range(cols)]


async def ask(
    engine: Engine, canvas: str, wanted: list[Patch], priority: int = VIEWPORT
) -> dict[Patch, Codes]:
    return {patch: codes async for patch, codes in engine.patches(canvas, wanted, priority)}


async def settle(engine: Engine) -> None:
    """Let everything happen that can: wait until nothing has changed for a while."""
    still, before = 0, None
    while still < 8:
        await asyncio.sleep(0.01)
        easel = engine.easel
        now = (list(engine._works), len(easel._ready), len(easel._batches), easel.painters.running)  # type: ignore[attr-defined]
        still, before = (still + 1 if now == before else 0), now


@pytest.fixture
def store() -> Store:
    """A store in memory."""
    return Store.open("memory://")


@pytest.fixture
def make_engine(model: Checkpoint, store: Store) -> MakeEngine:
    """Makes engines over one store."""

    def make(
        painters: object, ledger: object = None, backlog: int = 4096, store: Store = store
    ) -> Engine:
        ledger = ledger or ToyLedger().of(painters)
        return Engine(store, Easel(painters, ledger), served_by(model), backlog, 4096)  # type: ignore[arg-type]

    return make


@pytest.fixture
def put_canvas(model: Checkpoint, store: Store) -> PutCanvas:
    """Puts canvases into the store."""

    async def put(
        world: str = "planet", seed: int = 7, extent: Extent | None = None, **spec: object
    ) -> Canvas:
        extent = extent or model.worlds[world].extent
        spec.setdefault("sampling", Sampling(group=64))
        canvas = Canvas(model.digest, world, seed, extent, **spec)  # type: ignore[arg-type]
        await store.create(canvas_key(canvas.id), canvas.canonical())
        return canvas

    return put


# The same codes as the loop of the algorithm.


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("world", ["planet", "scroll"])
def test_engine_draws_what_render_draws(
    model: Checkpoint, make_engine: MakeEngine, put_canvas: PutCanvas, world: str, rows: int
) -> None:
    async def served() -> dict[Patch, Codes]:
        canvas = await put_canvas(world, sampling=Sampling(group=64, rows=rows))
        engine = make_engine(ModelPainters(model))
        left, right = await asyncio.gather(
            ask(engine, canvas.id, block(0, 5, cols=3)), ask(engine, canvas.id, block(1, 6, rows=1))
        )
        with Painter(model, canvas) as painter:
            wanted = sorted(left | right)
            for patch, codes in painter.patches(wanted):
                if patch in left | right:
                    np.testing.assert_array_equal((left | right)[patch], codes)
        return left | right

    assert len(asyncio.run(served())) == 6


def test_engine_paints_around_a_picture_as_render_does(
    model: Checkpoint, make_engine: MakeEngine, put_canvas: PutCanvas, store: Store
) -> None:
    """What is wholly known is committed as it is, and nothing is drawn for it."""
    pixels = np.random.default_rng(4).integers(0, 256, (600, 700, 3), np.uint8)
    known = Known(digest_of(pixels), -64, 128, *pixels.shape[:2])
    inside, wanted = Patch(2, 0, 0, 1), block(-1, 0, 2, 2)

    async def served() -> tuple[dict[Patch, Codes], dict[Patch, Codes], int]:
        canvas = await put_canvas(known=known)
        engine = make_engine(painters := ToyPainters())
        with pytest.raises(Unavailable, match="the tokens of the picture"):
            await ask(engine, canvas.id, [inside])
        with Painter(model, canvas, picture=pixels) as painter:
            assert isinstance(painter.pool.given, KnownTokens)
            tokens = painter.pool.given
            finest = canvas.extent.finest
            key = known_key(model.digest, known.picture, finest)
            assert painter.known is not None
            content = tokens_content(tokens, statistics(painter.known.levels[0], 16))
            await store.create(key, content[:-1])
            with pytest.raises(Unavailable, match="the same canvas made again"):
                await ask(engine, canvas.id, [inside])
            await store.delete(key)
            await store.create(key, content)
            whole = await ask(engine, canvas.id, [inside])
            np.testing.assert_array_equal(whole[inside], tokens.tokens(inside)[0])
            drawn = painters.drawn.total()
            found = await ask(make_engine(ModelPainters(model)), canvas.id, wanted)
            list(painter.patches(wanted))
            return found, {patch: painter.pool[patch] for patch in wanted}, drawn

    found, expected, drawn = asyncio.run(served())
    assert drawn == 0
    for patch in wanted:
        np.testing.assert_array_equal(found[patch], expected[patch])


@pytest.mark.parametrize(("frames", "level"), [(1, 2), (2, 0)])
def test_engine_paints_branches_as_render_does(
    model: Checkpoint,
    make_engine: MakeEngine,
    put_canvas: PutCanvas,
    store: Store,
    frames: int,
    level: int,
) -> None:
    """What is shared is the parent's own; each patch of the cone is drawn once, and no other."""
    extent = Extent("plane", level)
    wanted = [one._replace(frame=frames - 1) for one in block(-2, 0, 3, 3, level)]

    async def served() -> None:
        root = await put_canvas(extent=extent, frames=frames)
        place, inner = (-128, 192, 256, 320), (64, 384, 128, 256)
        child = await put_canvas(
            seed=8, extent=extent, branch=Branch(root.id, *place), frames=frames
        )
        last = await put_canvas(
            seed=9, extent=extent, branch=Branch(child.id, *inner), frames=frames
        )
        painters = ModelPainters(model)
        engine = make_engine(painters, backlog=500)
        parts = (wanted[:4], wanted[2:], wanted[3:5])
        found = await asyncio.gather(*(ask(engine, last.id, part) for part in parts))
        line = Lineage.of([last, child, root], 16)
        stored = [key async for key in store.keys(Prefix("patches/"))]
        assert sorted(stored) == sorted(patch_key(*one) for one in line.cone(wanted))
        with (
            Painter(model, root) as first,
            Painter(model, child, parent=first) as second,
            Painter(model, last, parent=second) as painter,
        ):
            list(painter.patches(wanted))
            for patch in wanted:
                for answer in found:
                    if patch in answer:
                        np.testing.assert_array_equal(answer[patch], painter.pool[patch])

    asyncio.run(served())


def test_a_branch_is_admitted_for_all_that_it_stands_on(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def served() -> None:
        root = await put_canvas()
        child = await put_canvas(seed=8, branch=Branch(root.id, -128, 192, 256, 320))
        cost = len(Lineage.of([child, root], 16).cone(block(-1, 0)))
        with pytest.raises(InvalidRequest, match=f"stand on {cost} patches"):
            await ask(make_engine(ToyPainters(), backlog=cost - 1), child.id, block(-1, 0))
        painters = ToyPainters()
        await ask(make_engine(painters, backlog=cost), child.id, block(-1, 0))
        assert painters.drawn.total() == cost

    asyncio.run(served())


def test_a_frame_of_a_branch_is_admitted_for_what_of_its_parent_is_missing(
    make_engine: MakeEngine, put_canvas: PutCanvas, store: Store
) -> None:
    """Of the frame before, the branch's own patches are there, and its parent's are not."""

    async def served() -> None:
        root = await put_canvas(frames=2)
        place = Branch(root.id, -128, 192, 256, 320)
        child = await put_canvas(seed=8, frames=2, branch=place)
        line, wanted = Lineage.of([child, root], 16), block(-1, 0)
        first = line.cone(wanted)
        for canvas, patch in first:
            if canvas == child.id:
                await store.create(patch_key(canvas, patch), bytes(1024))
        missing = sum(canvas == root.id for canvas, _ in first)
        assert 0 < missing < len(first)
        second = [patch._replace(frame=1) for patch in wanted]
        cost = len(first) + missing
        with pytest.raises(InvalidRequest, match=f"stand on {cost} patches"):
            await ask(make_engine(ToyPainters(), backlog=cost - 1), child.id, second)
        painters = ToyPainters()
        await ask(make_engine(painters, backlog=cost), child.id, second)
        assert painters.drawn.total() == cost

    asyncio.run(served())


def test_codes_do_not_depend_on_who_asks_for_what_when(
    make_engine: MakeEngine, put_canvas: PutCanvas, model: Checkpoint
) -> None:
    async def walk(seed: int) -> dict[Patch, Codes]:
        store = Store.open("memory://")
        rng = random.Random(seed)
        painters = ToyPainters(slots=1 + seed % 3)
        engine = make_engine(painters, store=store)
        canvas = await put_canvas()
        await store.create(canvas_key(canvas.id), canvas.canonical())
        wanted = block(FAR, -FAR, 4, 4)
        rng.shuffle(wanted)
        parts = [wanted[start : start + 3] for start in range(0, len(wanted), 3)]
        found: dict[Patch, Codes] = {}
        for answer in await asyncio.gather(
            *(ask(engine, canvas.id, part, rng.randrange(2)) for part in parts)
        ):
            found |= answer
        assert set(painters.drawn.values()) == {1}
        return found

    async def walks() -> None:
        first = await walk(0)
        for seed in range(1, 5):
            again = await walk(seed)
            assert again.keys() == first.keys()
            assert all((again[patch] == first[patch]).all() for patch in first)

    asyncio.run(walks())


def test_a_tile_costs_its_cone_and_a_second_look_nothing(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        engine = make_engine(painters)
        canvas = await put_canvas()
        await ask(engine, canvas.id, block(-FAR, FAR + 1))
        assert len(painters.drawn) == len(Lattice(canvas.extent).cone(block(-FAR, FAR + 1))) == 27
        engine._memory.clear()
        await ask(engine, canvas.id, block(-FAR, FAR + 1))
        assert sum(painters.drawn.values()) == 27

    asyncio.run(look())


def test_raster_pictures_are_drawn_to_the_end_of_a_long_chain(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        extent = Extent("picture", 0, 256 * 24, 256 * 24)
        canvas = await put_canvas(extent=extent, order="raster")
        found = await ask(make_engine(painters), canvas.id, [Patch(0, 0, 23, 23)])
        assert list(found) == [Patch(0, 0, 23, 23)]
        assert painters.drawn.total() == 24 * 24

    asyncio.run(look())


# Each patch once.


def test_many_askers_draw_each_patch_once(make_engine: MakeEngine, put_canvas: PutCanvas) -> None:
    async def look() -> None:
        painters = ToyPainters()
        engine = make_engine(painters)
        canvas = await put_canvas()
        answers = await asyncio.gather(
            *(ask(engine, canvas.id, block(0, step)) for step in (0, 1, 2, 1, 0) * 10)
        )
        assert set(painters.drawn.values()) == {1}
        assert (answers[0][Patch(2, 0, 0, 1)] == answers[1][Patch(2, 0, 0, 1)]).all()
        assert len(engine) == 0

    asyncio.run(look())


def test_engines_of_several_processes_draw_each_patch_once(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        ledger, painters = ToyLedger(), [ToyPainters(), ToyPainters(), ToyPainters()]
        engines = [make_engine(one, ledger.of(one)) for one in painters]
        canvas = await put_canvas()
        answers = await asyncio.gather(*(ask(one, canvas.id, block(8, 8, 4, 4)) for one in engines))
        total = painters[0].drawn + painters[1].drawn + painters[2].drawn
        assert set(total.values()) == {1}
        assert all(len(one.drawn) > 5 for one in painters), "the work is shared"
        for other in answers[1:]:
            assert all((answers[0][patch] == other[patch]).all() for patch in other)
        assert not ledger.owners

    asyncio.run(look())


def test_a_loser_adopts_what_the_winner_committed(
    make_engine: MakeEngine, put_canvas: PutCanvas, store: Store
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        engine = make_engine(painters)
        canvas = await put_canvas()
        patch, won = Patch(0, 0, 4, 4), bytes(range(256)) * 4
        painters.gate.clear()
        asked = asyncio.create_task(ask(engine, canvas.id, [patch]))
        await settle(engine)
        assert painters.started == [patch]
        await store.create(patch_key(canvas.id, patch), won)  # a process that died without a trace
        painters.gate.set()
        assert (await asked)[patch].tobytes() == won

    asyncio.run(look())


@pytest.mark.parametrize("stub", [b"", b"half a patch", bytes(2000)])
def test_a_patch_cut_short_by_a_power_cut_is_drawn_again(
    make_engine: MakeEngine, put_canvas: PutCanvas, store: Store, stub: bytes
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        canvas = await put_canvas()
        patch = Patch(0, 0, 4, 4)
        await store.create(patch_key(canvas.id, patch), stub)
        found = await ask(make_engine(painters), canvas.id, [patch])
        assert painters.drawn == {patch: 1}
        assert await store.get(patch_key(canvas.id, patch)) == found[patch].tobytes()

    asyncio.run(look())


# No work for nobody.


def test_the_last_asker_who_leaves_stops_the_work(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        engine = make_engine(painters)
        canvas = await put_canvas()
        painters.gate.clear()
        one = asyncio.create_task(ask(engine, canvas.id, block(0, 0)))
        two = asyncio.create_task(ask(engine, canvas.id, block(0, 0)))
        await settle(engine)
        assert painters.running == 2
        one.cancel()
        await settle(engine)
        assert painters.running == 2, "somebody still waits"
        two.cancel()
        await settle(engine)
        assert painters.running == 0 and len(painters.stopped) == 2
        assert len(engine) == 0 and not engine.easel._ready and not engine.easel._batches
        painters.gate.set()
        await ask(engine, canvas.id, block(0, 0))
        assert set(painters.drawn.values()) == {1}

    asyncio.run(look())


def test_leaving_keeps_what_others_stand_on(make_engine: MakeEngine, put_canvas: PutCanvas) -> None:
    async def look() -> None:
        painters = ToyPainters(slots=1)
        engine = make_engine(painters)
        canvas = await put_canvas()
        painters.gate.clear()
        leaver = asyncio.create_task(ask(engine, canvas.id, block(0, 0)))
        await settle(engine)
        stayer = asyncio.create_task(ask(engine, canvas.id, block(0, 2)))
        await settle(engine)
        leaver.cancel()
        await settle(engine)
        painters.gate.set()
        await stayer
        cone = Lattice(canvas.extent).cone(block(0, 2))
        assert set(painters.drawn) <= cone | set(painters.started[:1])
        assert cone <= set(painters.drawn) and set(painters.drawn.values()) == {1}

    asyncio.run(look())


def test_leaving_while_the_ledger_is_asked_leaves_no_claim(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        ledger, painters = ToyLedger(), ToyPainters()
        engine = make_engine(painters, ledger.of(painters))
        canvas = await put_canvas()
        ledger.answers.clear()
        asked = asyncio.create_task(ask(engine, canvas.id, [Patch(0, 0, 4, 4)]))
        await settle(engine)
        assert len(ledger.owners) == 1
        asked.cancel()
        await settle(engine)
        assert not ledger.owners
        ledger.answers.set()
        await ask(engine, canvas.id, [Patch(0, 0, 4, 4)])
        assert painters.drawn.total() == 1

    asyncio.run(look())


def test_closing_a_reader_midway_stops_the_rest(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        engine = make_engine(painters)
        canvas = await put_canvas()
        async with aclosing(engine.patches(canvas.id, block(0, 0, 8, 8))) as found:
            async for _ in found:
                break
        await settle(engine)
        drawn = painters.drawn.total()
        await settle(engine)
        assert painters.drawn.total() == drawn < 60 and len(engine) == 0

    asyncio.run(look())


# What goes first.


def test_a_viewport_goes_before_a_prefetch(make_engine: MakeEngine, put_canvas: PutCanvas) -> None:
    async def look() -> None:
        painters = ToyPainters(slots=1)
        engine = make_engine(painters)
        canvas = await put_canvas()
        painters.gate.clear()
        ahead = asyncio.create_task(ask(engine, canvas.id, block(0, 0), PREFETCH))
        await settle(engine)
        view = asyncio.create_task(ask(engine, canvas.id, block(100, 100)))
        await settle(engine)
        painters.gate.set()
        await asyncio.gather(ahead, view)
        cone = Lattice(canvas.extent).cone(block(100, 100))
        first = set(painters.started[1 : 1 + len(cone)])
        assert first == cone, "all but the drawing under way waits for the viewport"

    asyncio.run(look())


def test_a_prefetch_that_a_viewport_joins_is_hurried(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        painters = ToyPainters(slots=1)
        engine = make_engine(painters)
        canvas = await put_canvas()
        painters.gate.clear()
        here = asyncio.create_task(ask(engine, canvas.id, block(0, 0), PREFETCH))
        there = asyncio.create_task(ask(engine, canvas.id, block(100, 100), PREFETCH))
        await settle(engine)
        view = asyncio.create_task(ask(engine, canvas.id, block(100, 100)))
        await settle(engine)
        painters.gate.set()
        await view
        assert not here.done() and there.done()
        await here

    asyncio.run(look())


def test_batches_are_filled_across_requests(make_engine: MakeEngine, put_canvas: PutCanvas) -> None:
    async def look() -> None:
        painters = ToyPainters(slots=1)
        engine = make_engine(painters)
        canvas = await put_canvas(sampling=Sampling(rows=4))
        painters.gate.clear()
        askers = [
            asyncio.create_task(ask(engine, canvas.id, [Patch(0, 0, 2 * row, 0)]))
            for row in range(9)
        ]
        await settle(engine)
        painters.gate.set()
        await asyncio.gather(*askers)
        assert sorted(painters.batches) == [1, 4, 4]

    asyncio.run(look())


# What is refused, and what goes wrong.


def test_too_much_is_refused_with_a_time_to_come_back(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        engine = make_engine(painters, backlog=40)
        canvas = await put_canvas()
        painters.gate.clear()
        first = asyncio.create_task(ask(engine, canvas.id, block(0, 0)))
        await settle(engine)
        with pytest.raises(Overloaded, match="for 27 patches are being served, 40 may") as no:
            await ask(engine, canvas.id, block(50, 50))
        assert 1 <= no.value.retry_after_s <= 30
        with pytest.raises(InvalidRequest, match="those of one request may stand on 40"):
            await ask(engine, canvas.id, block(50, 50, 9, 9))
        painters.gate.set()
        await first
        await ask(engine, canvas.id, block(50, 50))

    asyncio.run(look())


def test_work_ahead_takes_no_room_from_viewports(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        engine = make_engine(painters, backlog=60)
        canvas = await put_canvas()
        painters.gate.clear()
        ahead = [
            asyncio.create_task(ask(engine, canvas.id, block(0, 100 * step), PREFETCH))
            for step in range(2)
        ]
        await settle(engine)
        with pytest.raises(Overloaded):
            await ask(engine, canvas.id, block(0, 500), PREFETCH)
        view = asyncio.create_task(ask(engine, canvas.id, block(0, 600)))
        await settle(engine)
        assert not view.done()
        painters.gate.set()
        await asyncio.gather(view, *ahead)
        assert engine._admitted == [0, 0]

    asyncio.run(look())


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([], "1 to 1024 patches, not 0"),
        ([Patch(2, 0, 0, col) for col in range(1025)], "1 to 1024 patches, not 1025"),
        ([Patch(2, 0, 0, 0)] * 2, "twice"),
        ([Patch(3, 0, 0, 0)], "not in this scroll"),
        ([Patch(2, 0, -1, 0)], "not in this scroll"),
        ([Patch(2, 1, 0, 0)], "not in this scroll"),
        ([Patch(2, 0, 0, 2**62)], "outside the world: row and col are at most 65536"),
    ],
)
def test_requests_that_cannot_be_are_refused(
    make_engine: MakeEngine, put_canvas: PutCanvas, wanted: list[Patch], words: str
) -> None:
    async def look() -> None:
        canvas = await put_canvas("scroll")
        with pytest.raises(InvalidRequest, match=words):
            await ask(make_engine(ToyPainters()), canvas.id, wanted)

    asyncio.run(look())


def test_unknown_and_foreign_canvases_are_refused(
    make_engine: MakeEngine, put_canvas: PutCanvas, store: Store
) -> None:
    async def look() -> None:
        engine = make_engine(ToyPainters())
        with pytest.raises(NotFound, match="there is no canvas 0000"):
            await ask(engine, "0" * 64, block(0, 0))
        with pytest.raises(InvalidRequest):
            await ask(engine, "../etc", block(0, 0))
        canvas = await put_canvas()
        foreign = replace(canvas, model="f" * 64)
        await store.create(canvas_key(foreign.id), foreign.canonical())
        with pytest.raises(SpecMismatch, match="the canvas wants model ffff"):
            await ask(engine, foreign.id, block(0, 0))

    asyncio.run(look())


def test_a_failure_reaches_all_who_wait_and_the_next_try_succeeds(
    make_engine: MakeEngine, put_canvas: PutCanvas
) -> None:
    async def look() -> None:
        painters = ToyPainters()
        engine = make_engine(painters)
        canvas = await put_canvas()

        def fail(patch: Patch) -> None:
            if patch.level == 1:
                raise StoreUnavailable("the disk is full")

        painters.fail = fail
        answers = await asyncio.gather(
            ask(engine, canvas.id, block(0, 0)),
            ask(engine, canvas.id, block(0, 1)),
            ask(engine, canvas.id, block(0, 0, level=0)),
            return_exceptions=True,
        )
        assert [type(one) for one in answers] == [StoreUnavailable, StoreUnavailable, dict]
        await settle(engine)
        assert len(engine) == 0 and painters.running == 0
        painters.fail = lambda patch: None
        await ask(engine, canvas.id, block(0, 0))
        assert set(painters.drawn.values()) == {1}

    asyncio.run(look())
