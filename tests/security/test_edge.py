"""What comes by HTTP from people who mean no good."""

import json
import logging
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.protocol import HEAD_S, MAX_HEAD_BYTES
from handscroll.errors import InvalidRequest
from handscroll.geometry import Tile
from launcher.keys import list_keys
from svckit.keyring import changed_keys, new_key
from svckit.logs import JsonFormatter
from tests.gateway.conftest import Launch, Stack, path, soon
from tests.gateway.test_access import bearing, keyed
from tests.security.raw import dial, drip, get, say, status, told
from tests.support.stack import eventually

SLOW_S = 0.5
ENOUGH_S = 20 * SLOW_S


# Who we are is not for a request to say.


SAID: list[tuple[str, tuple[str, ...], bool]] = [
    ("maps.example", (), True),
    ("evil.example", (), False),
    ("evil.example", ("Host: maps.example",), False),
    ("maps.example", ("Host: evil.example",), False),
    ("maps.example", ("Host: maps.example",), False),
    ("maps.example, evil.example", (), False),
    ("maps.example/@evil.example", (), False),
    ("127.0.0.1@evil.example", (), False),
    ('"><script>', (), False),
    ("x" * 60_000, (), False),
    ("maps.example", ("X-Forwarded-Host: evil.example", "Forwarded: host=evil.example"), True),
    ("maps.example", ("X-Forwarded-Proto: evil", "X-Forwarded-Prefix: /evil"), True),
    ("maps.example", ("X-Original-URL: /evil", "X-Rewrite-URL: /evil"), True),
]


def test_no_request_says_where_we_are(launch: Launch) -> None:
    stack = launch(trusted_hosts="maps.example")
    where = f"/canvases/{stack.canvas().id}/tilejson.json"
    for host, headers, served in SAID:
        for target in (where, f"http://evil.example{where}"):
            answer = say(stack, get(target, *headers, host=host))
            assert status(answer) == (200 if served else 400), (host[:80], headers, answer)
            assert (b'"http://maps.example/tiles/' in answer) is served
            assert b"evil.example/tiles" not in answer


def test_where_we_are_is_what_we_were_told(launch: Launch) -> None:
    stack = launch(public_url="https://maps.example/scroll", trusted_hosts="*")
    where = f"/canvases/{stack.canvas().id}/tilejson.json"
    answer = say(stack, get(where, "X-Forwarded-Proto: http", host="evil.example"))
    assert b'"https://maps.example/scroll/tiles/' in answer and b"evil" not in answer


def test_requests_are_not_smuggled(stack: Stack) -> None:
    hidden = get("/nothing").decode()
    for headers in (
        f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: +1",
        "Content-Length: 1_0",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "X: y\n Transfer-Encoding: chunked",
    ):
        head = f"POST /canvases HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n\r\n"
        answer = say(stack, f"{head}0\r\n\r\n{hidden}".encode())
        assert status(answer) == 400, (headers, answer)
        assert answer.count(b"HTTP/1.1 ") == 1, headers


# Too much, too slowly.


def test_head_has_a_bound_and_below_it_is_served(stack: Stack) -> None:
    fits, over = MAX_HEAD_BYTES - 1000, MAX_HEAD_BYTES + 1
    assert status(say(stack, get("/healthz", f"X-Big: {'x' * fits}"))) == 200
    assert status(say(stack, get(f"/healthz?{'x' * (fits - 1000)}"))) == 200
    for request in (
        get("/healthz", f"X-Big: {'x' * over}"),
        get("/healthz", *["a: b"] * (over // 2)),
        get(f"/healthz?{'x' * over}"),
        get("/" + "x" * over),
    ):
        assert status(say(stack, request)) == 400, request[:40]
    # One that does not end is not waited for.
    endless = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Big: "
    assert b"may have 65536 bytes" in say(stack, endless + b"x" * over)
    began = time.monotonic()
    say(stack, endless + b"x" * 2**25)
    assert time.monotonic() - began < HEAD_S / 2
    with stack.client() as client:  # a large body is not a large head
        told = client.post("/canvases", content=b" " * 2**17, headers={"Content-Type": "x/y"})
        assert told.status_code == 415


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        (b"G", b""),
        # Between requests as before the first.
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"\r\n"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n", b"x"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / HTTP/1.1\r\n", b"a: b\r\n"),
    ],
)
def test_connection_without_a_request_is_given_up(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, first: bytes, then: bytes
) -> None:
    monkeypatch.setattr("gateway.protocol.HEAD_S", SLOW_S)
    with dial(stack) as line:
        line.sendall(first)
        assert SLOW_S / 2 < drip(line, then, ENOUGH_S) < ENOUGH_S
    assert stack.get("/healthz").status_code == 200


