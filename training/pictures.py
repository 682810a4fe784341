"""The pictures to learn from, their worlds, levels, and the fixed held-out split.

A folder is read as the packed data set (``landscapes/`` and ``earth/``, see `training.pack`) or,
failing that, as any user's pictures, all of one world. A picture is held out when the SHA-256 of
its file name without extension, as a number, is divisible by ten; of Earth, longitudes 60 E to
96 E are held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handscroll.errors import InvalidRequest
from handscroll.geometry import PATCH_PX
from training.captions import landscapes

Pixels = NDArray[np.uint8]

SCROLL_HEIGHT_PX = 704
LEVELS = 3
MIN_SIDE_PX = PATCH_PX * 2 ** (LEVELS - 1)
MAN_MADE = {"beach0", "bwerner0", "valley1"}
HELD_OUT_EAST_DEG = (60, 96)
SUFFIXES = {".webp", ".jpg", ".jpeg", ".png"}

Image.MAX_IMAGE_PIXELS = None  # the Earth map is 58 megapixels, and ours


@dataclass(frozen=True)
class Picture:
    """One picture at every level.

    Attributes:
        name: file name without extension.
        world: the world it belongs to.
        held_out: never trained on.
        levels: (H, W, 3) uint8, coarsest first, each half the size of the next.
        caption: one sentence, or empty.
        heights: (H, W) uint8 heights at the coarsest level's size, for Earth only.
        north_deg, south_deg: latitudes of its top and bottom edges, for Earth only.
        horizon: share of its height above which the sky is, for photographs only.
        clouds, water: whether there are clouds in it, or water that moves.
    """

    name: str
    world: str
    held_out: bool
    levels: tuple[Pixels, ...]
    caption: str = ""
    heights: Pixels | None = None
    north_deg: float = 0.0
    south_deg: float = 0.0
    horizon: float = 0.0
    clouds: bool = False
    water: bool = False


def is_held_out(name: str) -> bool:
    """The split by picture, a pure function of the file's name without extension."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0


def pyramid(finest: Image.Image) -> tuple[Pixels, ...]:
    """A picture at `LEVELS` levels, coarsest first; halved by averaging, so that levels nest."""
    return tuple(
        np.asarray(finest if level == LEVELS - 1 else finest.reduce(2 ** (LEVELS - 1 - level)))
        for level in range(LEVELS)
    )


def load(folder: Path, world: str | None = None) -> list[Picture]:
    """Every picture of a folder.

    Args:
        folder: the packed data set, or any folder of pictures.
        world: for a plain folder: ``scroll`` (pictures are brought to one height) or another
            name (kept at their own size).

    Raises:
        InvalidRequest: the folder holds no pictures, or is plain and no world was named.
    """
    if (folder / "landscapes").is_dir():
        return [*_landscapes(folder / "landscapes"), *_earth(folder / "earth")]
    if world is None:
        raise InvalidRequest(f"{folder} is not the packed data set: say which world it is for")
    found = [_plain(path, world) for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
    if not found:
        raise InvalidRequest(f"no pictures ({', '.join(sorted(SUFFIXES))}) in {folder}")
    return found


def split(folder: Path, world: str | None = None) -> tuple[list[Picture], list[Picture]]:
    """The pictures of a folder to train on, and those held out; the rest as in `load`."""
    everything = load(folder, world)
    return (
        [picture for picture in everything if not picture.held_out],
        [picture for picture in everything if picture.held_out],
    )


def _plain(path: Path, world: str) -> Picture:
    image = Image.open(path).convert("RGB")
    if world == "scroll":
        scale = SCROLL_HEIGHT_PX / image.height
        image = image.resize((max(64, round(image.width * scale)), SCROLL_HEIGHT_PX))
    image = image.crop((0, 0, image.width // 64 * 64, image.height // 64 * 64))
    least = (MIN_SIDE_PX, SCROLL_HEIGHT_PX if world == "scroll" else MIN_SIDE_PX)
    if image.width < least[0] or image.height < least[1]:
        raise InvalidRequest(
            f"{path} is too small: {image.width} x {image.height} px as a {world}, and a patch of "
            f"level 0 takes {least[0]} x {least[1]}"
        )
    return Picture(path.stem, world, is_held_out(path.stem), pyramid(image))


def _landscapes(folder: Path) -> Iterator[Picture]:
    about = landscapes(folder / "captions.csv")
    for path in sorted(folder.glob("*.webp")):
        if path.stem in MAN_MADE:
            continue
        image = Image.open(path).convert("RGB")
        top = (image.height - SCROLL_HEIGHT_PX) // 2
        found = about[path.stem]
        horizon = (found.horizon * image.height - top) / SCROLL_HEIGHT_PX
        image = image.crop((0, top, image.width // 64 * 64, top + SCROLL_HEIGHT_PX))
        yield Picture(
            path.stem,
            "scroll",
            is_held_out(path.stem),
            pyramid(image),
            found.caption,
            horizon=horizon,
            clouds=found.clouds,
            water=found.water,
        )


def _earth(folder: Path) -> Iterator[Picture]:
    relief = np.asarray(Image.open(folder / "earth_relief.webp").convert("RGB"))
    heights = np.asarray(Image.open(folder / "earth_heights.webp").convert("L"))
    relief = relief[: relief.shape[0] // 64 * 64]
    south = 90 - 180 * relief.shape[0] / (relief.shape[1] / 2)
    west, east = ((180 + degrees) / 360 for degrees in HELD_OUT_EAST_DEG)
    for name, start, stop in (("earth", east, 1 + west), ("earth_60e_96e", west, east)):
        parts = []
        for array in (relief, heights):
            width = array.shape[1]
            part = np.roll(array, -round(start * width), axis=1)[:, : round((stop - start) * width)]
            parts.append(Image.fromarray(part))
        colour = parts[0].crop((0, 0, parts[0].width // 64 * 64, parts[0].height))
        levels = pyramid(colour)
        coarse = levels[0].shape[1], levels[0].shape[0]
        yield Picture(
            name,
            "planet",
            name != "earth",
            levels,
            heights=np.asarray(
                parts[1].crop((0, 0, colour.width // 2, colour.height // 2)).resize(coarse)
            ),
            north_deg=90.0,
            south_deg=south,
        )
