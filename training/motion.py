"""Motion made from stills: frames of made-up films, and the words that say what moves.

No film of nature is at hand, so what moves is made up: clouds drift over a photograph's sky, waves
roll in its water, a camera moves over it, snow comes and goes on the relief map. Whatever the words
do not name stays as it is, to the pixel. What moves is, in each frame, where the words' course
(`handscroll.course`) takes it from the first one: by whole tokens, at every level.

Shape suffixes: H W pixels of the finest level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from handscroll.course import course_of
from handscroll.geometry import MAX_FRAMES, Mask
from training.pictures import Picture, Pixels, pyramid

SEASON_FRAMES = 16
"""Frames from winter to summer."""
LAG = 4
"""Seasons are told from any of so many frames before: they must not stand because one stood."""

WINTER_DEG, SUMMER_DEG = 42.0, 74.0
"""Latitudes beyond which the lowlands are white, in the midst of either."""
SNOW_LINE_DEG = 2.0
"""From bare ground to all the snow there is: a wide one would change in every frame."""
SNOW_RGB, MOST_SNOW = (226.0, 232.0, 238.0), 0.85
SEA_LEVEL, DEG_A_GREY = 100, 0.2
"""Grey of the height map above which there is land, and how many degrees of latitude nearer to the
pole it is as cold as where it is a grey level higher."""

EARTH_CLIP_PX = (1024, 1536)
"""Height and width of a clip of the relief map, where there is so much of it."""
EARTH_STEP_PX = 512
"""Parts of the relief map begin at multiples of this, where their captions do too."""
EARTH_PX_A_CLIP = 250_000
SNOWS, PLACES = 0.03, 20
"""The share of such a clip in which snow comes or goes, and how many places are looked at for it:
over most of the Earth it never does."""
FAR = 0.12
"""The share of the height below the horizon in which water stands."""
SOFT_PX = 3
"""Blur of the edge between what moves and what stands: a wide one would show both at once."""
CLIPS_OF_WAVES = 3
"""Of each photograph: there are few of water."""
PANNED, MAP_PANNED = 0.25, 0.1
"""The share of photographs, and of clips of the relief map, over which a camera moves."""

CLOUDS_LEFT, CLOUDS_RIGHT = "clouds drift left", "clouds drift right"
WAVES = "waves roll"
THAW, FREEZE = "winter turns to summer", "summer turns to winter"
PANS = "the camera moves left", "the camera moves right"
MAP_PANS = (*PANS, "the camera moves up", "the camera moves down")

_CLOUD_COLUMNS = 30
_LEAST_ROWS = 8

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Film:
    """A made-up film.

    Attributes:
        words: what moves.
        finest: the finest level.
        draw: the picture (H, W, 3) at a frame, of which what moves has come so many pixels down and
            right.
    """

    words: str
    finest: int
    draw: Callable[[int, int, int], Pixels]

    def frame(self, frame: int) -> Pixels:
        """A frame (H, W, 3) of the finest level."""
        return self.draw(frame, *self._moved_px(frame, self.finest))

    def levels(self, frame: int) -> tuple[Pixels, ...]:
        """A frame at every level, coarsest first, each as things move at it."""
        drawn: dict[tuple[int, int], tuple[Pixels, ...]] = {}
        for level in range(self.finest + 1):
            moved_px = self._moved_px(frame, level)
            if moved_px not in drawn:  # where nothing has gone far, all levels show one picture
                image = Image.fromarray(self.draw(frame, *moved_px))
                drawn[moved_px] = pyramid(image, self.finest + 1)
        return tuple(drawn[self._moved_px(frame, level)][level] for level in range(self.finest + 1))

    def _moved_px(self, frame: int, level: int) -> tuple[int, int]:
        """How far things have come by a level's count, in pixels of the finest."""
        down, right = course_of(self.words).moved_px(level, frame, self.finest)
        return down << self.finest - level, right << self.finest - level


@dataclass(frozen=True)
class Clip:
    """A frame of a film, one before it, and the first.

    Attributes:
        film: it.
        frame, before: which frames; ``before`` is nearly always the one just before.
        top, left: where the film was cut from the picture, in pixels of the finest level.
    """

    film: Film
    frame: int
    before: int
    top: int = 0
    left: int = 0


