"""Keys at the gateway: sessions, what other sites may not, budgets, HTTPS."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from gateway.app import server
from gateway.settings import GatewaySettings
from handscroll.errors import InvalidRequest
from handscroll.geometry import Tile
from svckit.access import AccessSettings
from svckit.keyring import RoleName, changed_keys, new_key
from tests.gateway.conftest import Launch, Stack, path, soon
from tests.gateway.test_events import view

COOKIE = "handscroll_session"
WISH = {"world": "planet", "seed": 3}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def make_key(file: Path, role: RoleName = "paint", **budgets: int) -> str:
    shown, key = new_key(f"Anna {role}", role, **budgets)
    with changed_keys(file) as keys:
        keys[key.id] = key
    return shown


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def keyed(launch: Launch, file: Path, **changes: Any) -> Stack:
    """A gateway that knows the keys of a file, where others may look."""
    access = AccessSettings(keys_file=file, **{"anonymous": "read"} | changes.pop("access", {}))
    return launch(access=access, **changes)


def same(stack: Stack) -> dict[str, str]:
    """What a browser says of a request from our own page."""
    return {"Origin": stack.url}


def test_session_stands_for_the_key(launch: Launch, file: Path) -> None:
    shown = make_key(file)
    stack = keyed(launch, file)
    with stack.client() as client:
        assert client.post("/canvases", json=WISH, headers=same(stack)).status_code == 401
        opened = client.post("/session", headers=bearing(shown))
        assert (opened.status_code, opened.json()) == (200, {"name": "Anna paint", "role": "paint"})
        cookie = opened.headers["set-cookie"]
        for part in (f"{COOKIE}={shown};", "HttpOnly", "SameSite=strict", "Path=/;"):
            assert part in cookie
        assert "Secure" not in cookie and shown not in opened.text
        made = client.post("/canvases", json=WISH, headers=same(stack))
        assert made.status_code == 201 and "set-cookie" not in made.headers
        # The tiler is shown the same key, and from where it came.
        assert stack.tiler.metadata["authorization"] == f"Bearer {shown}"
        assert stack.tiler.metadata["x-forwarded-for"] == "127.0.0.1"
        assert "x-owner" not in stack.tiler.metadata
        assert client.delete("/session", headers=same(stack)).status_code == 204
        assert not client.cookies
        assert client.post("/canvases", json=WISH, headers=same(stack)).status_code == 401


def test_session_is_opened_by_keys_alone(launch: Launch, file: Path, stack: Stack) -> None:
    make_key(file)
    closed = keyed(launch, file)
    with closed.client() as client:
        for headers in ({}, bearing(new_key("Mallory", "admin")[0]), {"Authorization": "x"}):
            answer = client.post("/session", headers=headers)
            assert answer.status_code == 401 and "set-cookie" not in answer.headers
    with stack.client() as client:
        answer = client.post("/session", headers=bearing(new_key("Mallory", "admin")[0]))
        assert answer.status_code == 400 and "everybody may paint" in answer.json()["detail"]


def test_session_is_secure_where_we_are(launch: Launch, file: Path) -> None:
    shown = make_key(file)
    stack = keyed(launch, file, public_url="https://maps.example")
    with stack.client() as client:
        assert "Secure" in client.post("/session", headers=bearing(shown)).headers["set-cookie"]


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "OURS"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "OURS"}, True),
    ],
)
def test_cookie_changes_something_for_pages_of_ours_alone(
    launch: Launch, file: Path, headers: dict[str, str], served: bool
) -> None:
    shown = make_key(file)
    stack = keyed(launch, file)
    told = {name: value.replace("OURS", stack.url) for name, value in headers.items()}
    with stack.client(cookies={COOKIE: shown}) as client:
        for answer in (
            client.post("/canvases", json=WISH, headers=told),
            client.delete(f"/canvases/{'0' * 64}", headers=told),
        ):
            assert answer.status_code in ((201, 200, 404) if served else (403,))
        assert client.get("/worlds", headers=told).status_code == 200
        # A header is no cookie: no other site could have added it.
        told |= bearing(shown)
        assert client.post("/canvases", json=WISH, headers=told).status_code in (200, 201)


def test_cookie_of_a_key_that_is_no_more_is_as_good_as_none(launch: Launch, file: Path) -> None:
    make_key(file)
    stack = keyed(launch, file)
    for gone in (new_key("Mallory", "admin")[0], "../../x", ""):
        with stack.client(cookies={COOKIE: gone}) as client:
            assert client.get("/worlds").status_code == 200
            assert client.post("/canvases", json=WISH, headers=same(stack)).status_code == 401


def test_what_takes_a_key_is_kept_by_no_shared_cache(launch: Launch, file: Path) -> None:
    shown = make_key(file, "read")
    for anonymous, kept in (("read", "public"), ("none", "private")):
        stack = keyed(launch, file, access={"anonymous": anonymous})
        canvas, tile = stack.canvas(), Tile(0, 0, 0)
        stack.keep(canvas, tile, b"picture")
        answer = stack.get(path(canvas, tile), headers=bearing(shown))
        assert answer.headers["cache-control"] == f"{kept}, max-age=31536000, immutable"
        told = bearing(shown) | {"If-None-Match": answer.headers["etag"]}
        again = stack.get(path(canvas, tile), headers=told)
        assert again.status_code == 304
        assert again.headers["cache-control"] == answer.headers["cache-control"]
        assert stack.get(path(canvas, tile)).status_code == (200 if kept == "public" else 401)


def test_spent_budget_is_429_with_a_time_and_asks_nobody(launch: Launch, file: Path) -> None:
    shown = make_key(file, requests_per_minute=3)
    stack = keyed(launch, file, access={"requests_per_minute": 2})
    canvas = stack.canvas()
    told = bearing(shown)
    for _ in range(3):
        assert stack.get(f"/canvases/{canvas.id}", headers=told).status_code == 200
    stack.tiler.forget()
    answer = stack.get("/worlds", headers=told)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "20")
    assert answer.json()["retry_after"] == 20
    assert not stack.tiler.metadata
    # Callers without a key have a budget of their own, and so has each of their addresses.
    for status in (200, 200, 429):
        assert stack.get("/worlds").status_code == status
    assert stack.get("/healthz").status_code == 200


def test_addresses_are_told_apart_behind_a_proxy(launch: Launch, file: Path) -> None:
    make_key(file)
    for proxies, status in ((0, 429), (1, 200)):
        stack = keyed(launch, file, access={"requests_per_minute": 1}, proxies=proxies)
        first, second = ({"X-Forwarded-For": f"6.6.6.6, 10.0.0.{end}"} for end in (1, 2))
        assert stack.get("/worlds", headers=first).status_code == 200
        assert stack.get("/worlds", headers=second).status_code == status
        assert stack.get("/worlds", headers=first).status_code == 429


def test_streams_that_a_caller_has_open_are_counted(launch: Launch, file: Path) -> None:
    shown = make_key(file, streams=1)
    stack = keyed(launch, file)
    url = view(stack.canvas(), Tile(0, 0, 0), Tile(0, 0, 1))
    with stack.client() as client, stack.closed_gate():
        with client.stream("GET", url, headers=bearing(shown)) as answer:
            assert answer.status_code == 200
            soon(lambda: stack.tiler.waiting == 1, "the tiler is at it")
            assert stack.get(url, headers=bearing(shown)).status_code == 429
            assert stack.get("/worlds", headers=bearing(shown)).status_code == 200
    soon(lambda: stack.get(url, headers=bearing(shown)).status_code == 200, "it is free again")


def test_callers_do_not_share_what_they_ask_for(launch: Launch, file: Path) -> None:
    """A tile that two want is asked for twice, each time with the key of the one who pays."""
    keys = [make_key(file) for _ in range(2)]
    stack = keyed(launch, file)
    url = path(stack.canvas(), Tile(0, 5, 5))
    with ThreadPoolExecutor() as pool:
        with stack.closed_gate():
            asked = []
            for number, key in enumerate(keys):
                asked += [pool.submit(stack.get, url, headers=bearing(key)) for _ in range(2)]
                soon(lambda: stack.tiler.waiting == number + 1, "the tiler is at it")  # noqa: B023
                assert stack.tiler.metadata["authorization"] == f"Bearer {key}"
        assert [one.result().status_code for one in asked] == [200] * 4
    assert len(stack.tiler.asked) == 2


def test_https_is_served_with_a_certificate(launch: Launch, tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    made.private_key_pem.write_to_path(str(key))
    stack = launch(cert=cert, key=key)
    canvas = stack.canvas()
    secure = stack.url.replace("http:", "https:")
    with stack.client() as client:
        told = client.get(f"{secure}/canvases/{canvas.id}/tilejson.json").json()
        assert told["tiles"][0].startswith(f"{secure}/tiles/")
        made_here = client.post(f"{secure}/canvases", json=WISH)
        assert "Secure" in made_here.headers["set-cookie"]
        with pytest.raises(httpx.TransportError):
            client.get(stack.url)


def test_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("nonsense")
    with pytest.raises(InvalidRequest, match="cert must be, too"):
        server(GatewaySettings(key=key))
    for cert in (key, tmp_path / "gone.pem"):
        with pytest.raises(InvalidRequest, match=f"no HTTPS with certificate {cert} and key"):
            server(GatewaySettings(cert=cert, key=key))
