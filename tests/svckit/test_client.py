"""The laws of `svckit.client`: what a call carries on, and how its failure is told."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from handscroll.errors import InvalidRequest, OutOfTime, Unavailable
from svckit import logs, server
from svckit.client import calling, connect
from svckit.deadline import within
from svckit.server import started
from svckit.settings import ServiceSettings
from tests.support.stack import free_ports
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


# Spreading calls, and servers that come and go.


class Fleet:
    """Servers on ports of their own, of which each can be stopped and started.

    Attributes:
        calls: served by each.
        peers: the connections that they came over.
    """

    def __init__(self) -> None:
        self.ports = free_ports(2)
        self.calls: Counter[int] = Counter()
        self.peers: set[str] = set()
        self._running = {port: AsyncExitStack() for port in self.ports}

    @property
    def address(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    async def start(self, port: int) -> None:
        async def act(context: Any) -> None:
            self.calls[port] += 1
            self.peers.add(context.peer())
            await asyncio.sleep(0.01)

        told = ServiceSettings(port=port, drain_s=10, notice_s=0.2)
        await self._running[port].enter_async_context(started([Echo(act).servicer()], told))

    async def stop(self, port: int) -> None:
        await self._running[port].aclose()


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    """Two servers."""
    servers = Fleet()
    for port in servers.ports:
        await servers.start(port)
    try:
        yield servers
    finally:
        await asyncio.gather(*map(servers.stop, servers.ports))


@asynccontextmanager
async def load(address: str, callers: int = 8) -> AsyncIterator[Counter[str]]:
    """Constant calls, half of them streams; how they ended. None may fail."""
    ended: Counter[str] = Counter()
    stop = asyncio.Event()
    async with connect(address) as channel:
        line = Line(channel)

        async def call(method: str) -> None:
            while not stop.is_set():
                try:
                    await getattr(line, method)(timeout=30)
                    ended["served"] += 1
                except Exception as error:
                    ended[repr(error)] += 1

        calling = [asyncio.create_task(call(("unary", "stream")[n % 2])) for n in range(callers)]
        yield ended
        stop.set()
        await asyncio.gather(*calling)


async def until_served(ended: Counter[str], more: int) -> None:
    wanted = ended["served"] + more
    async with asyncio.timeout(60):
        while ended["served"] < wanted:
            await asyncio.sleep(0.01)


async def test_calls_are_spread_over_all_addresses() -> None:
    async with fleet() as servers, load(servers.address) as ended:
        await until_served(ended, 100)
        assert min(servers.calls[port] for port in servers.ports) > 25


async def test_rolling_restart_under_load_fails_no_call() -> None:
    async with fleet() as servers, load(servers.address) as ended:
        for port in servers.ports * 2:
            await until_served(ended, 50)
            await servers.stop(port)
            before = servers.calls[port]
            await until_served(ended, 50)
            assert servers.calls[port] == before
            await servers.start(port)
            await until_served(ended, 50)
        assert set(ended) == {"served"}
        async with asyncio.timeout(60):  # whoever is back is called again
            while servers.calls[port] == before:
                await asyncio.sleep(0.01)


async def test_connections_are_renewed_and_no_call_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTION_S", 0.2)
    async with fleet() as servers, load(servers.address) as ended:
        async with asyncio.timeout(60):
            while len(servers.peers) < 10:
                await asyncio.sleep(0.01)
        assert set(ended) == {"served"}


@pytest.mark.parametrize(
    "address", ["10.0.0.1:7001,tiler:7001", "10.0.0.1:7001,", "10.0.0.1:70010,10.0.0.2:1"]
)
def test_several_addresses_are_numbers(address: str) -> None:
    with pytest.raises(InvalidRequest, match="must be an IPv4 one with a port"):
        connect(address)
