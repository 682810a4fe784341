"""The gateway as a process: it starts alone, and stops in time."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from handscroll.geometry import Tile
from tests.gateway.conftest import Stack, path, soon
from tests.gateway.test_events import events, view

DRAIN_S = 3


@pytest.fixture
def process(stack: Stack) -> Iterator[tuple[subprocess.Popen[bytes], Stack]]:
    """A gateway in a process of its own, before the tiler of the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "HANDSCROLL_GATEWAY_TILER": stack.settings.tiler,
        "HANDSCROLL_STORE_URL": stack.settings.store.url,
        "HANDSCROLL_GATEWAY_LOG_LEVEL": "WARNING",
    }
    flags = ["--port", str(port), "--drain-s", str(DRAIN_S)]
    command = [sys.executable, "-m", "gateway", *flags]
    with subprocess.Popen(command, env=environment) as running:
        there = replace(stack, url=f"http://127.0.0.1:{port}")
        try:
            soon(lambda: _answers(there), "the gateway starts")
            yield running, there
        finally:
            running.kill()


def _answers(stack: Stack) -> bool:
    try:
        return stack.get("/healthz").status_code == 200
    except httpx.ConnectError:
        return False


def test_streams_say_goodbye(process: tuple[subprocess.Popen[bytes], Stack]) -> None:
    running, stack = process
    with stack.closed_gate(), stack.client() as client:
        url = view(stack.canvas(), Tile(0, 0, 0), Tile(0, 0, 1))
        with client.stream("GET", url) as answer:
            soon(lambda: stack.tiler.waiting == 1, "the tiler is at it")
            running.send_signal(signal.SIGTERM)
            ((name, content),) = events(answer)
        assert (name, content["status"], content["retry_after"]) == ("problem", 503, 1)
        began = time.monotonic()
        running.wait(DRAIN_S + 3)
        assert time.monotonic() - began < DRAIN_S
        soon(lambda: stack.tiler.cancelled == 1, "the tiler hears of it")


def test_a_tile_under_way_still_comes(process: tuple[subprocess.Popen[bytes], Stack]) -> None:
    running, stack = process
    with ThreadPoolExecutor() as pool:
        with stack.closed_gate():
            waiting = pool.submit(stack.get, path(stack.canvas(), Tile(0, 0, 0)))
            soon(lambda: stack.tiler.waiting == 1, "the tiler is at it")
            running.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        assert waiting.result().status_code == 200
    running.wait(DRAIN_S + 3)


def test_whoever_waits_too_long_is_told(process: tuple[subprocess.Popen[bytes], Stack]) -> None:
    running, stack = process
    with ThreadPoolExecutor() as pool, stack.closed_gate():
        waiting = pool.submit(stack.get, path(stack.canvas(), Tile(0, 0, 0)))
        soon(lambda: stack.tiler.waiting == 1, "the tiler is at it")
        running.send_signal(signal.SIGTERM)
        answer = waiting.result()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        running.wait(DRAIN_S + 3)
        soon(lambda: stack.tiler.cancelled == 1, "the tiler hears of it")


def test_it_gives_notice_before_it_stops(process: tuple[subprocess.Popen[bytes], Stack]) -> None:
    running, stack = process
    with stack.client() as kept, stack.client() as other:
        assert kept.get("/healthz").status_code == 200
        running.send_signal(signal.SIGTERM)
        soon(lambda: other.get("/healthz").status_code == 503, "checks fail")
        assert other.get("/readyz").json()["detail"] == "this gateway is stopping: turn to another"
        answer = kept.get("/openapi.json")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    running.wait(DRAIN_S + 3)


def test_impossible_settings_are_refused() -> None:
    command = [sys.executable, "-m", "gateway", "--wait-s", "61"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ended.returncode != 0
    assert "wait" in ended.stderr
    assert "Traceback" not in ended.stderr
