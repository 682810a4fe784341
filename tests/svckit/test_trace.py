"""The laws of `svckit.trace`: nothing where nobody asked for it, and else one tree."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from svckit import trace
from svckit.client import calling
from svckit.jobs import Jobs
from tests.svckit.echo import Echo, serving

pytestmark = pytest.mark.anyio

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{CALLER}-01"


@pytest.fixture(autouse=True)
async def untraced() -> AsyncIterator[None]:
    """No trace from elsewhere, and none left behind: all tests run in one context."""
    trace._current.set(trace.Span())
    yield
    trace._current.set(trace.Span())


def named(sent: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in sent.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str]:
    """Of the trace and of the parent."""
    assert span.context is not None
    parent = span.parent.span_id if span.parent else 0
    return f"{span.context.trace_id:032x}", f"{parent:016x}"


def test_nothing_of_opentelemetry_is_imported_where_no_endpoint_is_named() -> None:
    look = (
        "import sys; from svckit import trace; trace.configure('x')\n"
        "trace.receive(sys.argv[1])\n"
        "with trace.span('a', {'b': 1}) as span: span.describe({}); span.link(trace.current())\n"
        "trace.since('c', 0.0, trace.current()); trace.close()\n"
        "assert trace.current().traceparent == sys.argv[1] and not trace.recording()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", look, GIVEN], env=clean, check=True)


def test_missing_package_is_said_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(trace.ENDPOINTS[0], "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    trace.configure("x")
    assert not trace.recording()
    assert "pip install 'handscroll[tracing]'" in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        GIVEN.upper(),
        GIVEN + "-",
        f"ff-{TRACE}-{CALLER}-01",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
    ],
)
async def test_what_is_no_name_of_a_span_is_passed_over(given: str) -> None:
    trace.receive(given)
    assert trace.current().traceparent == ""


async def test_spans_are_steps_of_what_they_are_inside(sent: InMemorySpanExporter) -> None:
    trace.receive(GIVEN)
    began = time.monotonic()
    with trace.span("outer", serves=True) as outer:
        with trace.span("inner", {"patch": "x"}):
            pass
        trace.since("before", began, outer)
        outer.describe({"status": 200}, name="renamed", failed=True)
    found = named(sent)
    assert ids(found["renamed"]) == (TRACE, CALLER)
    of_outer = outer.traceparent.split("-")[2]
    assert ids(found["inner"]) == ids(found["before"]) == (TRACE, of_outer)
    assert dict(found["inner"].attributes or {}) == {"patch": "x"}
    assert not found["renamed"].status.is_ok
    began_ns, outer_ns = found["before"].start_time, found["renamed"].start_time
    assert began_ns is not None and outer_ns is not None and began_ns < outer_ns
    assert trace.current().traceparent == GIVEN


async def test_caller_who_is_not_sampled_is_not_recorded(sent: InMemorySpanExporter) -> None:
    trace.receive(GIVEN[:-2] + "00")
    with trace.span("a") as span:
        assert span.traceparent.startswith(f"00-{TRACE}-") and span.traceparent.endswith("-00")
    assert not sent.get_finished_spans()


async def test_errors_and_ends_are_told(sent: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="no"), trace.span("failed"):
        raise ValueError("no")

    async def hang() -> None:
        with trace.span("left"):
            await asyncio.sleep(60)

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    found = named(sent)
    assert found["failed"].status.description == "ValueError: no"
    assert dict(found["left"].attributes or {}) == {"cancelled": True}


@pytest.mark.parametrize("method", ["unary", "stream"])
async def test_trace_crosses_a_call(sent: InMemorySpanExporter, method: str) -> None:
    seen: list[str] = []

    async def look(context: object) -> None:
        seen.append(trace.current().trace_id)

    async with serving(Echo(look)) as line:
        trace.receive(GIVEN)
        with trace.span("asking") as asking, calling("the echo"):
            await getattr(line, method)()
    assert seen == [TRACE]
    [served] = [span for span in sent.get_finished_spans() if span.name != "asking"]
    assert ids(served) == (TRACE, asking.traceparent.split("-")[2])


async def test_who_joins_a_job_is_linked_to_it_and_the_job_is_a_step_of_the_first(
    sent: InMemorySpanExporter,
) -> None:
    jobs, go = Jobs[str, str]("job", 60.0), asyncio.Event()

    async def work(urged: asyncio.Event) -> str:
        await go.wait()
        return "done"

    async def ask(name: str) -> None:
        with trace.span(name):
            assert await jobs.join("key", work, True) == "done"

    # In one breath, so that the second joins before the job has begun.
    asking = [asyncio.create_task(ask(name)) for name in ("first", "second")]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*asking)
    await jobs.close()
    found = named(sent)
    first, second, job = (found[name] for name in ("first", "second", "job"))
    assert first.context is not None and job.context is not None
    assert ids(job) == (ids(first)[0], f"{first.context.span_id:016x}")
    assert [link.context for link in second.links] == [job.context] and not first.links
    assert ids(second)[0] != ids(job)[0]
