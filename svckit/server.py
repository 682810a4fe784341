"""A gRPC server as every service has it: deadlines, errors, logs, metrics, health, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import (
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

from handscroll.errors import HandscrollError, InvalidRequest, OutOfTime, Overloaded, Unavailable
from svckit import logs, trace
from svckit.access import Access, Door, Rule, check_hidden, client_address
from svckit.deadline import within
from svckit.keyring import Role
from svckit.refusal import Refusal
from svckit.settings import ServiceSettings
from svckit.status import to_status
from svckit.version import VERSION

MAX_MESSAGE_BYTES = 4 * 2**20
UNARY_S, STREAM_S = 60.0, 600.0
"""Deadlines of calls that come without one."""
SPARE_STREAMS = 256
"""What a connection may have open besides the calls we serve, to be refused, or to check us."""
CONNECTION_S = 60.0
"""How old a connection grows: callers look up our name again, and so find whoever is new."""

_CALLS = Counter("handscroll_rpc_calls", "Calls answered", ["rpc", "code"])
_SECONDS = Histogram(
    "handscroll_rpc_seconds",
    "Time to answer a call",
    ["rpc"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
_RUNNING = Gauge("handscroll_rpc_running", "Calls being served", ["rpc"])
_BUILD = Gauge(
    "handscroll_build_info", "What code a process runs; always 1", ["process", "version"]
)
# Checks must be answered however busy the service is.
_UNLIMITED = ("/grpc.health.", "/grpc.reflection.", "/handscroll_api.status.")
_TOO_MANY = Refusal("calls")

_log = logging.getLogger(__name__)
_Settings = TypeVar("_Settings", bound=ServiceSettings)


class Servicer(NamedTuple):
    """An implementation of one service of the protos."""

    descriptor: ServiceDescriptor
    add: Callable[[aio.Server], None]


Build = Callable[[_Settings], AbstractAsyncContextManager[Sequence[Servicer]]]
"""Opens what a service needs, yields its servicers, and closes it again."""


def run(
    name: str,
    settings: type[_Settings],
    build: Build[_Settings],
    rules: Mapping[str, Rule] | None = None,
) -> None:
    """Read the settings, serve until SIGTERM or SIGINT, then let calls end and stop.

    Args:
        name: of the service.
        settings: its class of settings.
        build: see `Build`.
        rules: what each RPC takes of its caller; None for a service behind the doors.
    """
    with process():
        read = settings.read()
        observe(name, read.log_level)
        asyncio.run(serve(read, build, rules))


def observe(name: str, log_level: str) -> None:
    """Have this process log, tell its version and, where the environment asks for it, trace."""
    logs.configure(name, log_level)
    # A second series for each, that nobody asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    _BUILD.labels(name, VERSION).set(1)
    trace.configure(name)


@contextmanager
def process() -> Iterator[None]:
    """All that a process does; what keeps it from that is said in one line.

    The exit code is then 1 if trying again may help, else 2.
    """
    try:
        yield
    except HandscrollError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(1 if isinstance(error, Unavailable) else 2)


async def serve(
    settings: _Settings, build: Build[_Settings], rules: Mapping[str, Rule] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; health says SERVING once everything is open."""
    door = door_of(settings, rules)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if settings.metrics_port is not None:
        start_http_server(settings.metrics_port, settings.host)
    async with build(settings) as servicers, started(servicers, settings, door) as port:
        _log.info("serving", extra={"address": f"{settings.host}:{port}"})
        await stop.wait()
        _log.info("draining", extra={"drain_s": settings.drain_s})


def door_of(settings: ServiceSettings, rules: Mapping[str, Rule] | None) -> Door | None:
    """What a server with these rules asks of callers; None for one behind the doors.

    Raises:
        InvalidRequest: others can reach it, and nothing says what they may.
    """
    if rules is None:
        check_hidden(settings.access, settings.tls, settings.host)
        return None
    return Door(Access(settings.access, settings.host), rules, settings.proxies)


@asynccontextmanager
async def started(
    servicers: Sequence[Servicer], settings: ServiceSettings, door: Door | None = None
) -> AsyncIterator[int]:
    """A server of these services with everything around them; yields its port, then drains it.

    Args:
        servicers: the services.
        settings: where it listens, and how it ends.
        door: what it asks of callers, if anything.

    Raises:
        Unavailable: the address is taken, or is not this machine's.
        InvalidRequest: certificates cannot be read.
    """
    credentials = settings.tls.of_server()
    server = aio.server(
        interceptors=[Guard(settings.calls, door)],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_concurrent_streams", settings.calls + SPARE_STREAMS),
            ("grpc.so_reuseport", 0),
            # Our clients ask more often whether we live than gRPC takes for polite.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.max_connection_age_ms", round(1000 * CONNECTION_S)),
            # No call is cut off: none may take longer.
            ("grpc.max_connection_age_grace_ms", round(1000 * STREAM_S)),
        ],
    )
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = [one.descriptor.full_name for one in servicers]
    for one in servicers:
        one.add(server)
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    address = f"{settings.host}:{settings.port}"
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        pair = ", or its certificate and key are no pair" if credentials else ""
        raise Unavailable(f"cannot listen on {address}{pair}: {error}") from error
    await server.start()
    for name in (*names, health.OVERALL_HEALTH):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        # Calls on their way to a server that stops listening would be lost.
        await checks.enter_graceful_shutdown()
        notice_s, rest_s = settings.leave_s
        await asyncio.sleep(notice_s)
        await server.stop(rest_s)


