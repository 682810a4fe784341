"""The laws of `svckit.server`: what stands around every call, and how a server ends."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from handscroll.errors import InvalidRequest, OutOfTime, Overloaded, Unavailable
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from svckit import logs, server
from svckit.client import calling, connect
from svckit.deadline import remaining_s
from svckit.server import Servicer, serve, started
from svckit.settings import ServiceSettings
from tests.svckit.echo import SERVICE, Echo, Line, nothing, serving

pytestmark = pytest.mark.anyio

METHODS = pytest.mark.parametrize("method", ["unary", "stream"])


def raw(channel: aio.Channel, method: str) -> Any:
    """A method of the echo that takes bytes as they are."""
    if method == "unary":
        return channel.unary_unary(f"/{SERVICE}/ListModels")

    async def call(content: bytes, **options: Any) -> list[bytes]:
        stream: Any = channel.unary_stream(f"/{SERVICE}/GeneratePatches")
        return [message async for message in stream(content, **options)]

    return call


@METHODS
async def test_garbage_is_refused_in_clear_words_and_the_server_lives(method: str) -> None:
    async with serving(Echo()) as line:
        call = raw(line.channel, method)
        with pytest.raises(aio.AioRpcError) as failure:
            await call(b"\xff\xff\xff")
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert failure.value.details() == "these 3 bytes are not the message of this call"
        assert await line.unary() == "echo" and await line.stream() == b"123"


@METHODS
async def test_unknown_exception_says_nothing_of_the_inside_and_is_logged(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(context: Any) -> None:
        raise ZeroDivisionError("the password is hunter2")

    async with serving(Echo(fail)) as line:
        with pytest.raises(aio.AioRpcError) as failure:
            await getattr(line, method)()
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert failure.value.details() == "something went wrong here; it has been logged"
    [record] = [record for record in caplog.records if record.name == server.__name__]
    assert record.exc_info and record.exc_info[0] is ZeroDivisionError
    assert record.__dict__["rpc"].startswith(f"/{SERVICE}/")


async def test_calls_above_the_limit_are_refused_with_a_time_to_wait() -> None:
    gate = asyncio.Event()

    async def wait(context: Any) -> None:
        await gate.wait()

    echo = Echo(wait)
    async with serving(echo, calls=2) as line:
        running = [asyncio.create_task(line.unary()), asyncio.create_task(line.stream())]
        while echo.calls < 2:
            await asyncio.sleep(0.005)
        with pytest.raises(aio.AioRpcError) as failure:
            await line.unary()
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rpc_status.from_call(failure.value)  # type: ignore[arg-type]
        assert status is not None
        names = [detail.TypeName() for detail in status.details]
        assert names == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]
        retry = error_details_pb2.RetryInfo()
        status.details[1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == 1000
        # Checks are answered all the same.
        health: Any = health_pb2_grpc.HealthStub(line.channel)
        await health.Check(health_pb2.HealthCheckRequest())
        gate.set()
        assert await asyncio.gather(*running) == ["echo", b"123"]
        assert await line.unary() == "echo"


@METHODS
async def test_deadline_of_the_caller_is_that_of_the_call(method: str) -> None:
    seen: list[float | None] = []

    async def look(context: Any) -> None:
        seen.append(remaining_s())

    async with serving(Echo(look)) as line:
        await getattr(line, method)(timeout=30)
        await getattr(line, method)()
        await getattr(line, method)(timeout=10**9)
    given, none, endless = seen
    assert given is not None and 25 < given < 31
    own = server.UNARY_S if method == "unary" else server.STREAM_S
    assert none is not None and own - 5 < none < own + 1
    assert endless is not None and server.STREAM_S - 5 < endless < server.STREAM_S + 1


@METHODS
async def test_call_that_takes_too_long_is_ended(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server itself, when the caller set no deadline."""
    ended: list[str] = []

    async def hang(context: Any) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append(method)
            raise

    monkeypatch.setattr(server, "UNARY_S", 0.05)
    monkeypatch.setattr(server, "STREAM_S", 0.05)
    async with serving(Echo(hang)) as line:
        with pytest.raises(OutOfTime), calling("the echo"):
            await getattr(line, method)()
    assert ended == [method]


