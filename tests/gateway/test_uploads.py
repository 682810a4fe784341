"""The laws of ``/pictures``, and of canvases around one, over HTTP."""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from gateway import uploads
from handscroll.errors import OverQuota
from handscroll.known import digest_of
from handscroll.picture import MAX_FILE_BYTES
from tests.gateway.conftest import Launch, Stack, soon
from tests.gateway.faketiler import BYTES
from tests.gateway.test_access import keyed, make_key

EXPORT = {"canvas": "0" * 64, "level": 0, "top": 0, "left": 0, "height": 1, "width": 1}
PIXELS = np.random.default_rng(1).integers(0, 256, (100, 130, 3), np.uint8)


def file(format: str = "PNG") -> bytes:
    """A picture's file, which loses nothing but as a JPEG."""
    held = io.BytesIO()
    Image.fromarray(PIXELS).save(held, format, **{"lossless": True} if format == "WEBP" else {})
    return held.getvalue()


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_a_picture_is_taken_and_a_canvas_made_around_it(stack: Stack, format: str) -> None:
    told = {"Content-Type": f"image/{format.lower()}"}
    with stack.client() as client:
        answer = client.post("/pictures", content=file(format), headers=told)
        assert answer.status_code == 201, answer.text
        picture = answer.json()
        assert picture == {"picture": digest_of(PIXELS), "height": 100, "width": 130}
        known = {"picture": picture["picture"], "left": -128}
        made = client.post("/canvases", json={"world": "planet", "known": known})
        assert made.status_code in (200, 201), made.text
        whole = {"top": 0, "height": 100, "width": 130} | known
        assert made.json()["known"] == whole
        again = client.get(f"/canvases/{made.json()['id']}").json()
        assert again["known"] == whole
        same = client.post("/canvases", json={"world": "planet", "known": whole})
        assert same.json()["id"] == made.json()["id"]


def test_a_jpeg_is_taken(stack: Stack) -> None:
    with stack.client() as client:
        told = {"Content-Type": "image/jpeg; q=1"}
        assert client.post("/pictures", content=file("JPEG"), headers=told).status_code == 201


def given(client: httpx.Client, **headers: str) -> str:
    """A picture that was taken."""
    answer = client.post(
        "/pictures", content=file(), headers={"Content-Type": "image/png", **headers}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["picture"])


def test_pictures_are_their_givers_to_list_and_delete(stack: Stack) -> None:
    """Whoever has no name is given one, which also holds the canvases."""
    with stack.client() as client, stack.client() as stranger:
        picture = given(client)
        assert re.fullmatch("[0-9a-f]{32}", client.cookies["handscroll_owner"])
        assert given(client) == picture
        told = client.get("/pictures").json()
        assert told == {
            "pictures": [
                {
                    "picture": picture,
                    "height": 100,
                    "width": 130,
                    "bytes": BYTES,
                    "made_at": "1970-01-01T00:00:01Z",
                }
            ],
            "next_page_token": "",
        }
        assert client.get("/canvases").json()["canvases"] == []
        assert stranger.get("/pictures").json() == {"pictures": [], "next_page_token": ""}
        assert stranger.delete(f"/pictures/{picture}").status_code == 404
        gone = client.delete(f"/pictures/{picture}")
        assert (gone.status_code, gone.content) == (204, b"")
        assert client.delete(f"/pictures/{picture}").status_code == 404
        assert client.get("/pictures").json()["pictures"] == []


def test_a_secret_that_came_is_the_owners(stack: Stack) -> None:
    with stack.client() as client:
        picture = given(client, **{"X-Owner": "a-secret-of-anne"})
        assert not client.cookies
        mine = client.get("/pictures", headers={"X-Owner": "a-secret-of-anne"}).json()
        assert [one["picture"] for one in mine["pictures"]] == [picture]
        refused = client.get("/pictures", headers={"X-Owner": "short"})
        assert refused.status_code == 400 and "16 to 128" in refused.json()["detail"]
        for page in ("page_size=1001", "page_size=-1", "page_token=x"):
            refused = client.get(f"/pictures?{page}", headers={"X-Owner": "a-secret-of-anne"})
            assert refused.status_code == 400, page


@pytest.mark.parametrize("picture", ["x", "A" * 64, "%2e%2e"])
def test_what_is_no_picture_cannot_be_deleted(stack: Stack, picture: str) -> None:
    with stack.client() as client:
        answer = client.delete(f"/pictures/{picture}", headers={"X-Owner": "a-secret-of-anne"})
    assert answer.status_code == 400 and "64 characters" in answer.json()["detail"]