class Guard(aio.ServerInterceptor):
    """Stands around every call: limits, names, times and logs it, and turns errors into statuses.

    Args:
        calls: how many may run at a time.
        door: what is asked of callers, if anything.
    """

    def __init__(self, calls: int, door: Door | None) -> None:
        self.calls, self.running, self._door = calls, 0, door

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(details)
        asked = self._door is not None and details.method in self._door.rules
        if handler is None or (details.method.startswith(_UNLIMITED) and not asked):
            return handler

        async def unary(message: Any, context: Any) -> Any:
            async with self._call(details.method, context, UNARY_S):
                return await handler.unary_unary(_checked(message), context)

        async def gather(messages: AsyncIterator[Any], context: Any) -> Any:
            async with self._call(details.method, context, UNARY_S):
                checked = (_checked(message) async for message in messages)
                return await handler.stream_unary(checked, context)

        async def stream(message: Any, context: Any) -> AsyncIterator[Any]:
            async with (
                self._call(details.method, context, STREAM_S),
                aclosing(handler.unary_stream(_checked(message), context)) as answers,
            ):
                async for answer in answers:
                    yield answer

        read, write = _careful(handler.request_deserializer), handler.response_serializer
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(gather, read, write)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, read, write)
        return grpc.unary_unary_rpc_method_handler(unary, read, write)

    @asynccontextmanager
    async def _call(self, rpc: str, context: Any, longest_s: float) -> AsyncIterator[None]:
        """What happens around a call, however it ends."""
        metadata = dict(context.invocation_metadata() or ())
        logs.request_id.set(logs.clean_request_id(str(metadata.get("x-request-id", ""))))
        trace.receive(str(metadata.get("traceparent", "")))
        left_s = context.time_remaining()
        seconds = longest_s if left_s is None else min(left_s, STREAM_S)
        began, code = time.monotonic(), "CANCELLED"
        self.running += 1
        _RUNNING.labels(rpc).inc()
        try:
            try:
                if self.running > self.calls and not rpc.startswith(_UNLIMITED):
                    raise _TOO_MANY(Overloaded(f"{self.calls} calls are being served already"))
                with (
                    self._admitted(rpc, metadata, context.peer()),
                    within(seconds),
                    trace.span(rpc[1:], serves=True),
                ):
                    async with asyncio.timeout(seconds):
                        yield
                code = "OK"
            except TimeoutError:
                raise OutOfTime(f"not done in {seconds:.1f} s") from None
        except HandscrollError as error:
            status = to_status(error)
            code = status.code.name
            await context.abort(status.code, status.details, status.trailing_metadata)
        except Exception:
            code = "INTERNAL"
            _log.exception("call failed", extra={"rpc": rpc})
            await context.abort(
                grpc.StatusCode.INTERNAL, "something went wrong here; it has been logged"
            )
        finally:
            self.running -= 1
            _RUNNING.labels(rpc).dec()
            _CALLS.labels(rpc, code).inc()
            _SECONDS.labels(rpc).observe(time.monotonic() - began)
            ms = round(1000 * (time.monotonic() - began), 1)
            _log.debug("call", extra={"rpc": rpc, "code": code, "ms": ms})

    def _admitted(
        self, rpc: str, metadata: Mapping[str, Any], peer: str
    ) -> AbstractContextManager[None]:
        """Where a call runs whose caller may make it."""
        if self._door is None:
            return nullcontext()
        access, rules, proxies = self._door
        forwarded = str(metadata.get("x-forwarded-for", ""))
        address = client_address(_host(peer), forwarded, proxies)
        # What nobody thought of is not for everybody.
        rule = rules.get(rpc, Rule(Role.ADMIN))
        return access.admitted(rule, metadata.get("authorization"), address)


def _host(peer: str) -> str:
    """The address in what gRPC calls a peer, such as ``ipv4:10.0.0.1:1234``."""
    return unquote(peer.partition(":")[2].rpartition(":")[0])


def _careful(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Let garbage through as an error, for `_checked` to raise where it becomes a status."""

    def read(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError:
            return InvalidRequest(f"these {len(content)} bytes are not the message of this call")

    return read


def _checked(message: Any) -> Any:
    if isinstance(message, HandscrollError):
        raise message
    return message