def clips(picture: Picture, rng: np.random.Generator) -> Iterator[Clip]:
    """Clips of a picture: what can move in it, each with words of its own.

    Args:
        picture: the picture, or a variant of it.
        rng: picks directions, frames and, of the relief map, parts.
    """
    pixels, finest = picture.levels[-1], len(picture.levels) - 1
    if picture.heights is not None:
        count = max(1, round(pixels.shape[0] * pixels.shape[1] / EARTH_PX_A_CLIP))
        for _ in range(count):
            yield _mapped(picture, rng)
        return
    films, right = list[Film | None](), bool(rng.integers(2))
    if picture.clouds:
        films.append(clouds(pixels, picture.horizon, right, finest))
    if picture.water is not None:
        films += CLIPS_OF_WAVES * [waves(pixels, picture.water, picture.horizon, finest)]
    if rng.random() < PANNED:
        films.append(panned(pixels, PANS[right], finest))
    for film in films:
        if film is not None:
            frame = int(rng.integers(1, MAX_FRAMES))
            yield Clip(film, frame, frame - 1)


def _mapped(picture: Picture, rng: np.random.Generator) -> Clip:
    """A part of the relief map, the snow of which comes or goes, or over which a camera moves."""
    finest = len(picture.levels) - 1
    if rng.random() < MAP_PANNED:
        words, frame = MAP_PANS[rng.integers(len(MAP_PANS))], int(rng.integers(1, MAX_FRAMES))
        top, left, part = _part(picture, rng)
        return Clip(panned(part.levels[-1], words, finest), frame, frame - 1, top, left)
    freezes = bool(rng.integers(2))
    frame = int(rng.integers(1, SEASON_FRAMES + 1))
    before = max(0, frame - int(rng.integers(1, LAG + 1)))
    for _ in range(PLACES):
        top, left, part = _part(picture, rng)
        small = seasons(part, freezes, level=0)
        if (small.frame(frame) != small.frame(before)).any(axis=-1).mean() > SNOWS:
            break
    return Clip(seasons(part, freezes, finest), frame, before, top, left)