def test_usage_is_what_the_caller_holds_and_may_hold(stack: Stack) -> None:
    with stack.client() as client:
        nothing = {
            "canvases": {"held": 0, "most": None},
            "canvas_bytes": {"held": 0, "most": None},
            "picture_bytes": {"held": 0, "most": None},
            "export_bytes": {"held": 0, "most": None},
        }
        assert client.get("/usage").json() == nothing
        given(client)
        told = client.get("/usage")
        assert told.json() == {
            "canvases": {"held": 0, "most": 7},
            "canvas_bytes": {"held": 5, "most": 2**20},
            "picture_bytes": {"held": BYTES, "most": None},
            "export_bytes": {"held": 0, "most": 2**24},
        }
        assert told.headers["cache-control"] == "no-store"


def test_who_holds_too_much_is_told_so(stack: Stack) -> None:
    stack.tiler.failure = OverQuota("you hold 7 canvases, and may hold 7: delete some first")
    with stack.client() as client:
        told = {"Content-Type": "image/png"}
        for answer in (
            client.post("/pictures", content=file(), headers=told),
            client.post("/canvases", json={"world": "planet"}),
            client.post("/exports", json=EXPORT),
        ):
            assert answer.status_code == 507 and "Retry-After" not in answer.headers
            assert "may hold 7" in answer.json()["detail"]
            assert "set-cookie" not in answer.headers  # nobody holds anything


@pytest.mark.parametrize(
    ("content", "media", "status", "words"),
    [
        (b"", "image/png", 400, "this is none"),
        (b"GIF89a", "image/png", 400, "this is none"),
        (file()[:500], "image/png", 400, "cannot be read"),
        (file(), "image/gif", 415, "must be image/png"),
        (file(), "multipart/form-data", 415, "must be image/png"),
        (bytes(MAX_FILE_BYTES + 1), "image/png", 413, f"{MAX_FILE_BYTES} bytes"),
    ],
)
def test_what_is_no_picture_is_refused(
    stack: Stack, content: bytes, media: str, status: int, words: str
) -> None:
    before = set(stack.tiler.pictures)
    with stack.client() as client:
        answer = client.post("/pictures", content=content, headers={"Content-Type": media})
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert set(stack.tiler.pictures) == before


@contextmanager
def begun(stack: Stack, key: str = "") -> Iterator[socket.socket]:
    """A picture of which the first byte is on its way."""
    host, port = stack.url.removeprefix("http://").split(":")
    shown = f"Authorization: Bearer {key}\r\n" if key else ""
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(
            f"POST /pictures HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            f"{shown}Content-Length: 100\r\n\r\nx".encode()
        )
        yield line


def test_a_picture_that_does_not_come_is_given_up(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "BODY_S", 0.2)
    with begun(stack) as line:
        answer = b"".join(iter(lambda: line.recv(10_000), b""))  # the connection is closed then
    assert answer.startswith(b"HTTP/1.1 408") and b"was not there within 0.2 s" in answer


def test_more_pictures_at_a_time_are_refused(stack: Stack) -> None:
    def taken() -> int:
        with stack.client() as client:
            told = {"Content-Type": "image/png"}
            return client.post("/pictures", content=file(), headers=told).status_code

    with ExitStack() as lines:
        for _ in range(uploads.AT_ONCE):
            lines.enter_context(begun(stack))
        soon(lambda: taken() == 503, "there is no room")
    soon(lambda: taken() == 201, "there is room again")


def test_one_caller_takes_no_room_from_others(launch: Launch, tmp_path: Path) -> None:
    anna, bert = (make_key(tmp_path / "keys.json") for _ in range(2))
    stack = keyed(launch, tmp_path / "keys.json")

    def taken(key: str) -> int:
        with stack.client() as client:
            told = {"Content-Type": "image/png", "Authorization": f"Bearer {key}"}
            return client.post("/pictures", content=file(), headers=told).status_code

    with begun(stack, anna):
        soon(lambda: taken(anna) == 429, "one is on its way")
        assert taken(bert) == 201
    # The tiler is told whose it is, as it would be of anything else.
    assert stack.tiler.metadata["authorization"] == f"Bearer {bert}"
    assert stack.tiler.metadata["x-request-id"]


@pytest.mark.parametrize(
    ("known", "status", "words"),
    [
        ({"picture": "f" * 64}, 404, "there is no picture"),
        ({"picture": "../"}, 400, "64 characters"),
        ({}, 400, "known.picture is missing"),
        ({"picture": "f" * 64, "top": 2**31}, 400, "known.top must be"),
        ({"picture": "f" * 64, "top": 1.5}, 400, "known.top must be"),
        ({"picture": "f" * 64, "at": 1}, 400, "there is no field 'known.at'"),
        ("f" * 64, 400, "known must be"),
    ],
)
def test_a_canvas_around_no_picture_is_refused(
    stack: Stack, known: object, status: int, words: str
) -> None:
    with stack.client() as client:
        answer = client.post("/canvases", json={"world": "planet", "known": known})
    assert answer.status_code == status
    assert words in answer.json()["detail"]
