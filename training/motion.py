"""Motion made from stills: pairs of frames, one after the other, and the words that say what moves.

No film of nature is at hand, so what moves is made up: clouds drift over a photograph's sky, waves
roll through its water, snow comes and goes on the relief map. Whatever the words do not name stays
as it is, to the pixel. A frame is a function of the picture and the time, so a pair may be taken
from anywhere in a film.

Shape suffixes: H W pixels of the finest level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.pictures import Picture, Pixels, pyramid

DRIFT_PX = 32
"""How far clouds move in a frame, in pixels of the finest level: by whole tokens there and at the
level above it, so that what moves is the same tokens at other places."""
WAVE_FRAMES = 8
"""Frames from one wave to the next."""
WAVE_PX = 9.0
"""How far waves move what is nearest."""
SEASON_FRAMES = 16
"""Frames from winter to summer."""

WINTER_DEG, SUMMER_DEG = 44.0, 84.0
"""Latitudes beyond which the lowlands are white, in the midst of either."""
SNOW_RGB = (226.0, 232.0, 238.0)
SEA_LEVEL = 100
"""Grey of the height map above which there is land."""

EARTH_CLIP_PX = (1536, 2048)
"""Height and width of a clip of the relief map, where there is so much of it."""
EARTH_STEP_PX = 512
"""Parts of the relief map begin at multiples of this, where their captions do too."""
EARTH_PX_A_CLIP = 1_500_000

CLOUDS_LEFT, CLOUDS_RIGHT = "clouds drift left", "clouds drift right"
WAVES = "waves roll"
THAW, FREEZE = "winter turns to summer", "summer turns to winter"

UNCLEAR_WATER = frozenset(
    "bwerner1 canyon5 fog0 lava1 myrabella0 myrabella4 sea0 sea7 sea8 sea16-harro "
    "water11-harro".split()
)
"""Photographs of which something else would be taken for water."""

_CLOUD_COLUMNS = 30
_LEAST_ROWS = 8

Field = NDArray[np.float32]
Film = Callable[[float], Pixels]
"""The frame (H, W, 3) at a time, counted in frames."""


class Clip(NamedTuple):
    """Two frames of a film, one after the other.

    Attributes:
        words: what moves.
        before, after: the frames at every level, coarsest first.
        top, left: where they were cut from the picture, in pixels of the finest level.
    """

    words: str
    before: tuple[Pixels, ...]
    after: tuple[Pixels, ...]
    top: int = 0
    left: int = 0


def clips(picture: Picture, pixels: Pixels, rng: np.random.Generator) -> Iterator[Clip]:
    """Clips of a picture: what can move in it, each with words of its own.

    Args:
        picture: the picture.
        pixels: it, or its mirror image, (H, W, 3) at the finest level.
        rng: picks directions, times and, of the relief map, parts.
    """
    if picture.heights is not None:
        count = max(1, round(pixels.shape[0] * pixels.shape[1] / EARTH_PX_A_CLIP))
        for _ in range(count):
            yield _season(picture, pixels, rng)
        return
    films: dict[str, Film] = {}
    if picture.clouds:
        right = bool(rng.integers(2))
        drifting = clouds(pixels, picture.horizon, right)
        if drifting is not None:
            films[CLOUDS_RIGHT if right else CLOUDS_LEFT] = drifting
    if picture.water and picture.name not in UNCLEAR_WATER:
        rolling = waves(pixels, picture.horizon)
        if rolling is not None:
            films[WAVES] = rolling
    for words, film in films.items():
        yield _clip(words, film, time=int(rng.integers(1, 32)))


def _clip(words: str, film: Film, time: int, step: int = 1) -> Clip:
    """The frame at a time, and the one before it."""
    before, after = (pyramid(Image.fromarray(film(at))) for at in (time - step, time))
    return Clip(words, before, after)


def _season(picture: Picture, pixels: Pixels, rng: np.random.Generator) -> Clip:
    """A part of the relief map, the snow of which comes or goes."""
    size = [
        min(whole // EARTH_STEP_PX * EARTH_STEP_PX, part)
        for whole, part in zip(pixels.shape, EARTH_CLIP_PX, strict=False)
    ]
    top, left = (
        EARTH_STEP_PX * int(rng.integers((whole - part) // EARTH_STEP_PX + 1))
        for whole, part in zip(pixels.shape, size, strict=False)
    )
    rows, cols = slice(top, top + size[0]), slice(left, left + size[1])
    assert picture.heights is not None
    scale = len(pixels) // len(picture.heights)
    heights = picture.heights[
        rows.start // scale : rows.stop // scale, cols.start // scale : cols.stop // scale
    ]
    south = (np.arange(rows.start, rows.stop) + 0.5) / len(pixels)
    latitude_deg = picture.north_deg + south * (picture.south_deg - picture.north_deg)
    film = seasons(pixels[rows, cols], heights, latitude_deg.astype(np.float32))
    time = int(rng.integers(1, SEASON_FRAMES))
    if rng.integers(2):
        return _clip(THAW, film, time)._replace(top=top, left=left)
    return _clip(FREEZE, film, time, step=-1)._replace(top=top, left=left)


def clouds(pixels: Pixels, horizon: float, right: bool) -> Film | None:
    """A photograph whose sky drifts; None if there is too little of it.

    What stands before the sky stays. The sky behind it, and beyond the picture's sides, is made up:
    each column goes on below as it ends, and beyond the sides the sky is mirrored.

    Args:
        pixels: the photograph (H, W, 3).
        horizon: share of its height above which sky may be.
        right: which way.
    """
    share_HW = sky(pixels, horizon)
    if share_HW.mean() < 0.08:
        return None
    width = pixels.shape[1]
    behind = _filled(pixels, share_HW)
    mirrored = np.concatenate((behind, behind[:, ::-1]), axis=1).astype(np.float32)

    def film(time: float) -> Pixels:
        shift = round(DRIFT_PX * time) * (1 if right else -1)
        moved = np.roll(mirrored, shift, axis=1)[:, :width]
        return _laid_over(pixels, moved, share_HW)

    return film


def sky(pixels: Pixels, horizon: float) -> Field:
    """How much of each pixel is sky (H, W): from the top down to the first hard edge."""
    height, width, _ = pixels.shape
    small = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(3)).reduce(4)
    light = np.asarray(small, np.float32)
    edge = np.abs(np.diff(light, axis=0)).max(-1)
    rows = len(edge)
    limit = min(rows, round((horizon + 0.02) * rows))
    if limit < _LEAST_ROWS:
        return np.zeros((height, width), np.float32)
    hard = edge[:limit] > np.maximum(14.0, 5 * np.median(edge[: max(4, limit // 3)], axis=0))
    hard[:2] = False
    first = np.where(hard.any(axis=0), hard.argmax(axis=0), limit)
    ends = _closed(first, _CLOUD_COLUMNS) - 2
    mask = np.arange(rows + 1)[:, None] < ends[None, :]
    grown = Image.fromarray((255 * mask).astype(np.uint8)).resize((width, height))
    soft = grown.filter(ImageFilter.GaussianBlur(5))
    share: Field = np.asarray(soft, np.float32) / np.float32(255)
    return share


def _closed(ends: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """A skyline without its narrow dents: they are edges of clouds."""
    padded = np.pad(ends, width, mode="reflect")
    upper = np.lib.stride_tricks.sliding_window_view(padded, width + 1).max(axis=1)
    found: NDArray[np.int64] = np.lib.stride_tricks.sliding_window_view(upper, width + 1).min(1)
    return found


def _filled(pixels: Pixels, share_HW: Field) -> Pixels:
    """The sky alone: below its end each column goes on as it is there."""
    clear = share_HW > 0.98
    rows = np.arange(len(pixels))[:, None]
    last = np.where(clear, rows, 0).max(axis=0)
    mirrored = np.abs(last - np.abs(last - np.minimum(rows, 2 * last)))
    filled: Pixels = np.take_along_axis(pixels, np.clip(mirrored, 0, last)[..., None], axis=0)
    return filled


def _laid_over(pixels: Pixels, moved_HW3: Field, share_HW: Field) -> Pixels:
    share = share_HW[..., None]
    mixed = moved_HW3 * share + pixels * (1 - share)
    return np.where(share > 0, mixed.round(), pixels).astype(np.uint8)


def waves(pixels: Pixels, horizon: float) -> Film | None:
    """A photograph whose water rolls towards the shore; None if there is too little of it.

    Args:
        pixels: the photograph (H, W, 3).
        horizon: share of its height below which water may be.
    """
    share_HW = water(pixels, horizon)
    if share_HW.mean() < 0.08:
        return None
    height, width, _ = pixels.shape
    rows, cols = np.mgrid[:height, :width].astype(np.float32)
    top = horizon * height
    near = np.clip((rows - top) / (height - top), 0.02, 1)  # 0 at the horizon, 1 at our feet
    depth = 9 * np.log(near)
    source = np.pad(pixels, ((0, 1), (0, 1), (0, 0)), mode="edge").astype(np.float32)

    def film(time: float) -> Pixels:
        phase = 2 * np.pi * time / WAVE_FRAMES
        swell = np.sin(depth - phase + 2 * np.sin(cols / width * 5)) + 0.5 * np.sin(
            1.7 * depth - 2 * phase + cols / (60 * near + 20)
        )
        sway = np.sin(1.3 * depth - phase + cols / (90 * near + 30))
        reach = WAVE_PX * near * share_HW
        moved = _sampled(source, rows + reach * swell, cols + reach * sway)
        lit = moved + 9 * (np.sqrt(near) * swell)[..., None]
        return _laid_over(pixels, np.clip(lit, 0, 255), share_HW)

    return film


def water(pixels: Pixels, horizon: float) -> Field:
    """How much of each pixel is water (H, W): like what lies just below the horizon, or foam."""
    height = len(pixels)
    top = round(horizon * height)
    if top > 0.9 * height:
        return np.zeros(pixels.shape[:2], np.float32)
    blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4))
    colour = np.asarray(blurred, np.float32)
    light = colour.mean(-1)
    band = slice(top + height // 40, top + height // 4)
    tint = colour / (light[..., None] + 1)
    wanted = np.median(tint[band], axis=(0, 1))
    usual = np.median(light[band])
    like = (np.abs(tint - wanted).max(-1) < 0.16) & (light > 0.55 * usual)
    foam = (light > 1.1 * usual) & (colour.max(-1) - colour.min(-1) < 40)
    mask = (like | foam) & (np.arange(height)[:, None] > top)
    sure = Image.fromarray((255 * mask).astype(np.uint8)).filter(ImageFilter.MinFilter(9))
    soft = sure.filter(ImageFilter.GaussianBlur(8))
    share: Field = np.asarray(soft, np.float32) / np.float32(255)
    return share


def _sampled(source: Field, rows: Field, cols: Field) -> Field:
    """A picture, one pixel larger each way, at places between its pixels."""
    height, width = (size - 1 for size in source.shape[:2])
    rows = (height - 1) - np.abs(height - 1 - np.abs(rows))  # beyond a side it is mirrored
    cols = (width - 1) - np.abs(width - 1 - np.abs(cols))
    row, col = rows.astype(np.int32), cols.astype(np.int32)
    down, right = (rows - row)[..., None], (cols - col)[..., None]
    above = source[row, col] * (1 - right) + source[row, col + 1] * right
    below = source[row + 1, col] * (1 - right) + source[row + 1, col + 1] * right
    mixed: Field = above * (1 - down) + below * down
    return mixed


def seasons(pixels: Pixels, heights: Pixels, latitude_deg: Field) -> Film:
    """A part of the relief map whose snow retreats polewards and uphill: winter is at time 0.

    Args:
        pixels: the map (H, W, 3).
        heights: the same part of the height map, of any size.
        latitude_deg: of every row (H,).
    """
    height, width, _ = pixels.shape
    image = Image.fromarray(heights).resize((width, height), Image.Resampling.BILINEAR)
    level = np.asarray(image.filter(ImageFilter.GaussianBlur(2)), np.float32)
    land = np.clip((level - SEA_LEVEL) / 6, 0, 1)
    cold = np.abs(latitude_deg)[:, None] + 0.2 * (level - SEA_LEVEL)
    light = pixels.astype(np.float32).mean(-1)
    around = Image.fromarray(light.astype(np.uint8)).filter(ImageFilter.GaussianBlur(12))
    relief = np.clip((light + 20) / (np.asarray(around, np.float32) + 20), 0.7, 1.15)
    snow = np.array(SNOW_RGB, np.float32) * relief[..., None]

    def film(time: float) -> Pixels:
        warmth = time / SEASON_FRAMES
        share = np.clip((cold - (WINTER_DEG + (SUMMER_DEG - WINTER_DEG) * warmth)) / 5, 0, 0.85)
        return _laid_over(pixels, np.clip(snow, 0, 255), (share * land).astype(np.float32))

    return film
