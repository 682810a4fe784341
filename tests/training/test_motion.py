"""Laws of made-up motion: what the words name moves that way, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from handscroll.course import STEP_PX, SWING_STEPS, course_of
from handscroll.geometry import MAX_FRAMES, Mask
from training import encode, motion
from training.motion import PANS
from training.pictures import Picture, Pixels, pyramid

HORIZON = 0.5
SIDE = 704, 1408
FINEST = 2
ROCK = slice(540, 600), slice(900, 1000)


def noise(shape: tuple[int, int], seed: int) -> Pixels:
    """A soft, grey texture."""
    rng = np.random.default_rng(seed)
    grey = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
    soft = np.asarray(grey.filter(ImageFilter.GaussianBlur(8)), np.float32)
    soft = 128 + (soft - soft.mean()) * 30 / soft.std()
    return np.repeat(soft.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def seascape() -> Pixels:
    """A light sky above dark water."""
    pixels = noise(SIDE, 0)
    pixels[: SIDE[0] // 2] = 190 + pixels[: SIDE[0] // 2] // 8
    pixels[SIDE[0] // 2 :] = (40, 60, 90) + pixels[SIDE[0] // 2 :] // 8
    return pixels


def sea() -> Mask:
    """Where its water is, and a rock of the same colour in it is not."""
    water = np.arange(SIDE[0])[:, None] >= SIDE[0] // 2
    water = np.repeat(water, SIDE[1], axis=1)
    water[ROCK] = False
    return water


def shift_of(before: Pixels, after: Pixels) -> int:
    """How far to the right the second is of the first, by phase correlation."""
    parts = (part.astype(np.float32).mean(-1) for part in (before, after))
    first, second = (np.fft.fft2(part - part.mean()) for part in parts)
    cross = np.conj(first) * second
    peak = np.fft.ifft2(cross / (np.abs(cross) + 1e-3)).real
    col = int(np.unravel_index(peak.argmax(), peak.shape)[1])
    return col if col < before.shape[1] // 2 else col - before.shape[1]


@pytest.mark.parametrize("right", [False, True])
def test_clouds_drift_the_way_the_words_say_and_land_stands(right: bool) -> None:
    pixels = seascape()
    film = motion.clouds(pixels, HORIZON, right, FINEST)
    assert film is not None
    before, after = film.frame(3), film.frame(4)
    sky = slice(0, 300), slice(200, 1200)
    assert shift_of(before[sky], after[sky]) == (STEP_PX if right else -STEP_PX)
    np.testing.assert_array_equal(film.frame(0), pixels)
    np.testing.assert_array_equal(before[SIDE[0] // 2 + 40 :], pixels[SIDE[0] // 2 + 40 :])
    np.testing.assert_array_equal(after[SIDE[0] // 2 + 40 :], pixels[SIDE[0] // 2 + 40 :])


def test_waves_move_water_alone_and_come_again() -> None:
    pixels = seascape()
    film = motion.waves(pixels, sea(), HORIZON, FINEST)
    before, after = film.frame(1), film.frame(2)
    np.testing.assert_array_equal(film.frame(0), pixels)
    np.testing.assert_array_equal(after[:380], pixels[:380])
    np.testing.assert_array_equal(after[550:590, 910:990], pixels[550:590, 910:990])
    near = slice(560, 640), slice(0, 800)
    np.testing.assert_array_equal(after[near], np.roll(pixels, 2 * STEP_PX, axis=0)[near])
    np.testing.assert_array_equal(film.frame(1 + len(SWING_STEPS)), before)


@pytest.mark.parametrize("words", motion.MAP_PANS)
def test_a_camera_moves_over_all_of_a_picture(words: str) -> None:
    pixels = noise(SIDE, 3)
    film = motion.panned(pixels, words, FINEST)
    down, right = course_of(words).moved_px(FINEST, 5, FINEST)
    inner = slice(200, 500), slice(200, 900)
    moved = np.roll(pixels, (down, right), axis=(0, 1))
    np.testing.assert_array_equal(film.frame(5)[inner], moved[inner])
    np.testing.assert_array_equal(film.frame(0), pixels)


def test_what_moves_does_so_by_whole_tokens_at_every_level() -> None:
    pixels = noise(SIDE, 4)
    film = motion.panned(pixels, "the camera moves left", FINEST)
    first, later = film.levels(0), film.levels(3)
    for level, (before, after) in enumerate(zip(first, later, strict=True)):
        _, right = course_of(film.words).moved_px(level, 3, FINEST)
        assert right % STEP_PX == 0
        np.testing.assert_array_equal(after[:, 128:], np.roll(before, right, axis=1)[:, 128:])


def test_a_picture_without_sky_has_no_film_of_clouds() -> None:
    pixels = seascape()
    assert motion.clouds(pixels, 0.0, True, FINEST) is None


def relief(pixels: Pixels, heights: Pixels, north_deg: float, south_deg: float) -> Picture:
    """A map; the heights are as large as its coarsest level."""
    levels = pyramid(Image.fromarray(pixels))
    assert heights.shape == levels[0].shape[:2]
    return Picture(
        "earth",
        "planet",
        False,
        levels,
        heights=heights,
        north_deg=north_deg,
        south_deg=south_deg,
    )


def test_snow_goes_polewards_and_uphill_and_not_into_the_sea() -> None:
    pixels = noise((512, 512), 1)
    heights = np.full((128, 128), 120, np.uint8)
    heights[:, :32] = 20  # sea
    heights[:, 96:] = 220  # mountains
    earth = relief(pixels, heights, 80.0, 20.0)
    thaw, freeze = (motion.seasons(earth, freezes, FINEST) for freezes in (False, True))
    white = [thaw.frame(at).mean() for at in (0, 6, 12, motion.SEASON_FRAMES)]
    assert white == sorted(white, reverse=True) and white[0] > white[-1] + 5
    for at in (0, 6, motion.SEASON_FRAMES):
        back = freeze.frame(motion.SEASON_FRAMES - at)
        np.testing.assert_array_equal(thaw.frame(at), back)
    np.testing.assert_array_equal(thaw.frame(31), thaw.frame(motion.SEASON_FRAMES))
    for at in (0, 8):
        frame = thaw.frame(at).astype(int)
        np.testing.assert_array_equal(frame[:, :100], pixels[:, :100])
        changed = np.abs(frame - pixels).mean(axis=(1, 2))
        assert changed[:100].mean() > changed[-100:].mean()
        uphill, lowland = (
            np.abs(frame - pixels)[:, 420:].mean(),
            frame[:, 160:350] - pixels[:, 160:350],
        )
        assert uphill > np.abs(lowland).mean()


def test_clips_of_the_relief_map_are_cut_where_its_captions_are() -> None:
    pixels = noise((2048, 2560), 2)
    earth = relief(pixels, np.full((512, 640), 120, np.uint8), 80.0, 40.0)
    grid = np.arange(15 * 19).reshape(15, 19).astype(np.int32)
    sentences = {f"caption {index}": index for index in range(grid.size)}
    found = list(motion.clips(earth, np.random.default_rng(0)))
    assert len(found) == 21
    for one in found:
        words = one.film.words
        assert words in (motion.THAW, motion.FREEZE, *motion.MAP_PANS)
        assert 0 <= one.before < one.frame < MAX_FRAMES
        assert one.top % motion.EARTH_STEP_PX == one.left % motion.EARTH_STEP_PX == 0
        shapes = [part.shape for part in one.film.levels(one.frame)]
        assert shapes == [(1024 >> away, 1536 >> away, 3) for away in (2, 1, 0)]
        told = encode.moving(grid, one, one.film.levels(one.frame)[2], 2, sentences)
        row, col = one.top // encode.CAPTION_STRIDE_PX, one.left // encode.CAPTION_STRIDE_PX
        assert list(sentences)[told[0, 0]] == f"caption {grid[row, col]}, {words}"


def test_snow_comes_and_goes_in_nearly_every_clip_of_seasons() -> None:
    """Though it does so in a few places only."""
    heights = np.full((1024, 640), 20, np.uint8)
    heights[384:640] = 120  # a land from 63 to 38 degrees north
    earth = relief(noise((4096, 2560), 2), heights, 100.0, 0.0)
    changed = [
        (one.film.frame(one.frame) != one.film.frame(one.before)).any(axis=-1).mean()
        for one in motion.clips(earth, np.random.default_rng(0))
        if one.film.words in (motion.THAW, motion.FREEZE)
    ]
    assert np.mean(np.array(changed) > motion.SNOWS / 2) > 0.7


def test_variants_keep_their_water() -> None:
    """Cut and mirrored as the photograph is."""
    water = sea()
    pixels = np.repeat(water[..., None], 3, axis=2).astype(np.uint8)
    levels = pyramid(Image.fromarray(pixels))
    picture = Picture("it", "scroll", False, levels, kind="scroll", water=water)
    found = encode.variants(picture)
    assert len(found) == 2
    for one in found:
        np.testing.assert_array_equal(one.levels[-1][..., 0], one.water)
    first, second = (np.argwhere(~one.water[400:])[0] for one in found if one.water is not None)
    assert first[1] == ROCK[1].start and second[1] == SIDE[1] - ROCK[1].stop


def test_clips_of_a_photograph_say_what_moves() -> None:
    pixels = seascape()
    picture = Picture("it", "scroll", False, pyramid(Image.fromarray(pixels)), "a sea", horizon=0.5)

    def told(picture: Picture, seed: int) -> list[str]:
        found = motion.clips(picture, np.random.default_rng(seed))
        return [one.film.words for one in found]

    assert {tuple(told(picture, seed)) for seed in range(60)} == {(), *((one,) for one in PANS)}
    picture = replace(picture, clouds=True, water=sea())
    words = told(picture, 0)
    assert words[0] in (motion.CLOUDS_LEFT, motion.CLOUDS_RIGHT) and words[1] == motion.WAVES
    sentences = {"a sea": 0}
    clip = next(motion.clips(picture, np.random.default_rng(0)))
    for level, shape in enumerate([(1, 1), (1, 4), (4, 10)]):
        shown = clip.film.levels(clip.frame)[level]
        grid = encode.moving(np.zeros(shape, np.int32), clip, shown, level, sentences)
        assert grid.shape == shape
        assert list(sentences)[grid[0, 0]] == f"a sea, {words[0]}"
