"""Talking to a gateway by bytes, as no client of HTTP would."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from tests.gateway.conftest import Stack

# A machine may be busy with other things: limits are for what never comes.
PATIENCE_S = 60.0


def dial(stack: Stack) -> socket.socket:
    """A connection to the gateway."""
    port = urlsplit(stack.url).port
    assert port is not None
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def told(line: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    heard = bytearray()
    try:
        while piece := line.recv(2**16):
            heard += piece
    except ConnectionError:
        pass
    return bytes(heard)


def say(stack: Stack, request: bytes) -> bytes:
    """What is answered to some bytes, whether all of them were taken or not."""
    with dial(stack) as line:
        try:
            line.sendall(request)
        except ConnectionError:
            pass
        return told(line)


def get(path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    """A request, and the wish to hang up after it."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def status(answer: bytes) -> int:
    """The status of an answer; 0 where there was none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def drip(line: socket.socket, piece: bytes, limit_s: float, pause_s: float = 0.05) -> float:
    """Send a piece again and again; after how many seconds the other side hung up."""
    began = time.monotonic()
    line.settimeout(pause_s)
    while (passed_s := time.monotonic() - began) < limit_s:
        try:
            line.sendall(piece)
            if line.recv(2**16) == b"":
                return passed_s
        except TimeoutError:
            continue
        except ConnectionError:
            return passed_s
    return passed_s
