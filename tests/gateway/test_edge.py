"""What every answer has: headers, a request id, problems for errors; whom we answer to."""

import re

import pytest

from gateway.edge import trust
from handscroll.errors import StoreUnavailable
from svckit.store import Store
from tests.gateway.conftest import Launch, Stack, metric

OPEN = "access-control-allow-origin"


@pytest.mark.parametrize(
    "path", ["/", "/worlds", "/healthz", "/nothing", "/tiles/x/1/2/3.webp", "/static/viewer.css"]
)
def test_every_answer_is_armoured(stack: Stack, path: str) -> None:
    headers = stack.get(path).headers
    policy = headers["content-security-policy"]
    for part in ("default-src 'self'", "object-src 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])
    assert "server" not in headers


def test_viewer_is_revalidated(stack: Stack) -> None:
    answer = stack.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    again = stack.get("/", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    for path in ("/static/../settings.py", "/static/%2e%2e/settings.py", "/static/..%2fapp.py"):
        assert stack.get(path).status_code == 404


def test_request_id_is_kept_and_passed_on(stack: Stack) -> None:
    answer = stack.get("/worlds", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert stack.tiler.metadata["x-request-id"] == "mine-1"
    for odd in ("x" * 65, "a b", ""):
        assert stack.get("/worlds", headers={"X-Request-Id": odd}).headers["x-request-id"] != odd
    told = stack.get("/nothing", headers={"X-Request-Id": "mine-2"}).json()
    assert told["request_id"] == "mine-2"


def test_unknown_path_is_a_problem(stack: Stack) -> None:
    answer = stack.get("/no/such")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "'/no/such'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/canvases", "GET, HEAD, POST"),
        ("/canvases/x", "DELETE, GET, HEAD"),
        ("/tiles/x/1/2/3.webp", "GET, HEAD"),
        ("/static/viewer.css", "GET, HEAD"),
    ],
)
def test_wrong_method_is_a_problem_with_allow(stack: Stack, path: str, allowed: str) -> None:
    with stack.client() as client:
        answer = client.patch(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert answer.headers["content-type"] == "application/problem+json"
    assert f"answers to {allowed}, not PATCH" in answer.json()["detail"]


def test_our_mistake_is_a_problem_without_the_inside(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("svckit.specs.Specs.get", fail)
    answer = stack.get(f"/canvases/{'0' * 64}")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_map_clients_of_other_origins_may_read(stack: Stack, launch: Launch) -> None:
    canvas = stack.canvas()
    for path in (f"/tiles/{canvas.id}/14/0/0.webp", f"/canvases/{canvas.id}/tilejson.json"):
        assert stack.get(path).headers[OPEN] == "*"
    for path in ("/worlds", "/canvases", f"/canvases/{canvas.id}", "/"):
        assert OPEN not in stack.get(path).headers
    with stack.client() as client:
        assert OPEN not in client.post("/canvases", json={"world": "planet"}).headers
    assert OPEN not in launch(allow_origins="").get("/openapi.json").headers
    one = launch(allow_origins="https://maps.example")
    assert one.get("/openapi.json").headers[OPEN] == "https://maps.example"


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("localhost:8080", True),
        ("LOCALHOST", True),
        ("127.0.0.1:1", True),
        ("[::1]:8080", True),
        ("10.1.2.3", True),
        ("maps.example", True),
        ("scroll.example:443", True),
        ("evil.example", False),
        ("maps.example.evil", False),
        ("localhost.evil", False),
        ("", False),
        ("localhost:x", False),
        ("localhost/x", False),
        ("a@localhost", False),
        ('localhost"', False),
        ("[::1", False),
        ("١٢٧.0.0.1", False),
    ],
)
def test_hosts_are_trusted_by_address_or_by_name(host: str, trusted: bool) -> None:
    test = trust("scroll.example", "https://maps.example/x")
    assert test(host.encode()) is trusted
    any_name = trust("*", "")
    assert any_name(b"evil.example")
    assert not any_name(b'evil.example"')


def test_strange_host_is_answered_400(stack: Stack) -> None:
    answer = stack.get("/healthz", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "'evil.example'" in answer.json()["detail"]


def test_ready_says_who_is_not(
    stack: Stack, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack.get("/readyz").json() == {"status": "ready"}

    async def fail(_: Store) -> None:
        raise StoreUnavailable("the bucket does not exist")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "ready", fail)
        answer = stack.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "bucket" in answer.json()["detail"]
    alone = launch()
    alone.stop_tiler()
    answer = alone.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the tiler cannot be reached"
    assert alone.get("/").status_code == alone.get("/healthz").status_code == 200


def test_worlds_are_503_while_the_tiler_starts(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = launch()
    stack.stop_tiler()
    monkeypatch.setattr("gateway.canvases.ASK_S", 0.2)
    answer = stack.get("/worlds")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_requests_are_measured_by_route(stack: Stack) -> None:
    line = 'handscroll_gateway_seconds_count{route="/canvases/{canvas}",status="400"}'
    before = metric(stack, line)
    stack.get("/canvases/x")
    assert metric(stack, line) == before + 1