def test_whoever_waits_for_an_answer_is_not_given_up(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocol.HEAD_S", SLOW_S)
    where = path(stack.canvas(), Tile(0, 0, 0))
    with dial(stack) as line, stack.closed_gate():
        line.sendall(get(where))
        soon(lambda: stack.tiler.waiting == 1, "the tiler is at it")
        time.sleep(3 * SLOW_S)
        assert stack.tiler.waiting == 1
    with dial(stack) as line:
        line.sendall(get(where))
        assert status(told(line)) == 200


def test_body_that_does_not_come_is_not_waited_for(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.bodies.BODY_S", SLOW_S)
    head = (
        b"POST /canvases HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 60000\r\n\r\n"
    )
    with dial(stack) as line:
        line.sendall(head + b"{")
        answer = told(line)
    assert status(answer) == 408 and b"within 0.5 s" in answer and b"connection: close" in answer
    with dial(stack) as line:
        line.sendall(head + b"{")
        assert drip(line, b" ", ENOUGH_S) < ENOUGH_S
    # To leave is not a mistake of ours.
    with dial(stack) as line:
        line.sendall(head + b"{")
    assert stack.get("/healthz").status_code == 200
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone can tell")
def test_client_that_takes_nothing_is_given_up(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocol.STUCK_S", SLOW_S)
    stack = launch()
    canvas, tile = stack.canvas(), Tile(0, 0, 0)
    stack.keep(canvas, tile, bytes(2**23))  # more than sockets hold
    with dial(stack) as line:
        line.sendall(get(path(canvas, tile)))
        ours = line.getsockname()[1]

        def held() -> bool:
            """Whether the gateway, which runs in this process, has its side still open."""
            lines = psutil.Process().net_connections("tcp")
            return any(
                one.raddr and one.raddr.port == ours and one.status == psutil.CONN_ESTABLISHED
                for one in lines
            )

        eventually(held, "the gateway takes it")
        eventually(lambda: not held(), "the gateway gives it up")
        assert len(told(line)) < 2**23


# Parsers that have been hurt elsewhere.


def test_many_ranges_cost_nothing(stack: Stack) -> None:
    """CVE-2025-62727: ranges were merged in quadratic time."""
    spans = ",".join(f"{at}-{at}" for at in range(0, 20_000, 2))[: MAX_HEAD_BYTES - 1000]
    began = time.monotonic()
    answer = say(stack, get("/static/viewer.css", f"Range: bytes={spans}"))
    assert status(answer) in (200, 206, 400, 416) and time.monotonic() - began < 5
    where = path(stack.canvas(), Tile(0, 0, 0))
    whole = stack.get(where)
    for given in ("bytes=0-0", "bytes=-1", "bytes=9-1", "lines=1-2"):
        part = stack.get(where, headers={"Range": given})
        assert (part.status_code, part.content) == (200, whole.content)


@pytest.mark.parametrize(
    "header",
    [
        f"Cookie: {'a=b; ' * 10_000}",
        f"Cookie: {'=' * 50_000}",
        f"Cookie: handscroll_owner={'%' * 50_000}",
        f"If-None-Match: {',' * 50_000}",
        f"X-Forwarded-For: {',' * 50_000}",
        f"Authorization: Bearer{' ' * 50_000}",
        f"Accept-Encoding: {'gzip,' * 10_000}",
        f"traceparent: 00-{'0' * 50_000}",
        f"Content-Type: application/json;{'a=b;' * 10_000}",
    ],
)
def test_long_headers_are_read_in_no_time(stack: Stack, header: str) -> None:
    where = path(stack.canvas(), Tile(0, 0, 0))
    began = time.monotonic()
    for target in ("/worlds", where, "/canvases"):
        assert 0 < status(say(stack, get(target, header))) < 500
    assert time.monotonic() - began < 5


# What is written down.


def test_request_is_one_line_in_the_log_whatever_it_says(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gateway")
    forged = '\n{"level": "ERROR"}\r\x1b[31m\u2028\x85'
    for name in ("X-Request-Id", "traceparent", "User-Agent"):
        say(stack, get("/worlds", f'{name}: \x85{{"level": "ERROR"}}\xff'))
    with httpx.Client(trust_env=False) as client:
        client.get(f"{stack.url}/%0a%7b%22level%22%3a%22ERROR%22%7d%1b[31m%e2%80%a8")
    with stack.client() as client:
        client.post("/canvases", json={"world": forged, "prompt": forged})
    lines = [JsonFormatter("gateway").format(one) for one in caplog.records]
    assert lines
    for line in lines:
        assert line.isascii() and line.isprintable()
        assert isinstance(json.loads(line), dict)
    assert b"x-request-id: z" not in say(stack, get("/worlds", "X-Request-Id: z\x85b"))


def test_name_of_a_key_is_shown_as_it_is(
    tmp_path: Path,
    launch: Launch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    file = tmp_path / "keys.json"
    shown, key = new_key("[bold]Eve[/x]<img src=x onerror=alert(1)>", "read")
    with changed_keys(file) as keys:
        keys[key.id] = key
    list_keys(file)
    assert key.name in capsys.readouterr().out
    for odd in ("a\nb", "\x1b[2J", "\x9b2J", "a\u202eb"):  # what terminals obey
        with pytest.raises(InvalidRequest, match="name"):
            new_key(odd, "read")
    stack = keyed(launch, file)
    with stack.client() as client:
        opened = client.post("/session", headers=bearing(shown))
    assert opened.json()["name"] == key.name
    assert opened.headers["content-type"] == "application/json"


# What is sent.


def test_page_may_run_nothing_but_our_own_scripts(stack: Stack) -> None:
    policy = stack.get("/").headers["content-security-policy"]
    rules = {name: sources for name, *sources in (part.split() for part in policy.split(";"))}
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy
    for name in ("default-src", "script-src", "style-src", "connect-src"):
        assert rules[name] == ["'self'"]
    for name in ("object-src", "base-uri", "form-action", "frame-ancestors"):
        assert rules[name] == ["'none'"]
    page = stack.get("/").text
    assert "<script>" not in page and "javascript:" not in page and " style=" not in page
    assert not [part for part in page.split() if part.lower().startswith("on") and "=" in part]


def test_nothing_but_the_viewer_is_a_page(stack: Stack) -> None:
    canvas = stack.canvas(prompt="<script>alert(1)</script>")
    for where in ("/<script>", "/tiles/<b>/1/2/3.webp", f"/canvases/{canvas.id}", "/worlds?<b>"):
        answer = stack.get(where)
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
