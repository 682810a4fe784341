"""Constant load on gateways, and a round-robin front before them, as an Ingress is one."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from time import monotonic
from typing import Any, NamedTuple

import httpx

CHECK_S = 0.2
"""How often the front asks whether a gateway takes requests."""


class Answer(NamedTuple):
    """How a request ended; status 0 stands for a connection that broke."""

    path: str
    began: float
    took_s: float
    status: int
    content: bytes
    retry_after: str

    @property
    def refused(self) -> bool:
        """Whether it is a refusal as it should be: with a time to come back."""
        return self.status == 503 and self.retry_after.isdigit()


class Answers(list[Answer]):
    """All that came."""

    @property
    def statuses(self) -> dict[int, int]:
        """How many of each."""
        return dict(Counter(one.status for one in self))

    @property
    def failed(self) -> list[Answer]:
        """Those that are not what was asked for."""
        return [one for one in self if one.status != 200]

    def wrong(self) -> set[str]:
        """Paths that were answered differently at different times."""
        seen: dict[str, bytes] = {}
        found = (one for one in self if one.status == 200)
        return {one.path for one in found if seen.setdefault(one.path, one.content) != one.content}

    def quantiles(self, status: int = 200) -> dict[str, float]:
        """How long answers of a status took, in milliseconds."""
        times = sorted(1000 * one.took_s for one in self if one.status == status)
        return {
            f"p{share}": round(times[share * len(times) // 100], 1) for share in (50, 99) if times
        }


async def ask(client: httpx.AsyncClient, path: str) -> Answer:
    """One request."""
    began = monotonic()
    try:
        found = await client.get(path)
    except httpx.TransportError:
        return Answer(path, began, monotonic() - began, 0, b"", "")
    after = found.headers.get("Retry-After", "")
    return Answer(path, began, monotonic() - began, found.status_code, found.content, after)


def browser(url: str, **options: object) -> httpx.AsyncClient:
    """A client whose every request is a connection of its own, unless told otherwise."""
    told = {"limits": httpx.Limits(max_keepalive_connections=0)} | options
    return httpx.AsyncClient(base_url=url, timeout=90, verify=False, trust_env=False, **told)  # type: ignore[arg-type]


@asynccontextmanager
async def load(url: str, paths: Iterable[str], rate_hz: float) -> AsyncIterator[Answers]:
    """Requests at a constant rate, however long the answers take; all are waited for at the end."""
    answers, running = Answers(), set[asyncio.Task[None]]()
    stop = asyncio.Event()

    async def one(client: httpx.AsyncClient, path: str) -> None:
        answers.append(await ask(client, path))

    async def run(client: httpx.AsyncClient) -> None:
        began = monotonic()
        for number, path in enumerate(paths):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), began + number / rate_hz - monotonic())
            if stop.is_set():
                return
            task = asyncio.create_task(one(client, path))
            running.add(task)
            task.add_done_callback(running.discard)

    async with browser(url) as client:
        # A group, so that nobody goes on where there is no load any more.
        async with asyncio.TaskGroup() as group:
            group.create_task(run(client))
            try:
                yield answers
            finally:
                stop.set()
        await asyncio.gather(*running)


class Front:
    """Hands each connection to the next gateway that takes requests.

    Attributes:
        url: where it listens.
        turned: how often a connection was refused, and the next gateway tried.
    """

    def __init__(self, gateways: Sequence[tuple[str, int]]) -> None:
        self.url, self.turned = "", 0
        self._gateways, self._healthy = gateways, set(gateways)
        self._next = count()
        self._open = set[asyncio.Task[Any] | None]()  # the loop itself would forget them

    async def check(self) -> None:
        """Ask all gateways again and again."""
        async with httpx.AsyncClient(timeout=2, verify=False, trust_env=False) as client:

            async def look(gateway: tuple[str, int]) -> None:
                host, port = gateway
                try:
                    answer = await client.get(f"http://{host}:{port}/healthz")
                    healthy = answer.status_code == 200
                except httpx.TransportError:
                    healthy = False
                (self._healthy.add if healthy else self._healthy.discard)(gateway)

            while True:
                await asyncio.gather(*map(look, self._gateways))
                await asyncio.sleep(CHECK_S)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        self._open.add(task)
        try:
            back, forth = await self._connect()
            asking = asyncio.create_task(_pump(reader, forth))
            await _pump(back, writer)
            asking.cancel()
            forth.close()
        except OSError:
            pass
        finally:
            writer.close()
            self._open.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in self._gateways:
            known = sorted(self._healthy) or self._gateways
            try:
                return await asyncio.open_connection(*known[next(self._next) % len(known)])
            except ConnectionRefusedError:
                self.turned += 1
        raise ConnectionRefusedError("no gateway takes connections")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more."""
    with suppress(OSError):
        while content := await reader.read(2**16):
            writer.write(content)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def front(gateways: Sequence[tuple[str, int]]) -> AsyncIterator[Front]:
    """A front that listens."""
    made = Front(gateways)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    checking = asyncio.create_task(made.check())
    async with server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made
        checking.cancel()


def report(fault: str, **figures: object) -> None:
    """Say what was measured, in a line."""
    print("\n" + json.dumps({"fault": fault, **figures}))  # noqa: T201


async def until(holds: Callable[[], bool | Awaitable[bool]], what: str, limit_s: float) -> float:
    """Wait for something; how many seconds it took."""
    began = monotonic()
    while True:
        held = holds()
        if held if isinstance(held, bool) else await held:
            return monotonic() - began
        assert monotonic() - began < limit_s, f"not seen in {limit_s:g} s: {what}"
        await asyncio.sleep(0.02)
