"""The laws of `svckit.client`: what a call carries on, and how its failure is told."""

import asyncio
import socket
from typing import Any

import pytest

from handscroll.errors import OutOfTime, Unavailable
from svckit import logs
from svckit.client import calling, connect
from svckit.deadline import within
from svckit.server import started
from svckit.settings import ServiceSettings
from tests.svckit.echo import Echo, Line, serving

pytestmark = pytest.mark.anyio

METHODS = pytest.mark.parametrize("method", ["unary", "stream"])


@METHODS
async def test_deadline_is_passed_on(method: str) -> None:
    """The nearer of that of the request being served and that of the call."""
    seen: list[float] = []

    async def look(context: Any) -> None:
        seen.append(context.time_remaining())

    async with serving(Echo(look)) as line:
        call = getattr(line, method)
        with within(20):
            await call()
            await call(timeout=5)
            await call(timeout=50)
    assert [round(one / 5) for one in seen] == [4, 1, 4]


@METHODS
async def test_deadline_that_passed_is_told_as_such(method: str) -> None:
    """By whichever side notices first."""
    async with serving(Echo(lambda context: asyncio.sleep(10))) as line:
        with pytest.raises(OutOfTime, match="the echo did not answer in time|not done in 0"):
            with within(0.05), calling("the echo"):
                await getattr(line, method)()


@METHODS
async def test_request_id_is_passed_on(method: str) -> None:
    seen: list[str | None] = []

    async def look(context: Any) -> None:
        seen.append(dict(context.invocation_metadata()).get("x-request-id"))

    async with serving(Echo(look)) as line:
        await getattr(line, method)()
        token = logs.request_id.set("abc")
        await getattr(line, method)()
        logs.request_id.reset(token)
    assert seen == [None, "abc"]


async def test_service_that_is_not_there_yet_is_waited_for() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with connect(f"127.0.0.1:{port}") as channel:
        asked = asyncio.create_task(Line(channel).unary())
        await asyncio.sleep(0.3)
        assert not asked.done()
        async with started([Echo().servicer()], ServiceSettings(port=port, drain_s=0)):
            async with asyncio.timeout(10):
                assert await asked == "echo"


async def test_service_that_never_comes_is_not_waited_for_longer_than_there_is_time() -> None:
    async with connect("127.0.0.1:1") as channel:
        with pytest.raises(OutOfTime), within(0.3), calling("the echo"):
            await Line(channel).unary()


async def test_call_that_found_nobody_is_tried_again() -> None:
    async def fail_twice(context: Any) -> None:
        if echo.calls < 3:
            raise Unavailable("not yet")

    echo = Echo(fail_twice)
    async with serving(echo) as line:
        assert await line.unary() == "echo"
    assert echo.calls == 3
