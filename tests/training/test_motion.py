"""Laws of made-up motion: what the words name moves that way, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from training import encode, motion
from training.pictures import Picture, Pixels, pyramid

HORIZON = 0.5
SIDE = 704, 1408


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
    film = motion.clouds(pixels, HORIZON, right)
    assert film is not None
    before, after = film(3), film(4)
    sky = slice(0, 300), slice(200, 1200)
    assert shift_of(before[sky], after[sky]) == (motion.DRIFT_PX if right else -motion.DRIFT_PX)
    np.testing.assert_array_equal(before[SIDE[0] // 2 + 40 :], pixels[SIDE[0] // 2 + 40 :])
    np.testing.assert_array_equal(after[SIDE[0] // 2 + 40 :], pixels[SIDE[0] // 2 + 40 :])


def test_waves_move_water_alone_and_come_again() -> None:
    pixels = seascape()
    film = motion.waves(pixels, HORIZON)
    assert film is not None
    before, after = film(3), film(4)
    np.testing.assert_array_equal(after[:320], pixels[:320])
    moved = np.abs(after[600:].astype(int) - before[600:]).mean()
    assert moved > 2
    np.testing.assert_allclose(film(3 + motion.WAVE_FRAMES), before, atol=1)


def test_a_picture_without_sky_or_water_has_no_film() -> None:
    pixels = seascape()
    assert motion.clouds(pixels, 0.0, right=True) is None
    assert motion.waves(pixels, 0.98) is None


def test_snow_goes_polewards_and_uphill_and_not_into_the_sea() -> None:
    pixels = noise((512, 512), 1)
    heights = np.full((256, 256), 120, np.uint8)
    heights[:, :64] = 20  # sea
    heights[:, 192:] = 220  # mountains
    latitude = np.linspace(80, 20, 512).astype(np.float32)
    film = motion.seasons(pixels, heights, latitude)
    white = [film(time).mean() for time in (0, 6, 12, motion.SEASON_FRAMES)]
    assert white == sorted(white, reverse=True) and white[0] > white[-1] + 5
    for time in (0, 8):
        frame = film(time).astype(int)
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
    earth = Picture(
        "earth",
        "planet",
        False,
        pyramid(Image.fromarray(pixels)),
        heights=np.full((512, 640), 150, np.uint8),
        north_deg=80.0,
        south_deg=40.0,
    )
    grid = np.arange(15 * 19).reshape(15, 19).astype(np.int32)
    sentences = {f"caption {index}": index for index in range(grid.size)}
    found = list(motion.clips(earth, pixels, np.random.default_rng(0)))
    assert len(found) == 3
    for one in found:
        assert one.words in (motion.THAW, motion.FREEZE)
        assert one.top % motion.EARTH_STEP_PX == one.left % motion.EARTH_STEP_PX == 0
        assert [part.shape for part in one.before] == [part.shape for part in one.after]
        told = encode.moving(grid, one, 2, sentences)
        row, col = one.top // encode.CAPTION_STRIDE_PX, one.left // encode.CAPTION_STRIDE_PX
        assert list(sentences)[told[0, 0]] == f"caption {grid[row, col]}, {one.words}"


def test_clips_of_a_photograph_say_what_moves() -> None:
    pixels = seascape()
    picture = Picture("it", "scroll", False, pyramid(Image.fromarray(pixels)), "a sea", horizon=0.5)
    assert not list(motion.clips(picture, pixels, np.random.default_rng(0)))
    picture = replace(picture, clouds=True, water=True)
    words = [one.words for one in motion.clips(picture, pixels, np.random.default_rng(0))]
    assert words[0] in (motion.CLOUDS_LEFT, motion.CLOUDS_RIGHT) and words[1:] == [motion.WAVES]
    sentences = {"a sea": 0}
    clip = next(motion.clips(picture, pixels, np.random.default_rng(0)))
    for level, shape in enumerate([(1, 1), (1, 4), (4, 10)]):
        told = encode.moving(np.zeros(shape, np.int32), clip, level, sentences)
        assert told.shape == shape
        assert list(sentences)[told[0, 0]] == f"a sea, {words[0]}"
