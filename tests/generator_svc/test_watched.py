"""What the generator tells of its work: counts, times, spans, and a line for each takeover."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from generator_svc.easel import Easel, Painting
from generator_svc.engine import PREFETCH, VIEWPORT, Engine
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Patch
from svckit import trace
from svckit.keys import canvas_key, patch_key
from svckit.store import Store
from tests.support.toys import ToyLedger, ToyPainters, served_by

pytestmark = pytest.mark.anyio
SEED, FILL = Patch(0, 0, 0, 0), Patch(0, 0, 1, 1)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def store() -> Store:
    return Store.open("memory://")


@pytest.fixture
async def canvas(model: Checkpoint, store: Store) -> Canvas:
    extent = model.worlds["planet"].extent
    canvas = Canvas(model.digest, "planet", 5, extent, sampling=Sampling(group=64))
    await store.create(canvas_key(canvas.id), canvas.canonical())
    return canvas


@pytest.fixture(autouse=True)
async def untraced() -> AsyncIterator[None]:
    """No trace from elsewhere: all tests run in one context."""
    trace._current.set(trace.Span())
    yield


def engine_of(
    model: Checkpoint, store: Store, painters: ToyPainters, ledger: ToyLedger | None = None
) -> Engine:
    easel = Easel(painters, (ledger or ToyLedger()).of(painters))
    return Engine(store, easel, served_by(model), 4096, 4096)


async def ask(engine: Engine, canvas: Canvas, *wanted: Patch, priority: int = VIEWPORT) -> None:
    async for _ in engine.patches(canvas.id, wanted, priority):
        pass


async def until(engine: Engine, busy: int, ready: int) -> Painting:
    """Wait for so many painters that draw, and patches that wait for one."""
    async with asyncio.timeout(30):
        while True:
            found = engine.easel.painting()
            if (found.busy, found.ready.total()) == (busy, ready):
                return found
            await asyncio.sleep(0.005)


async def test_patches_asked_for_and_missing_are_told_apart(
    model: Checkpoint, store: Store, canvas: Canvas
) -> None:
    engine = engine_of(model, store, ToyPainters())
    asked = "handscroll_request_patches_sum"
    missing = "handscroll_request_missing_patches_sum"
    before = metric(asked), metric(missing)
    await ask(engine, canvas, FILL)
    assert (metric(asked) - before[0], metric(missing) - before[1]) == (9, 9)
    await ask(engine, canvas, FILL, SEED)
    assert (metric(asked) - before[0], metric(missing) - before[1]) == (18, 9)


async def test_painters_and_what_waits_for_them_are_told(
    model: Checkpoint, store: Store, canvas: Canvas
) -> None:
    painters = ToyPainters(slots=1)
    engine = engine_of(model, store, painters)
    painters.gate.clear()
    asking = []
    for col, priority in enumerate((VIEWPORT, VIEWPORT, PREFETCH)):
        patch = Patch(0, 0, 0, 2 * col)
        asking.append(asyncio.create_task(ask(engine, canvas, patch, priority=priority)))
        found = await until(engine, busy=1, ready=col)
    assert (found.idle, found.away) == (0, 0)
    assert found.ready == {VIEWPORT: 1, PREFETCH: 1}
    assert metric("handscroll_painters", state="busy") == 1
    assert metric("handscroll_ledger_claims") == 1
    assert metric("handscroll_works") == 3
    assert metric("handscroll_patches_admitted", priority="viewport") == 2
    painters.gate.set()
    await asyncio.gather(*asking)
    found = await until(engine, busy=0, ready=0)
    assert found.patches_per_s == pytest.approx(3 / 60)
    async with asyncio.timeout(30):  # the last painter takes a breath before it is counted
        while metric("handscroll_ledger_claims") or metric(
            "handscroll_patches_ready", priority="prefetch"
        ):
            await asyncio.sleep(0.005)
    for name in ("viewport", "prefetch"):
        assert metric("handscroll_patches_ready", priority=name) == 0
        assert metric("handscroll_patches_admitted", priority=name) == 0
    assert metric("handscroll_ledger_claims") == metric("handscroll_works") == 0


async def test_a_patch_of_another_process_is_adopted_or_taken_over_with_a_line(
    model: Checkpoint, store: Store, canvas: Canvas, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, other, painters = ToyLedger(), object(), ToyPainters()
    engine = engine_of(model, store, painters, ledger)
    theirs, left = patch_key(canvas.id, SEED), patch_key(canvas.id, Patch(0, 0, 0, 2))
    assert await ledger.of(other).claim([theirs, left]) == [True, True]
    adopted = metric("handscroll_patches_adopted_total")
    queued = metric("handscroll_queue_seconds_count", priority="viewport")
    asking = asyncio.create_task(ask(engine, canvas, SEED, Patch(0, 0, 0, 2)))
    while metric("handscroll_queue_seconds_count", priority="viewport") < queued + 2 or metric(
        "handscroll_ledger_claims"
    ):
        await asyncio.sleep(0.005)
    await store.create(theirs, bytes(1024))
    with caplog.at_level(logging.INFO):
        await ledger.of(other).release([theirs, left])
        await asyncio.wait_for(asking, 30)
    assert metric("handscroll_patches_adopted_total") == adopted + 1
    assert list(painters.drawn) == [Patch(0, 0, 0, 2)]
    [line] = [one for one in caplog.records if one.message == "taken over"]
    assert line.__dict__["patch"] == left and "gave it up or is gone" in line.__dict__["reason"]


async def test_shared_patches_are_steps_of_the_first_who_asks_and_others_are_linked(
    model: Checkpoint, store: Store, canvas: Canvas, sent: InMemorySpanExporter
) -> None:
    engine = engine_of(model, store, painters := ToyPainters())
    painters.gate.clear()

    async def asked(name: str) -> None:
        with trace.span(name):
            await ask(engine, canvas, FILL)

    first_asks = asyncio.create_task(asked("first"))
    while len(engine) < 9:
        await asyncio.sleep(0.01)
    second_asks = asyncio.create_task(asked("second"))
    while metric("handscroll_patches_admitted", priority="viewport") < 18:
        await asyncio.sleep(0.01)
    painters.gate.set()
    await asyncio.gather(first_asks, second_asks)
    spans = sent.get_finished_spans()
    [first] = [one for one in spans if one.name == "first"]
    [second] = [one for one in spans if one.name == "second"]
    patches = [one for one in spans if one.name == "patch"]
    assert len(patches) == 9
    assert {trace_of(one) for one in spans} == {trace_of(first), trace_of(second)}
    assert {trace_of(one) for one in patches} == {trace_of(first)}
    [fill] = [one for one in patches if parent_of(one) == span_of(first)]
    assert [link.context.span_id for link in second.links] == [span_of(fill)]
    assert not first.links
    # A seed is a step of one of the two bridges that it stands under, and linked to the other.
    seeds = {span_of(one) for one in patches} - {span_of(fill)}
    linked = [link.context.span_id for one in patches for link in one.links]
    assert linked and set(linked) <= seeds


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def span_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent else 0
