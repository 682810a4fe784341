"""A proxy before an S3 server, for faults between a store and whoever uses it.

It takes one request to a connection, so that each can have a fault of its own, and sees what the
server said even where the client does not come to know.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from svckit.store import S3Settings
from tests.support.history import History, Outcome
from tests.support.seaweed import BUCKET, S3

SLOW_S = 5.0
_PROBES = "probe/"


class Fault(Enum):
    """What may happen to a request."""

    SLOW = "the answer comes 5 s late"
    CUT = "the answer breaks off in its middle"
    REFUSED = "the connection is closed before anything is read"
    LOST = "the request is obeyed, and the answer never comes"


class Request(NamedTuple):
    """One request: its method, the key under the store's URL, and what is sent."""

    method: str
    key: str
    body: bytes

    @property
    def writes(self) -> bool:
        """Whether it puts a value."""
        return self.method == "PUT"


Policy = Callable[[Request], Fault | None]


class FaultProxy:
    """The proxy.

    Args:
        target: host and port of the server.
        prefix: of the keys of the store that is watched.

    Attributes:
        policy: decides what happens to each request.
        history: every put and read of the store, as the server answered them.
        faults: how many requests had each.
        port: where it listens.
    """

    def __init__(self, target: tuple[str, int], prefix: str) -> None:
        self.policy: Policy = lambda request: None
        self.history, self.faults = History(), Counter[Fault]()
        self.port = 0
        self._open = set[asyncio.Task[Any] | None]()  # the loop itself would forget them
        self._target, self._prefix = target, f"/{BUCKET}/{prefix}/"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection with one request."""
        task = asyncio.current_task()
        self._open.add(task)
        try:
            await self._relay(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._open.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = monotonic()
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        lengths = [
            int(field.split(b":")[1])
            for field in fields.split(b"\r\n")
            if field.lower().startswith(b"content-length:")
        ]
        method, path, _ = line.decode().split(" ")
        body = await reader.readexactly(lengths[0] if lengths else 0)
        key = unquote(urlsplit(path).path).removeprefix(self._prefix)
        request = Request(method, key, body)
        fault = self.policy(request)
        if fault is not None:
            self.faults[fault] += 1
        if fault is Fault.REFUSED:
            return
        if fault is Fault.SLOW:
            await asyncio.sleep(SLOW_S)
        back, forth = await asyncio.open_connection(*self._target)
        try:
            forth.write(line + b"\r\nConnection: close\r\n" + fields + body)
            answer = await back.read()
        finally:
            forth.close()
        self._note(request, answer, began)
        if fault is Fault.LOST:
            return
        writer.write(answer[: len(answer) // 2] if fault is Fault.CUT else answer)
        await writer.drain()

    def _note(self, request: Request, answer: bytes, began: float) -> None:
        """What the server did, if it is a put or a read of one value."""
        head, _, content = answer.partition(b"\r\n\r\n")
        code = int(head.split(b" ")[1])
        if request.key.startswith((_PROBES, "/")) or not request.key:
            return  # probes delete what they wrote; a path of the bucket alone is a listing
        if request.method == "GET" and code in (200, 404):
            self.history.read(request.key, content if code == 200 else None, began)
        elif request.writes:
            outcomes = {200: Outcome.WON, 409: Outcome.REFUSED, 412: Outcome.REFUSED}
            outcome = outcomes.get(code, Outcome.UNKNOWN)
            self.history.put(request.key, request.body, began, outcome)


@asynccontextmanager
async def faulty(s3: S3, prefix: str) -> AsyncIterator[tuple[FaultProxy, S3]]:
    """A proxy before a server, and the store under a prefix of its bucket as it is seen there."""
    assert s3.settings.endpoint is not None
    at = urlsplit(s3.settings.endpoint)
    assert at.hostname is not None and at.port is not None
    proxy = FaultProxy((at.hostname, at.port), prefix)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        proxy.port = server.sockets[0].getsockname()[1]
        settings: S3Settings = s3.settings.model_copy(
            update={"endpoint": f"http://127.0.0.1:{proxy.port}"}
        )
        yield proxy, S3(f"{s3.url}/{prefix}", settings)
