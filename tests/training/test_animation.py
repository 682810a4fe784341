"""Laws of the figures of motion: what was put in comes out, and stillness is 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from handscroll.checkpoint import Checkpoint
from handscroll.course import PAN_STEPS, STEP_PX
from handscroll.geometry import Extent
from handscroll.known import digest_of
from training import animation, motion, pictures
from training.animation import (
    CODED,
    MADE,
    PAINTED,
    WORDLESS,
    Cinema,
    Film,
    Scene,
    Table,
    figures,
    imagined,
    mapped,
    photographed,
)
from training.evaluate import Report
from training.movement import (
    brightening,
    changes,
    displacement,
    sky_rows,
    token_changes,
    tokens_within,
)
from training.pictures import Picture, Pixels, pyramid

HEIGHT, WIDTH = 256, 512


def cloudy(seed: int, height: int, width: int) -> Pixels:
    """Soft blobs of all sizes from some ten pixels up."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for size in (8, 32):
        cells = rng.integers(0, 256, (height // size + 2, width // size + 2, 3)).astype(np.uint8)
        total += np.asarray(
            Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        )
    return (total / 2).astype(np.uint8)


def drifting(shift: int, frames: int = 4, noise: float = 0.0) -> list[Pixels]:
    """Clouds that move to the right above a ground that stays."""
    sky, ground = cloudy(0, HEIGHT // 2, WIDTH + 200), cloudy(1, HEIGHT // 2, WIDTH) // 2
    found = []
    for time in range(frames):
        start = 100 - shift * time
        frame = np.concatenate((sky[:, start : start + WIDTH], ground)).astype(np.float64)
        frame[: HEIGHT // 2] += np.random.default_rng(time).normal(0, noise or 1e-9, (1, 1, 3))
        grain = np.random.default_rng(time).normal(0, noise or 1e-9, (HEIGHT // 2, WIDTH, 3))
        frame[: HEIGHT // 2] += grain
        found.append(frame.clip(0, 255).round().astype(np.uint8))
    return found


UPPER = np.repeat(np.arange(HEIGHT)[:, None] < HEIGHT // 2, WIDTH, axis=1)


def scene(words: str, first: Pixels | None = None) -> Scene:
    return Scene("a", "scroll", words, "", 1, first, UPPER, ~UPPER, None)


def still_codes(frames: int) -> np.ndarray:
    return np.zeros((frames, HEIGHT // 16, WIDTH // 16, 4), np.uint8)


@settings(max_examples=20)
@given(st.integers(-30, 30), st.integers(-30, 30))
def test_displacement_is_the_one_put_in(down: int, right: int) -> None:
    wide = cloudy(3, 264, 464)
    before, after = wide[32:232, 32:432], wide[32 - down : 232 - down, 32 - right : 432 - right]
    assert displacement(before, after) == (down, right)


def test_displacement_is_found_under_grain_that_does_not_move() -> None:
    frames = drifting(8, noise=12)
    assert displacement(frames[0][:128], frames[1][:128]) == (0, 8)


def test_displacement_of_what_stays_and_of_an_empty_sky_is_none() -> None:
    frame = cloudy(0, 128, 256)
    assert displacement(frame, frame) == (0, 0)
    blue = np.full((128, 256, 3), (90, 140, 220), np.uint8)
    assert displacement(blue, blue) == (0, 0)


def test_changes_are_those_inside_the_mask_alone() -> None:
    frames = drifting(8)
    frames[2][HEIGHT // 2 :] += 3
    np.testing.assert_allclose(changes(frames, ~UPPER), (0, 3, 3))
    assert changes(frames, UPPER).min() > 5
    np.testing.assert_allclose(brightening(frames, ~UPPER), (0, 3, -3))
    assert np.isnan(changes(frames, np.zeros_like(UPPER))).all()
    assert np.isnan(brightening(frames, np.zeros_like(UPPER))).all()


def test_token_changes_count_tokens_not_codes() -> None:
    codes = still_codes(3)
    codes[1:, 0, :4] = 7  # four tokens, all codes, once
    codes[2, 1, 0, 3] = 1  # one token, one code
    mask = np.zeros(codes.shape[1:3], bool)
    mask[:2, :10] = True
    np.testing.assert_allclose(token_changes(codes, mask), (4 / 20, 1 / 20))
    assert np.isnan(token_changes(codes, np.zeros_like(mask))).all()


def test_tokens_and_rows_within_a_mask_lie_wholly_in_it() -> None:
    mask = np.zeros((64, 96), bool)
    mask[:40, 8:] = True
    within = tokens_within(mask, 16)
    assert within.shape == (4, 6)
    assert within[:2, 1:].all()
    assert within.sum() == 10
    assert sky_rows(mask) == 40
    assert sky_rows(~mask) == 0
    assert sky_rows(np.ones((5, 5), bool)) == 5


@pytest.mark.parametrize(
    ("words", "asked", "right"), [(motion.CLOUDS_RIGHT, 8, 1), (motion.CLOUDS_LEFT, -8, 0)]
)
def test_clouds_that_drift_right_follow_one_caption_and_not_the_other(
    words: str, asked: float, right: float
) -> None:
    found = figures(Film(drifting(8), still_codes(4)), scene(words), 16)
    assert found.still == 0
    assert found.tokens == 0
    assert found.asked == asked
    assert found.right == right
    assert np.isnan(found.first)


def test_step_from_a_photograph_is_told_from_the_others() -> None:
    frames = drifting(8)
    frames[0][HEIGHT // 2 :] += 5
    found = figures(Film(frames, still_codes(4)), scene(motion.CLOUDS_RIGHT, frames[0]), 16)
    assert found.first == 5
    assert found.still == 0


def test_waves_have_no_way_and_seasons_have_one() -> None:
    frames = drifting(8)
    waves = figures(Film(frames, still_codes(4)), scene(motion.WAVES), 16)
    assert np.isnan(waves.right)
    assert waves.asked == waves.moving > 5
    snow = [np.full((HEIGHT, WIDTH, 3), 60 + 10 * time, np.uint8) for time in range(4)]
    for words, way in ((motion.FREEZE, 1), (motion.THAW, -1)):
        found = figures(Film(snow, still_codes(4)), scene(words)._replace(world="planet"), 16)
        assert found.asked == pytest.approx(10 * way)
        assert found.right == (way > 0)


def test_table_leaves_out_films_without_a_figure() -> None:
    table = Table()
    for asked in (1.0, 3.0, np.nan):
        table.add(PAINTED, animation.Figures(0, np.nan, 0, 1, asked, np.nan))
    found = table.estimate(PAINTED, "asked")
    assert found is not None
    assert found.value == 2
    assert table.estimate(PAINTED, "right") is None
    (row,) = table.rows()
    assert row[:2] == (PAINTED, "3")
    assert row[-1] == "–"


def photograph(seed: int, name: str) -> Picture:
    """Clouds over water, a hard line between them."""
    pixels = cloudy(seed, 704, 1408)
    pixels = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(12))).copy()
    pixels[:352] = pixels[:352] // 4 + 150
    pixels[352:] = pixels[352:] // 8 + np.array((20, 60, 90), np.uint8)
    levels = pyramid(Image.fromarray(pixels))
    water = np.repeat(np.arange(704)[:, None] >= 352, 1408, axis=1)
    return Picture(name, "scroll", True, levels, "sky", horizon=0.5, clouds=True, water=water)


def relief() -> Picture:
    levels = pyramid(Image.fromarray(cloudy(5, 2048, 1024) // 4 + 60))
    heights = np.full(levels[0].shape[:2], 120, np.uint8)
    heights[:, :100] = 40
    return Picture("map", "planet", True, levels, heights=heights, north_deg=90.0, south_deg=-90.0)


def test_scenes_of_pictures_move_and_stand_still_where_the_made_up_film_does() -> None:
    found = [*photographed([photograph(0, "a"), photograph(1, "b")], 4, 1), *mapped(relief(), 4, 2)]
    words = [one.words for one in found]
    assert words == [
        *motion.PANS,
        motion.CLOUDS_LEFT,
        motion.CLOUDS_RIGHT,
        motion.WAVES,
        *[motion.THAW] * 2,
        *[motion.FREEZE] * 2,
    ]
    for one in found:
        assert one.film is not None
        assert one.first is not None
        np.testing.assert_array_equal(one.first, one.film.frame(0))
        made = [one.film.frame(number) for number in range(4)]
        film = Film(made, np.zeros((4, *(size // 16 for size in one.still.shape), 4), np.uint8))
        own = figures(film, one, 16)
        assert own.still == 0 or not one.still.any()
        if one.words in (motion.CLOUDS_LEFT, motion.CLOUDS_RIGHT):
            assert own.asked == pytest.approx(STEP_PX, abs=1)
        if one.words in motion.PANS:
            assert own.asked == pytest.approx(PAN_STEPS * STEP_PX, abs=1)
        if one.words in animation.SIGNS and np.isfinite(own.asked):
            assert own.right == 1
    assert found[0].moving.all() and not found[0].still.any()
    assert not found[2].moving[400:].any()
    assert not found[4].moving[:340].any()
    assert found[5].still[:, :300].all()  # the sea
    snow = [one.moving.mean() for one in found[5:]]
    assert snow[0] >= snow[1] > 0 and snow[2] >= snow[3] > 0


def test_scenes_from_words_are_each_a_seed_of_their_own_and_have_no_first_frame() -> None:
    found = list(imagined(2))
    assert len(found) == 2 * len(animation.PROMPTS)
    for one in found:
        assert one.first is None
        assert not (one.moving & one.still).any()
    waves = next(one for one in found if one.words == motion.WAVES)
    assert waves.moving[-1].all()
    assert waves.still[0].all()


def small(words: str, first: Pixels | None) -> Scene:
    """A scene of few patches."""
    mask = np.zeros((384, 256), bool)
    mask[:128] = True
    return Scene("a", "scroll", words, "", 1, first, mask, ~mask, None)


def test_cinema_paints_a_film_once_and_its_tokens_are_those_of_its_pixels(
    model: Checkpoint, tmp_path: Path
) -> None:
    first = cloudy(0, 384, 256)
    cinema, one = Cinema(model, tmp_path, 2), small("", first)
    film = cinema.film(one, 3)
    assert [frame.shape for frame in film.frames] == [(384, 256, 3)] * 3
    np.testing.assert_array_equal(film.frames[0], first)
    assert film.codes_FhwK.shape == (3, 24, 16, 4)
    given = animation.coded(model.tokenizer, [first])
    np.testing.assert_array_equal(film.codes_FhwK[0], given.codes_FhwK[0])
    assert (film.codes_FhwK[1] != film.codes_FhwK[2]).any()
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    again = Cinema(model, tmp_path, 1).film(one, 3)
    np.testing.assert_array_equal(again.frames, film.frames)
    assert path.stat().st_mtime_ns == before
    known = cinema.canvas(one, 3).known
    assert known is not None
    assert known.picture == digest_of(first)
    assert cinema.canvas(one, 3).extent == Extent("picture", 2, 384, 256)


def test_film_from_words_alone_is_painted_from_its_first_frame_on(
    model: Checkpoint, tmp_path: Path
) -> None:
    cinema, one = Cinema(model, tmp_path, 2), small("", None)
    film = cinema.film(one, 2)
    assert cinema.canvas(one, 2).known is None
    assert [frame.shape for frame in film.frames] == [(384, 256, 3)] * 2
    assert film.codes_FhwK.shape == (2, 24, 16, 4)
    assert np.isnan(figures(film, one, 16).first)
    assert figures(film, one, 16).still > 0  # nobody taught this model to hold still


def test_identical_tokens_are_decoded_to_identical_pixels(model: Checkpoint) -> None:
    frame = cloudy(0, 128, 128)
    film = animation.coded(model.tokenizer, [frame, frame])
    assert changes(film.frames, np.ones((128, 128), bool)).tolist() == [0]
    assert token_changes(film.codes_FhwK, np.ones((8, 8), bool)).tolist() == [0]


class Playing(Cinema):
    """A cinema whose films do as they are told, and nothing when nothing is said."""

    def film(self, scene: Scene, frames: int) -> Film:
        assert scene.film is not None
        made = [scene.film.frame(number if scene.words else 0) for number in range(frames)]
        codes = np.zeros((frames, *(size // 16 for size in scene.still.shape), 4), np.uint8)
        return Film(made, codes)


def test_report_tells_what_follows_from_what_does_not(model: Checkpoint, tmp_path: Path) -> None:
    held = [photograph(seed, f"{seed}") for seed in range(2)]
    asked = [one for one in photographed(held, 3, 2) if one.words == motion.CLOUDS_LEFT]
    report = Report("a")
    animation.measure(report, Playing(model, tmp_path, 1), "photographs", asked, 3, tmp_path)
    text = report.text()
    lines = {
        line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:]
        for line in text.splitlines()
        if line.startswith("| ")
    }
    assert lines["photographs: “clouds drift left” is followed"][-1].startswith("met")
    assert lines[PAINTED][1].startswith("0.00")
    assert lines[PAINTED][5].startswith(f"{STEP_PX}.00")
    assert lines[WORDLESS][5].startswith("0.00")
    assert lines[MADE][5].startswith(f"{STEP_PX}.00")
    assert CODED in lines
    with Image.open(tmp_path / "photographs_clouds_drift_left.webp") as sheet:
        assert sheet.size == (3 * 352, 2 * 176)


def test_scenes_come_by_what_they_begin_with_and_what_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = replace(photograph(2, "seen"), held_out=False)
    monkeypatch.setattr(pictures, "load", lambda folder: [seen, photograph(0, "a"), relief()])
    found = animation.scenes(tmp_path, ["scroll", "planet"], 3, 1)
    assert [(kind, words, len(some)) for (kind, words), some in found.items()] == [
        *(("photographs", words, 1) for words in motion.PANS),
        ("photographs", motion.CLOUDS_LEFT, 1),
        ("photographs", motion.CLOUDS_RIGHT, 1),
        ("photographs", motion.WAVES, 1),
        ("relief map", motion.THAW, 1),
        ("relief map", motion.FREEZE, 1),
        ("from words", motion.CLOUDS_RIGHT, 1),
        ("from words", motion.CLOUDS_LEFT, 1),
        ("from words", motion.WAVES, 1),
    ]
    assert {one.name for one in found["photographs", motion.WAVES]} == {"a"}
    of_a_map: Sequence[tuple[str, str]] = list(animation.scenes(tmp_path, ["planet"], 3, 1))
    assert of_a_map == [("relief map", motion.THAW), ("relief map", motion.FREEZE)]
