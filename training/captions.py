"""Captions: written by hand for the landscapes, computed from the picture for the relief map.

The relief map has no captions, but it has colours, heights and latitudes, and they tell what a
crop shows: how much is land, what covers it, how it rises, where the coast runs, which climate
it lies in. The words are few on purpose, so that each is seen often.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_SAMPLES = 32
"""A crop is judged by this many points to each side: enough for its shares, and quick."""

# Grey levels of the height map; it stretches the lowlands and squeezes the peaks.
_SEA_LEVEL = 96
_LOWLAND = 140  # about 250 m
_HIGHLAND = 190  # about 1,800 m
_SUMMITS = 205  # about 2,600 m

# Mean difference of grey between neighbouring samples over land.
_HILLY, _MOUNTAINOUS = 4.0, 8.5

_ICE, _LAKES, _FOREST, _GRASS, _STEPPE, _RED, _SAND, _ROCK = range(8)
_COVERS = (
    ("snow and ice", "snow and ice"),
    ("a land of blue lakes", "lakes"),
    ("green forest", "forest"),
    ("grassland", "grassland"),
    ("dry brown steppe", "steppe"),
    ("red desert", "red desert"),
    ("sandy desert", "desert"),
    ("bare rock", "rock"),
)
"""What covers the land, in the order of the numbers above: by itself, and as the second."""

_SIDES = {
    (0, -1): "left",
    (0, 1): "right",
    (-1, 0): "top",
    (1, 0): "bottom",
    (-1, -1): "top left",
    (-1, 1): "top right",
    (1, -1): "bottom left",
    (1, 1): "bottom right",
}


def landscape_captions(csv_path: Path) -> dict[str, str]:
    """The caption of every landscape, by file name without extension."""
    return {Path(row["file"]).stem: row["caption"] for row in _rows(csv_path)}


def landscape_tags(csv_path: Path) -> dict[str, tuple[str, ...]]:
    """The tags of every landscape, by file name without extension."""
    return {Path(row["file"]).stem: tuple(row["tags"].split(";")) for row in _rows(csv_path)}


def _rows(csv_path: Path) -> list[dict[str, str]]:
    with csv_path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def earth_caption(colour: Pixels, heights: Pixels, latitude_deg: float) -> str:
    """Say what a crop of the relief map shows.

    Args:
        colour: (H, W, 3) uint8, the crop, north at the top.
        heights: (h, w) uint8, the same crop of the height map, at any resolution.
        latitude_deg: of the crop's middle, north positive.

    Returns:
        For example "satellite view of sandy desert with high mountains, coast on the left,
        subtropical".
    """
    rgb = _sampled(colour).astype(np.int32)
    height = _sampled(heights).astype(np.int32)
    cover = _covers(rgb)
    # Ice shelves float: white at sea level is land to the eye.
    land = (height >= _SEA_LEVEL) | (cover == _ICE)
    land_share = land.mean()

    if land_share < 0.02:
        parts = [_sea(rgb)]
    elif land_share < 0.3:
        place = _side(land)
        where = f"on the {place}" if place else "as islands"
        parts = [f"{_sea(rgb[~land])} with {_cover(cover[land])} {where}"]
    else:
        parts = [_cover(cover[land]) + _relief(height, land)]
        if land_share < 0.97:
            place = _side(~land)
            parts.append(f"coast on the {place}" if place else "sea and broken coasts")
    return f"satellite view of {', '.join([*parts, _climate(latitude_deg)])}"


def _sampled(picture: Pixels) -> Pixels:
    rows, columns = (
        (np.arange(_SAMPLES) * side + side // 2) // _SAMPLES for side in picture.shape[:2]
    )
    return picture[rows[:, None], columns]


def _covers(rgb: NDArray[np.int32]) -> NDArray[np.int64]:
    """What covers each point, were it land; bounds read off the map at known places."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    light = red + green + blue
    spread = rgb.max(axis=-1) - rgb.min(axis=-1)
    return np.select(
        [
            (light > 250) & (10 * spread < light / 3),
            blue > red + 8,
            (green >= red) & (light < 235),
            100 * green < 76 * red,
            (light < 310) & (red - blue > 20),
            light < 310,
            (light < 390) | (red - blue < 45),
        ],
        [_ICE, _LAKES, _FOREST, _RED, _GRASS, _ROCK, _STEPPE],
        _SAND,
    )


def _cover(cover: NDArray[np.int64]) -> str:
    """The commonest cover, and the second where it is at least half as common."""
    counts = np.bincount(cover, minlength=len(_COVERS))
    first, second = np.argsort(-counts, kind="stable")[:2]
    if 2 * counts[second] < counts[first]:
        return _COVERS[first][0]
    return f"{_COVERS[first][0]} and {_COVERS[second][1]}"


def _relief(height: NDArray[np.int32], land: NDArray[np.bool_]) -> str:
    """How the land rises, as words to follow its cover."""
    across = np.abs(np.diff(height, axis=1))[land[:, 1:] & land[:, :-1]]
    along = np.abs(np.diff(height, axis=0))[land[1:] & land[:-1]]
    roughness = np.concatenate([across, along, [0]]).mean()
    middle, top = np.percentile(height[land], [50, 90])
    if roughness >= _MOUNTAINOUS or (roughness >= _HILLY and top >= _SUMMITS):
        return " with high mountains" if top >= _SUMMITS else " with mountains"
    if middle >= _HIGHLAND:
        return " on a high plateau"
    if roughness >= _HILLY:
        return " with hills"
    return " in a flat lowland" if middle < _LOWLAND else ""


def _sea(rgb: NDArray[np.int32]) -> str:
    red, green, blue = rgb.reshape(-1, 3).mean(axis=0)
    if blue < 70:
        return "deep dark ocean"
    return "shallow light-blue sea" if green > 95 else "blue ocean"


def _side(mask: NDArray[np.bool_]) -> str:
    """On which side of the crop a mask lies, or nothing where it lies on several."""
    steps = np.linspace(-1, 1, _SAMPLES)
    offsets = []
    for axis in (0, 1):
        profile = mask.mean(axis=1 - axis)
        inside = (profile * steps).sum() / profile.sum()
        outside = ((1 - profile) * steps).sum() / (1 - profile).sum()
        offsets.append(inside - outside)
    far = max(abs(offset) for offset in offsets)
    if far < 0.3:
        return ""
    down, right = (int(np.sign(o)) if abs(o) > far / 2 else 0 for o in offsets)
    return _SIDES[down, right]


def _climate(latitude_deg: float) -> str:
    bounds = ((23.5, "tropical"), (35.0, "subtropical"), (66.5, "temperate"))
    return next((name for bound, name in bounds if abs(latitude_deg) < bound), "polar")
