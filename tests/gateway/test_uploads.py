"""The laws of ``/pictures``, and of canvases around one, over HTTP."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from handscroll.known import digest_of
from handscroll.picture import MAX_FILE_BYTES
from tests.gateway.conftest import Stack

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