@METHODS
async def test_caller_who_leaves_ends_the_call(method: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(context: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()

    async with serving(Echo(hang)) as line:
        call = asyncio.create_task(getattr(line, method)())
        await begun.wait()
        call.cancel()
        async with asyncio.timeout(5):
            await ended.wait()
        await asyncio.gather(call, return_exceptions=True)


@pytest.mark.parametrize("given", ["", "abc-1", "x" * 65, "with space"])
async def test_request_has_an_id_of_its_caller_or_a_new_one(given: str) -> None:
    seen: list[str] = []

    async def look(context: Any) -> None:
        seen.append(logs.request_id.get())

    async with serving(Echo(look)) as line:
        metadata = [("x-request-id", given)] if given else None
        await line.unary(metadata=aio.Metadata(*(metadata or ())))
    [found] = seen
    assert found == given if given == "abc-1" else found not in ("", given)


async def test_log_line_is_json_with_the_request() -> None:
    token = logs.request_id.set("abc")
    try:
        record = logging.makeLogRecord(
            {"name": "x", "msg": "drew %d", "args": (3,), "levelname": "INFO", "canvas": "c\n1"}
        )
        line = logs.JsonFormatter("tiler").format(record)
    finally:
        logs.request_id.reset(token)
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "drew 3"
    assert (found["service"], found["request_id"], found["canvas"]) == ("tiler", "abc", "c\n1")


@pytest.mark.parametrize("ours", [True, False])
async def test_message_above_the_limit_is_refused_in_words_that_name_it(ours: bool) -> None:
    """gRPC itself refuses it, before any of our code: RESOURCE_EXHAUSTED, without our details.

    Channels of ours do not even send it; a stranger's does.
    """
    request = canvas_pb.CreateCanvasRequest(prompt="a" * 10_000_000)
    content = request.SerializeToString()
    async with serving(Echo()) as line, aio.insecure_channel(line.address) as stranger:
        call = raw(line.channel if ours else stranger, "unary")
        with pytest.raises(aio.AioRpcError, match="larger than max") as failure:
            await call(content)
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # For a client of ours that is no reason to try again.
        with pytest.raises(InvalidRequest, match="larger than max"), calling("the echo"):
            await call(content)
        assert await line.unary() == "echo"


async def test_health_and_reflection_answer() -> None:
    async with serving(Echo()) as line:
        health: Any = health_pb2_grpc.HealthStub(line.channel)
        for name in ("", SERVICE):
            found = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert found.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc
        stub = reflection.ServerReflectionStub(line.channel)
        make: Any = reflection_pb2.ServerReflectionRequest
        request = make(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([request])):
            names = {service.name for service in answer.list_services_response.service}
            assert {SERVICE, "grpc.health.v1.Health"} <= names


async def test_running_call_ends_while_the_server_drains() -> None:
    gate = asyncio.Event()

    async def wait(context: Any) -> None:
        await gate.wait()

    echo = Echo(wait)
    async with AsyncExitStack() as client:
        async with started([echo.servicer()], ServiceSettings(drain_s=20.0)) as port:
            channel = await client.enter_async_context(connect(f"127.0.0.1:{port}"))
            running = asyncio.create_task(Line(channel).stream())
            while not echo.calls:
                await asyncio.sleep(0.005)
            asyncio.get_running_loop().call_later(0.2, gate.set)
        assert gate.is_set()
        assert await running == b"123"


async def test_call_that_outlasts_the_drain_can_be_tried_again() -> None:
    """It is cancelled by the other side; that is no cancellation of ours."""
    echo = Echo(lambda context: asyncio.sleep(10))
    async with AsyncExitStack() as client, asyncio.timeout(10):
        async with started([echo.servicer()], ServiceSettings(drain_s=0.1)) as port:
            channel = await client.enter_async_context(connect(f"127.0.0.1:{port}"))
            running = asyncio.create_task(Line(channel).stream())
            while not echo.calls:
                await asyncio.sleep(0.005)
        with pytest.raises(Unavailable), calling("the echo"):
            await running


async def test_port_that_is_taken_is_named() -> None:
    async with started([Echo().servicer()], ServiceSettings(drain_s=0)) as port:
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
            async with started([Echo().servicer()], ServiceSettings(port=port, drain_s=0)):
                pass


async def test_serve_ends_on_sigterm_and_closes_what_it_opened() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def build(settings: ServiceSettings) -> AsyncIterator[Sequence[Servicer]]:
        steps.append("open")
        yield [Echo(nothing).servicer()]
        steps.append("close")

    task = asyncio.create_task(serve(ServiceSettings(drain_s=0), build))
    while not steps:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        await task
    assert steps == ["open", "close"]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


async def test_overloaded_is_not_tried_again_by_the_channel() -> None:
    async def fail(context: Any) -> None:
        raise Overloaded("busy", 3)

    echo = Echo(fail)
    async with serving(echo) as line:
        with pytest.raises(Overloaded), calling("the echo"):
            await line.unary()
    assert echo.calls == 1
