"""What comes by gRPC from people who mean no good."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import psutil
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from handscroll.errors import InvalidRequest, Overloaded
from svckit.client import calling
from svckit.logs import JsonFormatter
from svckit.server import MAX_MESSAGE_BYTES, SPARE_STREAMS
from svckit.status import LONGEST_MESSAGE_BYTES, from_call, to_status
from tests.gateway.conftest import Loop
from tests.svckit.echo import SERVICE, Echo, serving

CALL = f"/{SERVICE}/ListModels"
CALLS = 8
# What a message of the largest size and its copies take, many times over.
ROOM_BYTES = 32 * MAX_MESSAGE_BYTES
# Our own side of the line holds nothing back.
RECKLESS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 2**30),
    ("grpc.absolute_max_metadata_size", 2**30),
]


def bytes_channel(address: str) -> Any:
    """A channel whose calls take bytes, as no serializer is named."""
    return aio.insecure_channel(address, options=RECKLESS)


async def code_of(call: Any) -> grpc.StatusCode:
    with suppress(aio.AioRpcError):
        await call
    return await call.code()


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_message_that_unpacks_to_much_is_refused(loop: Loop, packing: grpc.Compression) -> None:
    """The limit holds for what comes out, and before all of it is there."""
    bomb = b"\x0a" + bytes(2 * ROOM_BYTES)

    async def send() -> None:
        async with serving(Echo()) as line, bytes_channel(line.address) as channel:
            before = psutil.Process().memory_info().rss
            call = channel.unary_unary(CALL)(bomb, compression=packing, timeout=60)
            assert await code_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert psutil.Process().memory_info().rss - before < ROOM_BYTES
            fits = channel.unary_unary(CALL)(b"", compression=packing, timeout=60)
            assert await code_of(fits) is grpc.StatusCode.OK

    loop.run(send())


@pytest.mark.parametrize(
    "metadata",
    [
        (("x-big", "a" * 2**17),),
        (("authorization", f"Bearer {'a' * 2**17}"),),
        tuple((f"x-{number}", "a" * 100) for number in range(400)),
        (("x-big-bin", b"\x00" * 2**17),),
    ],
    ids=["value", "key", "many", "binary"],
)
def test_metadata_has_a_bound(loop: Loop, metadata: Any) -> None:
    async def send() -> None:
        echo = Echo()
        async with serving(echo) as line, bytes_channel(line.address) as channel:
            call = channel.unary_unary(CALL)(b"", metadata=metadata, timeout=60)
            assert await code_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert not echo.calls
            assert await line.unary(timeout=60) == "echo"

    loop.run(send())


def test_connection_opens_no_more_streams_than_it_may(loop: Loop) -> None:
    """Checks are no calls, and so have only this limit."""
    may = CALLS + SPARE_STREAMS

    async def flood() -> None:
        async with serving(Echo(), calls=CALLS) as line:
            async with aio.insecure_channel(line.address) as channel:
                watch: Any = health_pb2_grpc.HealthStub(channel).Watch  # type: ignore[attr-defined]
                opened = [watch(health_pb2.HealthCheckRequest()) for _ in range(may + 40)]
                first = [asyncio.ensure_future(one.read()) for one in opened]
                done: set[Any] = set()
                while len(done) < may:
                    done, _ = await asyncio.wait(first, timeout=1)
                await asyncio.sleep(0.5)
                assert sum(one.done() for one in first) == may
                # Others come through meanwhile.
                assert await line.unary(timeout=60) == "echo"
                for call in opened:
                    call.cancel()
                await asyncio.gather(*first, return_exceptions=True)

    loop.run(flood())


@pytest.mark.parametrize("letter", ["x", "é", "😀", "\x00", "%", "\ud800"])
def test_refusal_arrives_however_much_it_quotes(loop: Loop, letter: str) -> None:
    """It stands in headers, which have a bound too: beyond it gRPC says something else."""

    async def refuse(context: Any) -> None:
        raise InvalidRequest(f"not {letter * 50_000}")

    async def call() -> str:
        async with serving(Echo(refuse)) as line:
            with pytest.raises(InvalidRequest) as refused, calling("the echo"):
                await line.unary(timeout=60)
        return str(refused.value)

    told = loop.run(call())
    assert told.startswith("not ") and len(told.encode()) <= LONGEST_MESSAGE_BYTES


def test_refusal_that_grpc_has_written_over_is_what_grpc_says() -> None:
    ours = to_status(InvalidRequest("too long"))
    failure = aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        aio.Metadata(),
        aio.Metadata(*(ours.trailing_metadata or ())),
        "received metadata size exceeds limit",
    )
    assert isinstance(from_call(failure, "the echo"), Overloaded)


def test_log_line_is_one_whatever_a_caller_is_called(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "svckit.server")

    async def call() -> None:
        async with serving(Echo()) as line:
            for name in ("a b", "x" * 65, "{}", '","level":"ERROR'):
                await line.unary(metadata=(("x-request-id", name), ("traceparent", name)))

    loop.run(call())
    lines = [JsonFormatter("echo").format(one) for one in caplog.records]
    assert lines and all(one.isprintable() for one in lines)
