"""Worlds and canvases over HTTP."""

import json
import re
import socket
from typing import Any

import pytest

from tests.gateway.conftest import Launch, Stack
from tests.gateway.faketiler import MODEL

PLANE = {"kind": "plane", "finest": 2, "height_px": None, "width_px": None}


def test_worlds_are_told(stack: Stack) -> None:
    answer = stack.get("/worlds").json()
    assert answer["model"] == MODEL
    assert [world["name"] for world in answer["worlds"]] == ["planet", "scroll"]
    planet, scroll = answer["worlds"]
    assert planet["extent"] == PLANE
    assert scroll["extent"] == PLANE | {"kind": "scroll", "height_px": 704}
    assert re.fullmatch("[0-9a-f]{64}", planet["canvas"])


def test_canvas_is_made_once_and_found_again(stack: Stack) -> None:
    wish = {"world": "planet", "seed": 2**64 - 1, "prompt": "Inseln ⛰"}
    with stack.client() as client:
        made, again = (client.post("/canvases", json=wish) for _ in range(2))
        assert (made.status_code, again.status_code) == (201, 200)
        told = made.json()
        assert told == again.json() == client.get(made.headers["location"]).json()
    assert told | wish | {"extent": PLANE, "frames": 1, "order": "lattice", "model": MODEL} == told
    assert made.headers["location"] == f"/canvases/{told['id']}"
    assert told["tilejson"] == f"/canvases/{told['id']}/tilejson.json"
    assert told["sampling"]["temperature"] == 1.0


def test_every_field_reaches_the_tiler(stack: Stack) -> None:
    extent = {"kind": "picture", "finest": 1, "height_px": 64, "width_px": 96}
    sampling = {"temperature": 0, "rows": 2, "negative_prompt": "fog", "top_p": 0.5}
    wish = {"world": "planet", "extent": extent, "order": "outward", "frames": 4, "model": "cd"}
    place = {"top": -5, "left": 2**30, "height": 3, "width": 4}
    regions = [{"prompt": "sea", **place, "softness": 0}, {"prompt": "", **place}]
    with stack.client() as client:
        rest = {"sampling": sampling, "regions": regions}
        told = client.post("/canvases", json=wish | rest).json()
    assert told["extent"] == extent
    assert told["regions"] == [regions[0], regions[1] | {"softness": 256}]
    assert told["sampling"] | sampling == told["sampling"]
    assert (told["order"], told["frames"], told["model"]) == ("outward", 4, "cd")


def test_a_branch_needs_no_world_and_reaches_the_tiler(stack: Stack) -> None:
    with stack.client() as client:
        parent = client.post("/canvases", json={"world": "scroll", "seed": 5}).json()
        assert parent["branch"] is None
        place = {"parent": parent["id"], "top": 64, "left": -128, "height": 192, "width": 256}
        child = client.post("/canvases", json={"seed": 6, "branch": place}).json()
        assert child["branch"] == place and child["world"] == "scroll"
        assert client.get(f"/canvases/{child['id']}").json() == child


