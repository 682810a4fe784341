"""Tiles over HTTP."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from handscroll.errors import Overloaded, SpecMismatch
from handscroll.geometry import Tile
from tests.gateway.conftest import Launch, Stack, metric, path, soon

TILE = Tile(1, -3, 5)


@pytest.mark.parametrize(
    ("format", "media"), [("webp", "image/webp"), ("png", "image/png"), ("jpg", "image/jpeg")]
)
def test_tile_comes_from_tiler_then_memory(stack: Stack, format: str, media: str) -> None:
    canvas = stack.canvas()
    names = [f'handscroll_gateway_tiles_total{{source="{one}"}}' for one in ("painted", "memory")]
    before = [metric(stack, name) for name in names]
    first, second = (stack.get(path(canvas, TILE, format) + end) for end in ("", "?wait=0"))
    assert first.status_code == second.status_code == 200
    assert first.headers["content-type"] == media
    assert first.content == second.content
    assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert [metric(stack, name) for name in names] == [before[0] + 1, before[1] + 1]
    assert len(stack.tiler.asked) == 1


def test_tile_in_store_is_served_without_tiler(launch: Launch) -> None:
    stack = launch()
    canvas = stack.canvas()
    stack.keep(canvas, TILE, b"a picture")
    stack.stop_tiler()
    assert stack.get("/healthz").status_code == 200
    assert stack.get(path(canvas, TILE)).content == b"a picture"


def test_tile_of_frame_is_another(stack: Stack) -> None:
    canvas = stack.canvas(frames=3)
    stack.keep(canvas, TILE, b"first")
    stack.keep(canvas, TILE._replace(frame=2), b"third")
    for _ in range(2):
        assert stack.get(path(canvas, TILE)).content == b"first"
        assert stack.get(path(canvas, TILE) + "?frame=0").content == b"first"
        assert stack.get(path(canvas, TILE) + "?frame=2").content == b"third"


def test_etag_matches_weakly_in_lists(stack: Stack) -> None:
    url = path(stack.canvas(), TILE)
    etag = stack.get(url).headers["etag"]
    assert etag.startswith('"')
    for given in (etag, f"W/{etag}", f'"x", W/{etag} ,"y"', "*"):
        answer = stack.get(url, headers={"If-None-Match": given})
        assert answer.status_code == 304, given
        assert answer.content == b""
        assert answer.headers["etag"] == etag
        assert "immutable" in answer.headers["cache-control"]
        assert "content-type" not in answer.headers
    for given in ('"x"', etag.strip('"'), ""):
        assert stack.get(url, headers={"If-None-Match": given}).status_code == 200, given


def test_head_is_get_without_body(stack: Stack) -> None:
    url = path(stack.canvas(), TILE)
    with stack.client() as client:
        for _ in range(2):
            head = client.head(url)
            assert (head.status_code, head.content) == (200, b"")
        get = client.get(url)
    for name in ("etag", "content-length", "content-type", "cache-control"):
        assert head.headers[name] == get.headers[name]


def test_poll_paints_nothing(stack: Stack) -> None:
    canvas = stack.canvas()
    url = path(canvas, TILE) + "?wait=0"
    answer = stack.get(url)
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert not stack.tiler.asked
    stack.keep(canvas, TILE, b"here")
    assert stack.get(url).content == b"here"


def test_waiting_in_vain_is_503(stack: Stack) -> None:
    canvas = stack.canvas()
    with stack.closed_gate():
        began = time.monotonic()
        answer = stack.get(path(canvas, TILE) + "?wait=0.3")
        assert 0.25 < time.monotonic() - began < 3
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["retry_after"] == 1


def test_waiting_without_tiler_is_503(launch: Launch) -> None:
    stack = launch()
    canvas = stack.canvas()
    stack.stop_tiler()
    answer = stack.get(path(canvas, TILE) + "?wait=0.3")
    assert answer.status_code == 503
    assert "127.0.0.1" not in answer.text


@pytest.mark.parametrize(("wait_s", "said"), [(0.2, "1"), (3.2, "4")])
def test_overload_says_when_to_come_back(stack: Stack, wait_s: float, said: str) -> None:
    stack.tiler.failure = Overloaded("512 patches are waiting", wait_s)
    answer = stack.get(path(stack.canvas(), TILE))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == said
    assert answer.json()["detail"] == "512 patches are waiting"


def test_other_model_is_409(stack: Stack) -> None:
    stack.tiler.failure = SpecMismatch("another model is served")
    assert stack.get(path(stack.canvas(), TILE)).status_code == 409


def test_unforeseen_failure_says_nothing_of_the_inside(stack: Stack) -> None:
    stack.tiler.failure = ZeroDivisionError("secret")
    answer = stack.get(path(stack.canvas(), TILE))
    assert answer.status_code in (500, 503)
    assert "secret" not in answer.text


@pytest.mark.parametrize("tile", [Tile(2, -1, 0), Tile(2, 3, 9), Tile(0, 1, 0), Tile(3, 0, 0)])
def test_outside_is_404_for_good(stack: Stack, tile: Tile) -> None:
    canvas = stack.canvas("scroll")
    for query in ("", "?wait=0"):
        answer = stack.get(path(canvas, tile) + query)
        assert answer.status_code == 404
        assert answer.headers["cache-control"] == "public, max-age=3600"
        assert answer.headers["content-type"] == "application/problem+json"
    assert not stack.tiler.asked


def test_unknown_canvas_is_404_for_now(stack: Stack) -> None:
    answer = stack.get(f"/tiles/{'0' * 64}/14/8192/8192.webp")
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("13/0/0.webp", "14 to 20, not '13'"),
        ("21/0/0.webp", "14 to 20, not '21'"),
        ("014/8192/8192.webp", "not '014'"),
        ("14/16384/8192.webp", "x must be a whole number 0 to 16383, not '16384'"),
        ("14/-1/8192.webp", "not '-1'"),
        ("14/8192/+1.webp", "not '+1'"),
        ("14/8192/8192.gif", "webp, png, jpg, not 'gif'"),
        ("14/8192/8192.webp?frame=32", "0 to 31, not '32'"),
        ("14/8192/8192.webp?frame=1", "frame must be 0 to 0, not 1"),
        ("14/8192/8192.webp?frame=", "not ''"),
        ("14/8192/8192.webp?wait=61", "0 to 60 seconds, not '61'"),
        ("14/8192/8192.webp?wait=-1", "not '-1'"),
        ("14/8192/8192.webp?wait=nan", "not 'nan'"),
    ],
)
def test_impossible_tile_is_400_in_words(stack: Stack, tail: str, words: str) -> None:
    answer = stack.get(f"/tiles/{stack.canvas().id}/{tail}")
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_bad_canvas_id_is_400(stack: Stack) -> None:
    assert stack.get("/tiles/ABC/14/8192/8192.webp").status_code == 400


WAITING = "handscroll_gateway_waiting"


def leave(stack: Stack, url: str) -> None:
    """Ask for a tile, and leave once gateway and tiler are at it."""
    before = metric(stack, WAITING)
    host, port = stack.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(f"GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        soon(lambda: metric(stack, WAITING) == before + 1, "the gateway is at it")
        soon(lambda: stack.tiler.waiting == 1, "the tiler is at it")
    soon(lambda: metric(stack, WAITING) == before, "the gateway hears of it")


def test_leaving_cancels_painting(stack: Stack) -> None:
    url = path(stack.canvas(), TILE)
    with stack.closed_gate():
        leave(stack, url)
        soon(lambda: stack.tiler.cancelled == 1, "the tiler hears that nobody waits")
    assert stack.get(url).status_code == 200


def test_one_leaving_leaves_others_waiting(stack: Stack) -> None:
    url = path(stack.canvas(), TILE)
    with ThreadPoolExecutor() as pool:
        with stack.closed_gate():
            staying = pool.submit(stack.get, url)
            soon(lambda: stack.tiler.waiting == 1, "one waits")
            leave(stack, url)
        assert staying.result().status_code == 200
    assert (len(stack.tiler.asked), stack.tiler.cancelled) == (1, 0), "the tiler sees one asker"


def test_whoever_asks_first_may_leave_first(stack: Stack) -> None:
    url = path(stack.canvas(), TILE)
    with ThreadPoolExecutor() as pool:
        with stack.closed_gate():
            going = pool.submit(stack.get, f"{url}?wait=0.5")
            soon(lambda: stack.tiler.waiting == 1, "one waits")
            staying = pool.submit(stack.get, url)
            assert going.result().status_code == 503
        assert staying.result().status_code == 200
    assert (len(stack.tiler.asked), stack.tiler.cancelled) == (1, 0), "the tiler sees one asker"


def test_memory_holds_no_more_than_it_may(launch: Launch) -> None:
    stack = launch(cache_bytes=10_000)
    canvas = stack.canvas()
    for col in range(30):
        stack.get(path(canvas, Tile(0, 0, col)))
        assert 0 < metric(stack, "handscroll_gateway_cache_bytes") <= 10_000


def test_deleted_canvas_leaves_memory(stack: Stack) -> None:
    with stack.client(headers={"X-Owner": "o" * 16}) as client:
        canvas_id = client.post("/canvases", json={"world": "planet", "seed": 31}).json()["id"]
        url = f"/tiles/{canvas_id}/14/8192/8192.webp"
        assert client.get(url).status_code == 200
        assert client.delete(f"/canvases/{canvas_id}").status_code == 204
        assert client.get(url).status_code == 404
