"""HTTP/1.1 as uvicorn speaks it, and bounds that it has not, for clients that mean no good."""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 2**16
"""Of a request's URL and headers."""
HEAD_S = 10.0
"""How long these may take to come, from their first byte or from when somebody connected."""
STUCK_S = 30.0
"""How long a client may take nothing of what it is sent, where the system can tell (Linux)."""


class Bounded(HttpToolsProtocol):
    """A connection that is given up when no request comes of it in time.

    Left alone, a client that sends a byte now and then would hold a connection for ever, and one
    whose headers do not end, all memory.
    """

    _in_head = False
    _head_bytes = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * STUCK_S)
            )
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """They have gone."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come; between requests they stop uvicorn's own clock."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"URL and headers may have {MAX_HEAD_BYTES} bytes.")
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """All headers are there."""
        self._in_head = False
        self._wait_no_more()
        head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if head_bytes > MAX_HEAD_BYTES:
            raise ValueError(f"{head_bytes} bytes of URL and headers")  # uvicorn answers 400
        super().on_headers_complete()

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