def test_a_tile_that_a_branch_shares_is_read_where_its_parent_has_it(stack: Stack) -> None:
    """Without waiting it is there for the branch as soon as for the parent, and the same bytes."""
    with stack.client() as client:
        parent = client.post("/canvases", json={"world": "planet", "seed": 8}).json()["id"]
        place = {"parent": parent, "top": 0, "left": 0, "height": 64, "width": 64}
        child = client.post("/canvases", json={"seed": 9, "branch": place}).json()["id"]
        far, near = "16/32868/32768.webp", "16/32767/32767.webp"
        assert client.get(f"/tiles/{child}/{far}?wait=0").status_code == 202
        for tile in (far, near):
            assert client.get(f"/tiles/{parent}/{tile}").status_code == 200
        shared = client.get(f"/tiles/{child}/{far}?wait=0")
        assert shared.status_code == 200
        assert shared.content == client.get(f"/tiles/{parent}/{far}").content
        assert client.get(f"/tiles/{child}/{near}?wait=0").status_code == 202
        own = client.get(f"/tiles/{child}/{near}")
        assert own.content != client.get(f"/tiles/{parent}/{near}").content


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "world is missing"),
        ({"branch": None}, "world is missing"),
        ({"branch": {"parent": "ab"}}, "branch.top is missing"),
        ({"world": 3}, "world must be string, not 3"),
        ({"world": "planet", "sead": 1}, "there is no field 'sead'"),
        ({"world": "planet", "seed": "1"}, "seed must be integer, not '1'"),
        ({"world": "planet", "regions": {}}, "regions must be array"),
        ({"world": "planet", "regions": [{"prompt": "sea"}]}, "regions.0.top is missing"),
        ({"world": "planet", "regions": [5]}, "regions.0 must be"),
        ({"world": "planet", "seed": True}, "seed must be integer, not True"),
        ({"world": "planet", "seed": 1.5}, "seed must be integer, not 1.5"),
        ({"world": "planet", "seed": -1}, "seed must be greater than or equal to 0, not -1"),
        ({"world": "planet", "seed": 2**64}, f"not {2**64}"),
        ({"world": "planet", "frames": 2**32}, f"not {2**32}"),
        ({"world": "planet", "frames": 33}, "frames must be 1 to 32, not 33"),
        ({"world": "planet", "extent": {"kind": "torus", "finest": 0}}, "extent.kind"),
        ({"world": "planet", "extent": {"kind": "plane"}}, "extent.finest is missing"),
        ({"world": "planet", "sampling": {"top_p": "x"}}, "sampling.top_p"),
        ({"world": "planet", "prompt": "x" * 2001}, "2000 characters, not 2001"),
        ([], "the body must be"),
    ],
)
def test_impossible_canvas_is_400_in_words(stack: Stack, body: Any, words: str) -> None:
    with stack.client() as client:
        answer = client.post("/canvases", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 60_000,
        b'{"world": "\\ud800"}',
        b'{"world": "planet", "seed": NaN}',
        b'{"world": "planet", "seed": ' + b"9" * 60_000 + b"}",
        b'{"world": "planet", "sampling": {"top_p": 1e999}}',
    ],
)
def test_what_is_not_json_is_400(stack: Stack, body: bytes) -> None:
    with stack.client() as client:
        answer = client.post(
            "/canvases", content=body, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == 400
    assert len(answer.content) < 1000


def test_other_media_are_415(stack: Stack) -> None:
    with stack.client() as client:
        for media in ("text/plain", "multipart/form-data", ""):
            answer = client.post("/canvases", content=b"{}", headers={"Content-Type": media})
            assert answer.status_code == 415
            assert "application/json" in answer.json()["detail"]


def test_large_body_is_refused_while_it_comes(stack: Stack) -> None:
    host, port = stack.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(
            b"POST /canvases HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        # Never ends by itself.
        line.sendall(b"10001\r\n" + b" " * 0x10001 + b"\r\n")
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 413


def test_unknown_world_is_404(stack: Stack) -> None:
    with stack.client() as client:
        assert client.post("/canvases", json={"world": "moon"}).status_code == 404


def test_owners_see_their_own_newest_first(stack: Stack) -> None:
    anna, bert = ({"X-Owner": name * 16} for name in "ab")
    with stack.client() as client:
        ids = [
            client.post("/canvases", json={"world": "planet", "seed": seed}, headers=who).json()
            for seed, who in ((11, anna), (12, anna), (13, bert))
        ]
        assert not client.cookies
        page = client.get("/canvases?page_size=1", headers=anna).json()
        assert [one["id"] for one in page["canvases"]] == [ids[1]["id"]]
        assert page["canvases"][0]["made_at"].endswith("Z")
        rest = client.get(f"/canvases?page_token={page['next_page_token']}", headers=anna).json()
        assert [one["id"] for one in rest["canvases"]] == [ids[0]["id"]]
        assert rest["next_page_token"] == ""
        one = f"/canvases/{ids[2]['id']}"
        assert client.delete(one, headers=anna).status_code == 404
        assert client.delete(one).status_code == 404
        assert client.get(one, headers=anna).status_code == 200
        assert client.delete(one, headers=bert).status_code == 204
        assert client.get(one).status_code == 404
        assert client.get("/canvases", headers=bert).json()["canvases"] == []


def test_first_post_gives_a_cookie(stack: Stack) -> None:
    with stack.client() as first, stack.client() as second:
        assert first.get("/canvases").json() == {"canvases": [], "next_page_token": ""}
        assert not first.cookies
        answer = first.post("/canvases", json={"world": "planet", "seed": 21})
        cookie = answer.headers["set-cookie"]
        assert re.match(r"handscroll_owner=[0-9a-f]{32};", cookie)
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie
        again = first.post("/canvases", json={"world": "planet", "seed": 22})
        assert "set-cookie" not in again.headers
        assert [one["seed"] for one in first.get("/canvases").json()["canvases"]] == [22, 21]
        assert second.get("/canvases").json()["canvases"] == []
        named = first.get("/canvases", headers={"X-Owner": "somebody-else-entirely"})
        assert named.json()["canvases"] == []


def test_cookie_is_secure_where_we_are(launch: Launch) -> None:
    stack = launch(public_url="https://maps.example/scroll/")
    with stack.client() as client:
        answer = client.post("/canvases", json={"world": "planet"})
        assert "Secure" in answer.headers["set-cookie"]
        tiles = client.get(answer.json()["tilejson"]).json()["tiles"]
    assert tiles[0].startswith("https://maps.example/scroll/tiles/")


@pytest.mark.parametrize("owner", ["short", "x" * 129, "with space in the middle"])
def test_impossible_owner_is_400(stack: Stack, owner: str) -> None:
    assert stack.get("/canvases", headers={"X-Owner": owner}).status_code == 400


def test_foreign_cookie_is_no_owner(stack: Stack) -> None:
    answer = stack.get("/canvases", headers={"Cookie": "handscroll_owner=../../x"})
    assert answer.json()["canvases"] == []


@pytest.mark.parametrize("query", ["page_size=1001", "page_size=x", "page_token=%F0%9F%8F%94"])
def test_impossible_page_is_400(stack: Stack, query: str) -> None:
    assert stack.get(f"/canvases?{query}", headers={"X-Owner": "o" * 16}).status_code == 400


def test_unknown_canvas_is_404(stack: Stack) -> None:
    for tail in ("", "/tilejson.json"):
        assert stack.get(f"/canvases/{'0' * 64}{tail}").status_code == 404
        assert stack.get(f"/canvases/zzz{tail}").status_code == 400