def _part(picture: Picture, rng: np.random.Generator) -> tuple[int, int, Picture]:
    """A part of the relief map, and where its corner is in pixels of the finest level."""
    whole_px = picture.levels[-1].shape[:2]
    size_px = tuple(
        min(whole // EARTH_STEP_PX * EARTH_STEP_PX, part)
        for whole, part in zip(whole_px, EARTH_CLIP_PX, strict=True)
    )
    top, left = (
        EARTH_STEP_PX * int(rng.integers((whole - part) // EARTH_STEP_PX + 1))
        for whole, part in zip(whole_px, size_px, strict=True)
    )
    return top, left, cut(picture, top, left, *size_px)


def cut(picture: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """A part of the relief map, cut at pixels of its finest level that all levels have."""
    assert picture.heights is not None
    finest, whole = len(picture.levels) - 1, len(picture.levels[-1])

    def within(pixels: Pixels, level: int) -> Pixels:
        rows, cols = (
            slice(start >> finest - level, start + size >> finest - level)
            for start, size in ((top, height), (left, width))
        )
        return pixels[rows, cols]

    north, south = (
        picture.north_deg + row / whole * (picture.south_deg - picture.north_deg)
        for row in (top, top + height)
    )
    return replace(
        picture,
        levels=tuple(within(pixels, level) for level, pixels in enumerate(picture.levels)),
        heights=within(picture.heights, 0),
        north_deg=north,
        south_deg=south,
    )


def panned(pixels: Pixels, words: str, finest: int) -> Film:
    """A picture over which a camera moves; beyond its sides it is mirrored."""
    mirrored = np.concatenate((pixels, pixels[:, ::-1]), axis=1)
    mirrored = np.concatenate((mirrored, mirrored[::-1]))
    height, width, _ = pixels.shape

    def draw(_: int, down: int, right: int) -> Pixels:
        rows, cols = np.arange(height) - down, np.arange(width) - right
        part: Pixels = mirrored[rows[:, None] % (2 * height), cols % (2 * width)]
        return part

    return Film(words, finest, draw)


def clouds(pixels: Pixels, horizon: float, right: bool, finest: int) -> Film | None:
    """A photograph whose sky drifts; None if there is too little of it.

    What stands before the sky stays. The sky behind it, and beyond the picture's sides, is made up:
    each column goes on below as it ends, and beyond the sides the sky is mirrored.

    Args:
        pixels: the photograph (H, W, 3).
        horizon: share of its height above which sky may be.
        right: which way.
        finest: the finest level.
    """
    share_HW = sky(pixels, horizon)
    if share_HW.mean() < 0.08:
        return None
    width = pixels.shape[1]
    behind = _filled(pixels, share_HW)
    mirrored = np.concatenate((behind, behind[:, ::-1]), axis=1)

    def draw(_: int, down: int, right: int) -> Pixels:
        moved = np.roll(mirrored, right, axis=1)[:, :width].astype(np.float32)
        return _laid_over(pixels, moved, share_HW) if right else pixels

    return Film(CLOUDS_RIGHT if right else CLOUDS_LEFT, finest, draw)


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
    return _softened(grown, 5)


def _softened(mask: Image.Image, radius_px: float) -> Field:
    """The share of each pixel (H, W) that lies in a mask with a blurred edge."""
    blurred = np.asarray(mask.filter(ImageFilter.GaussianBlur(radius_px)), np.float32)
    share: Field = blurred / np.float32(255)
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


def waves(pixels: Pixels, water: Mask, horizon: float, finest: int) -> Film:
    """A photograph whose water rolls to and fro, but at the horizon.

    What stands in the water stays, and so does the water next to it.

    Args:
        pixels: the photograph (H, W, 3).
        water: where there is any (H, W).
        horizon: share of the photograph's height.
        finest: the finest level.
    """
    height = len(pixels)
    near = np.arange(height)[:, None] > height * (horizon + FAR * (1 - horizon))
    moving = Image.fromarray(np.where(water & near, 255, 0).astype(np.uint8))
    share_HW = _softened(moving, SOFT_PX)

    def draw(_: int, down: int, right: int) -> Pixels:
        rows = np.abs(np.arange(height) - down)
        rows = height - 1 - np.abs(height - 1 - rows)  # beyond a side it is mirrored
        moves_HW = np.minimum(share_HW, share_HW[rows])
        return _laid_over(pixels, pixels[rows].astype(np.float32), moves_HW) if down else pixels

    return Film(WAVES, finest, draw)


def seasons(picture: Picture, freezes: bool, level: int) -> Film:
    """A part of the relief map whose snow retreats polewards and uphill, or comes back.

    Args:
        picture: the map.
        freezes: whether it comes; the first frame is in summer then, and else in winter.
        level: of the picture, the finest of the film.
    """
    assert picture.heights is not None
    pixels = picture.levels[level]
    height, width, _ = pixels.shape
    image = Image.fromarray(picture.heights).resize((width, height), Image.Resampling.BILINEAR)
    high = np.asarray(image.filter(ImageFilter.GaussianBlur(2)), np.float32) - SEA_LEVEL
    land = np.clip(high / 6, 0, 1)
    south = (np.arange(height)[:, None] + 0.5) / height
    latitude_deg = picture.north_deg + south * (picture.south_deg - picture.north_deg)
    cold_deg = (np.abs(latitude_deg) + DEG_A_GREY * high).astype(np.float32)
    light = pixels.astype(np.float32).mean(-1)
    around = Image.fromarray(light.astype(np.uint8)).filter(ImageFilter.GaussianBlur(12))
    relief = np.clip((light + 20) / (np.asarray(around, np.float32) + 20), 0.7, 1.15)
    snow = np.clip(np.array(SNOW_RGB, np.float32) * relief[..., None], 0, 255)

    def draw(frame: int, down: int, right: int) -> Pixels:
        passed = min(frame, SEASON_FRAMES) / SEASON_FRAMES
        warmth = 1 - passed if freezes else passed
        line_deg = WINTER_DEG + (SUMMER_DEG - WINTER_DEG) * warmth
        share = np.clip((cold_deg - line_deg) / SNOW_LINE_DEG, 0, MOST_SNOW)
        return _laid_over(pixels, snow, share * land)

    return Film(FREEZE if freezes else THAW, level, draw)
