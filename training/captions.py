"""Captions: written by hand for the landscapes, computed from the picture for the relief map.

The relief map has no captions, but it has colours, heights and latitudes, and they tell what a
crop shows: how much is land, what covers it, how it rises, where the coast runs, which climate
it lies in. The words are few on purpose, so that each is seen often.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_SAMPLES = 32
"""A crop is judged by this many points to each side: enough for its shares, and quick."""

# Grey levels of the height map; it stretches the lowlands and squeezes the peaks.
_SEA_LEVEL = 96
_SHALLOWS = 102  # up to here what is blue is sea, above it is a lake
_LOWLAND = 140  # about 250 m
_HIGHLAND = 190  # about 1,800 m
_SUMMITS = 205  # about 2,600 m

# Mean difference of grey between neighbouring samples over land.
_HILLY, _MOUNTAINOUS = 4.0, 8.5

_ICE, _LAKES, _FOREST, _GRASS, _STEPPE, _RED, _SAND, _ROCK = range(8)
_COVERS = (
    "snow and ice",
    "blue lakeland",
    "green forest",
    "grassland",
    "dry brown steppe",
    "red desert",
    "sandy desert",
    "bare rock",
)
_KINDS = ((_ICE,), (_LAKES,), (_FOREST, _GRASS), (_STEPPE, _RED, _SAND, _ROCK))
"""White, blue, green and brown: of each kind a caption names one cover at most."""


Outline = list[tuple[float, float]]
"""Corners of a polygon, right and down, as shares of a picture's width and height."""


class Landscape(NamedTuple):
    """What is known of a photograph.

    Attributes:
        caption: one sentence.
        tags: words for what it shows, what it is of first.
        horizon: where it stands, as a share of the height from the top.
        clouds: whether there are clouds.
    """

    caption: str
    tags: tuple[str, ...]
    horizon: float
    clouds: bool


def landscapes(csv_path: Path) -> dict[str, Landscape]:
    """What is known of every photograph, by file name without extension."""
    with csv_path.open(encoding="utf-8", newline="") as file:
        return {
            Path(row["file"]).stem: Landscape(
                row["caption"],
                tuple(row["tags"].split(";")),
                float(row["horizon"]),
                row["clouds"] == "1",
            )
            for row in csv.DictReader(file)
        }


def outlines(csv_path: Path) -> dict[str, list[Outline]]:
    """The outlines of what is water, by file name without extension; what lies in two is not."""
    found: dict[str, list[Outline]] = {}
    with csv_path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            corners = (place.split(":") for place in row["outline"].split())
            outline = [(float(right) / 100, float(down) / 100) for right, down in corners]
            found.setdefault(Path(row["file"]).stem, []).append(outline)
    return found


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
    dry = (height >= _SHALLOWS) | ((height >= _SEA_LEVEL) & (cover != _LAKES))
    land = dry | (cover == _ICE)  # ice shelves float
    land_share = land.mean()

    if land_share < 0.02:
        parts = [_sea(rgb)]
    elif land_share < 0.3:
        parts = [f"{_sea(rgb[~land])} with {_cover(cover[land])} {_place(land)}"]
    else:
        parts = [_cover(cover[land]) + _relief(height, land)]
        if land_share < 0.97:
            parts.append(f"coast {_place(~land)}")
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
            100 * green < 78 * red,
            (light < 310) & (100 * red < 114 * green) & (red > blue + 20),
            (light < 310) & (red < blue + 20),
            (light < 390) | (red < blue + 45),
        ],
        [_ICE, _LAKES, _FOREST, _RED, _GRASS, _ROCK, _STEPPE],
        _SAND,
    )


def _cover(cover: NDArray[np.int64]) -> str:
    """The commonest cover, and that of the second kind where it is at least half as common."""
    counts = np.bincount(cover, minlength=len(_COVERS))
    kinds = sorted(_KINDS, key=lambda kind: -counts[list(kind)].sum())[:2]
    first, second = (int(counts[list(kind)].sum()) for kind in kinds)
    named = kinds if 2 * second >= first else kinds[:1]
    return " and ".join(_COVERS[max(kind, key=lambda cover: counts[cover])] for kind in named)


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


def _place(mask: NDArray[np.bool_]) -> str:
    """Where in the crop a mask lies, in words."""
    if mask.mean() > 0.5:  # then what it leaves free says more
        down, right = (-lean for lean in _leans(~mask))
    else:
        down, right = _leans(mask)
    vertical = ("top", "", "bottom")[down + 1]
    horizontal = ("left", "", "right")[right + 1]
    if vertical:
        return f"at the {vertical} {horizontal}".rstrip()
    if horizontal:
        return f"on the {horizontal}"
    rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return "on several sides" if rim.mean() > 0.1 else "in the middle"


def _leans(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """For rows and columns: -1 or 1 where three quarters lie in the first or the last half."""
    half = _SAMPLES // 2
    total = mask.sum()
    down = (mask[half:].sum() - mask[:half].sum()) / total
    right = (mask[:, half:].sum() - mask[:, :half].sum()) / total
    return int(down >= 0.5) - int(down <= -0.5), int(right >= 0.5) - int(right <= -0.5)


def _climate(latitude_deg: float) -> str:
    bounds = ((23.5, "tropical"), (35.0, "subtropical"), (55.0, "temperate"), (66.5, "subpolar"))
    return next((name for bound, name in bounds if abs(latitude_deg) < bound), "polar")
