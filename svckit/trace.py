"""Traces: where the time of one request went, across processes, by OpenTelemetry.

The trace that a request belongs to crosses processes as a W3C `traceparent`: in HTTP headers, in
gRPC metadata, and in calls of Ray actors. Every process passes it on and logs its id. A process
that is told where spans go, by OTEL_EXPORTER_OTLP_ENDPOINT, records its own as well, sampled as the
other OTEL_* variables say; any other imports nothing of OpenTelemetry, and a span costs it a
function call.

The current span is kept here and not by OpenTelemetry, which logs an error for each stream that its
client left: the event loop closes those in a context of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING

from svckit.version import VERSION

if TYPE_CHECKING:
    from opentelemetry import context as otel_context
    from opentelemetry import trace as otel
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Either says where spans are sent; without both nothing is recorded."""

Attributes = Mapping[str, str | int | float | bool]

_TRACEPARENT = re.compile(
    r"00-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})", re.ASCII
)
_log = logging.getLogger(__name__)
_provider: TracerProvider | None = None
_tracer: otel.Tracer | None = None


class Span:
    """A step of a request, in this process or in the one that asked.

    Attributes:
        traceparent: names it to other processes; empty outside of any trace.
        recorded: where it is written down; None if it is not, or not here.
    """

    __slots__ = ("recorded", "traceparent")

    def __init__(self, traceparent: str = "", recorded: otel.Span | None = None) -> None:
        self.traceparent, self.recorded = traceparent, recorded

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; empty outside of any trace."""
        return self.traceparent[3:35]

    def link(self, other: Span) -> None:
        """Say that this one waited for another, which somebody else had begun."""
        if self.recorded is not None and other.recorded is not None:
            self.recorded.add_link(other.recorded.get_span_context())

    def describe(
        self, attributes: Attributes, *, name: str | None = None, failed: bool = False
    ) -> None:
        """Say what was learned of it on the way."""
        if self.recorded is not None:
            self.recorded.set_attributes(attributes)
            if name is not None:
                self.recorded.update_name(name)
            if failed:
                from opentelemetry.trace import StatusCode

                self.recorded.set_status(StatusCode.ERROR)


_NO_SPAN = Span()
_NOTHING = nullcontext(_NO_SPAN)
_current: ContextVar[Span] = ContextVar("span", default=_NO_SPAN)


def configure(service: str) -> None:
    """Record the spans of this process, if the environment says where they go."""
    global _provider, _tracer
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        _log.warning(
            "no traces are recorded: pip install 'handscroll[tracing]'",
            extra={"reason": str(error)},
        )
        return
    resource = {
        "service.name": service,
        "service.namespace": "handscroll",
        "service.version": VERSION,
    }
    _provider = TracerProvider(resource=Resource.create(resource))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("handscroll")


def recording() -> bool:
    """Whether spans of this process are recorded."""
    return _tracer is not None


def close() -> None:
    """Send what is recorded; this blocks. A process that ends by itself does it unasked."""
    if _provider is not None:
        _provider.shutdown()


def current() -> Span:
    """The span that we are in."""
    return _current.get()


def receive(traceparent: str) -> None:
    """Go on with the trace of whoever asked, if this is the name of a span."""
    if _TRACEPARENT.fullmatch(traceparent):
        _current.set(Span(traceparent))


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    parent: Span | None = None,
    serves: bool = False,
) -> AbstractContextManager[Span]:
    """A step of what is going on; it ends with the context.

    Args:
        name: of the kind of step, one of few.
        attributes: what tells this one from others of its kind.
        parent: what it is a step of; the current span unless given.
        serves: whether it answers another process.
    """
    if _tracer is None:
        return _NOTHING
    return _recorded(_tracer, name, attributes, parent or current(), serves)


def since(name: str, began_s: float, parent: Span) -> None:
    """A step of ``parent`` that began at a time of `time.monotonic` and ends now."""
    if _tracer is not None:
        now_ns, took_s = time.time_ns(), time.monotonic() - began_s
        start_ns = now_ns - round(took_s * 1e9)
        _tracer.start_span(name, _context(parent), start_time=start_ns).end(now_ns)


def settings() -> dict[str, str]:
    """What the environment says about traces, for processes that are not our children."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}


def detached(span: Span | None = None) -> Context:
    """A context for work that outlives who began it: in the trace, and nothing else.

    Args:
        span: that the work belongs to; the current one unless given.
    """
    context = Context()
    context.run(_current.set, span or current())
    return context


@contextmanager
def _recorded(
    tracer: otel.Tracer, name: str, attributes: Attributes | None, parent: Span, serves: bool
) -> Iterator[Span]:
    from opentelemetry.trace import SpanKind, StatusCode

    started = tracer.start_span(
        name,
        _context(parent),
        SpanKind.SERVER if serves else SpanKind.INTERNAL,
        attributes,
    )
    ids = started.get_span_context()
    traceparent = f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags & 1:02x}"
    token = _current.set(Span(traceparent, started))
    try:
        yield _current.get()
    except asyncio.CancelledError:
        started.set_attribute("cancelled", True)
        raise
    except Exception as error:
        started.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
        raise
    finally:
        started.end()
        # A stream that its client left is closed by the event loop, in a context of its own.
        with suppress(ValueError):
            _current.reset(token)


def _context(parent: Span) -> otel_context.Context:
    """What OpenTelemetry takes a parent from."""
    from opentelemetry.context import Context as OtelContext
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    if parent.recorded is not None:
        return set_span_in_context(parent.recorded, OtelContext())
    ids = _TRACEPARENT.fullmatch(parent.traceparent)
    if ids is None:
        return OtelContext()
    trace_id, span_id, flags = (int(part, 16) for part in ids.groups())
    remote = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & 1))
    return set_span_in_context(NonRecordingSpan(remote), OtelContext())
