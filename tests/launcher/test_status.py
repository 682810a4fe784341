"""`handscroll status`: what a person sees, what a machine reads, and how it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from handscroll.errors import InvalidRequest, Unavailable
from launcher.status import KEY, _span, status

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(status)

PAINTING = {
    **{"busy": 1, "idle": 0, "away": 1, "works": 12, "viewport": 3, "prefetch": 40},
    "patches_per_s": 2.25,
}


def process(service: str, **told: Any) -> dict[str, Any]:
    plain = {"problem": "", "version": "0.1.0", "uptime_s": 60.0, "model": "", "refused": {}}
    return {"service": service, **plain, **told}


WELL = {
    "well": True,
    "store_ms": 1.2,
    "processes": [process("gateway"), process("generator", painting=PAINTING, model="a" * 64)],
}
ILL = {
    "well": False,
    "store_ms": None,
    "processes": [
        process("gateway", problem="the store [x] does not answer", refused={"backlog": 7}),
        process("tiler", problem="the tiler cannot be reached", version="", uptime_s=0.0),
    ],
}


@contextmanager
def gateway(told: object, code: int = 200) -> Iterator[tuple[str, list[str | None]]]:
    """One that tells this; its address, and the keys that it was shown."""
    shown: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers["Authorization"])
            self.send_response(code if self.path == "/status" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", shown
        server.shutdown()
        thread.join()


def run(*flags: str) -> tuple[int, str]:
    done = CliRunner(env={"COLUMNS": "120"}).invoke(app, flags)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_all_well_fits_on_a_screen_and_ends_with_zero() -> None:
    with gateway(WELL) as (url, _):
        code, said = run("--url", url)
    assert code == 0
    lines = [line.rstrip() for line in said.splitlines()]
    assert lines[0] == f"{url}: all is well; the store answers in 1.2 ms"
    assert [line.split() for line in lines if line.startswith("gen")] == [
        ["generator", "well", "1", "min", "0", "s", "0.1.0", "a" * 12, "none"]
    ]
    assert lines[-2] == "painters: 1 busy, 0 idle, 1 away; 2.2 patches/s over the last minute"
    assert lines[-1].endswith("12 in work; waiting for a painter: 3 for viewports, 40 ahead")
    assert len(lines) < 24 and max(map(len, lines)) <= 120


def test_what_is_wrong_is_said_in_words_and_ends_with_one() -> None:
    with gateway(ILL) as (url, _):
        code, said = run("--url", url)
    assert code == 1
    assert "something is wrong; the store does not answer" in said
    assert "the store [x] does not answer" in said and "7 backlog" in said
    [line] = [line for line in said.splitlines() if line.startswith("tiler")]
    assert line.split() == ["tiler", "the", "tiler", "cannot", "be", "reached"]


def test_machines_get_what_the_gateway_told() -> None:
    with gateway(ILL) as (url, _):
        code, said = run("--url", url, "--json")
    assert code == 1 and json.loads(said) == ILL


def test_key_is_shown_and_its_refusal_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "hs_secret")
    problem = {"detail": "administration takes a key with the role admin"}
    with gateway(problem, 403) as (url, shown), pytest.raises(InvalidRequest) as failure:
        run("--url", url)
    assert shown == ["Bearer hs_secret"]
    assert str(failure.value) == f"{url} answers 403: {problem['detail']}"


def test_nobody_there_is_said_in_a_line() -> None:
    with gateway(WELL) as (url, _):
        pass
    with pytest.raises(Unavailable, match=f"no gateway answers at {url}"):
        run("--url", url)
    with pytest.raises(InvalidRequest, match="--url must be http://host:port, not 'x'"):
        run("--url", "x")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7200, "2 h 0 min"), (90061, "1 d 1 h")],
)
def test_times_have_two_units(seconds: float, said: str) -> None:
    assert _span(seconds) == said
