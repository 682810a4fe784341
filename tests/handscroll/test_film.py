"""Laws of films: they show their frames, in order, and the same frames are the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import get_args

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from handscroll.assemble import Pixels
from handscroll.errors import InvalidRequest
from handscroll.film import MAX_FPS, FilmFormat, check_film, film, played

FILM_FORMATS: tuple[FilmFormat, ...] = get_args(FilmFormat)
SHAPE = 64, 96


def frames(count: int) -> list[Pixels]:
    """A bright square that wanders over a soft ground."""
    found = []
    for number in range(count):
        frame = np.zeros((*SHAPE, 3), np.uint8)
        frame[..., 0] = np.linspace(20, 90, SHAPE[1])
        frame[..., 2] = 60
        frame[20:44, 8 + 8 * number : 32 + 8 * number] = (230, 200, 40)
        found.append(frame)
    return found


def shown(format: FilmFormat, content: bytes) -> list[Pixels]:
    """What a player shows."""
    if format == "mp4":
        with av.open(io.BytesIO(content), "r") as container:
            decoded = container.decode(video=0)
            return [np.asarray(one.to_ndarray(format="rgb24"), np.uint8) for one in decoded]
    image = Image.open(io.BytesIO(content))
    return [np.asarray(one.convert("RGB")) for one in ImageSequence.Iterator(image)]


def alike(format: FilmFormat, content: bytes, other: bytes) -> bool:
    """Whether two files are the same bytes; for MP4, whether their frames are nearly the same.

    Those of one number are then far more alike than the two that are least so.
    """
    if format != "mp4":
        return content == other
    one, two = (np.stack(shown(format, file)).astype(int) for file in (content, other))
    apart = np.abs(one[:, None] - two).mean((2, 3, 4))
    return bool(apart.diagonal().max() < apart.max() / 3)


@pytest.mark.parametrize("format", FILM_FORMATS)
@pytest.mark.parametrize("back_and_forth", [False, True])
def test_a_film_shows_its_frames_in_order(format: FilmFormat, back_and_forth: bool) -> None:
    wanted = played(frames(6), back_and_forth)
    assert len(wanted) == (10 if back_and_forth else 6)
    found = shown(format, film(format, frames(6), 8, back_and_forth))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 4


@pytest.mark.parametrize("format", FILM_FORMATS)
def test_the_same_frames_are_the_same_bytes(format: FilmFormat) -> None:
    made = film(format, frames(5), 12, True)
    assert alike(format, film(format, frames(5), 12, True), made)
    assert not alike(format, film(format, frames(5)[::-1], 12, True), made)


def test_films_keep_time() -> None:
    with av.open(io.BytesIO(film("mp4", frames(5), 12, False)), "r") as container:
        assert container.streams.video[0].average_rate == 12
    for format in FILM_FORMATS[1:]:
        image = Image.open(io.BytesIO(film(format, frames(5), 10, False)))
        image.seek(1)
        image.load()
        assert image.info["duration"] == 100


def test_what_stands_still_stands_still_in_a_gif() -> None:
    found = shown("gif", film("gif", frames(6), 8, False))
    for one in found[1:]:
        np.testing.assert_array_equal(one[:16], found[0][:16])


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: check_film("mp4", 1, 64, 64, 8), "still"),
        (lambda: check_film("gif", 2, 64, 64, 0), "fps"),
        (lambda: check_film("gif", 2, 64, 64, MAX_FPS + 1), "fps"),
        (lambda: check_film("awebp", 32, 2048, 2048, 8), "pixels"),
        (lambda: check_film("mp4", 2, 63, 64, 8), "even"),
    ],
)
def test_films_that_cannot_be_are_refused(refused: Callable[[], None], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        refused()
