"""The pictures to learn from, their worlds, levels, and the fixed held-out split.

A folder is read as the packed data set (``landscapes/`` and ``earth/``, see `training.pack`) or,
failing that, as any user's pictures, all of one world (`training.folder`). A picture is held out
when the SHA-256 of its file name without extension, as a number, is divisible by ten; of Earth,
longitudes 60 E to 96 E are held out; of a user's few pictures, none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from handscroll.errors import InvalidRequest
from handscroll.geometry import Extent, Mask
from training import folder as user
from training.captions import Outline, landscapes, outlines
from training.folder import LEVELS, SCROLL_HEIGHT_PX, WorldKind

Pixels = NDArray[np.uint8]

FEW = 50
"""Of fewer pictures than these, none is held out."""
MAN_MADE = {"beach0", "bwerner0", "valley1"}
HELD_OUT_EAST_DEG = (60, 96)
BLANK_PX = 2
"""Columns at the eastern edge of the Earth's colours that are blank, and filled with the one beside
them."""
WATER = Path(__file__).with_name("landscape_water.csv")
"""Outlines drawn by hand."""

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
        tags: words for what it shows, what it is of first; photographs only.
        heights: (H, W) uint8 heights at the coarsest level's size, for Earth only.
        north_deg, south_deg: latitudes of its top and bottom edges, for Earth only.
        kind: what its world is.
        horizon: share of its height above which the sky is, for photographs only.
        clouds: whether there are any in it, for photographs only.
        water: (H, W) where there is water that moves, at the finest level; None for none.
    """

    name: str
    world: str
    held_out: bool
    levels: tuple[Pixels, ...]
    caption: str = ""
    tags: tuple[str, ...] = ()
    heights: Pixels | None = None
    north_deg: float = 0.0
    south_deg: float = 0.0
    kind: WorldKind = "plane"
    horizon: float = 0.0
    clouds: bool = False
    water: Mask | None = None

    @property
    def extent(self) -> Extent:
        """What its world covers: as many levels as it has, and a scroll is as high as it is."""
        height = len(self.levels[-1]) if self.kind == "scroll" else None
        return Extent(self.kind, len(self.levels) - 1, height)


def is_held_out(name: str) -> bool:
    """The split by picture, a pure function of the file's name without extension."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0


def pyramid(finest: Image.Image, levels: int = LEVELS) -> tuple[Pixels, ...]:
    """A picture at some levels, coarsest first; halved by averaging, so that levels nest."""
    return tuple(
        np.asarray(finest if level == levels - 1 else finest.reduce(2 ** (levels - 1 - level)))
        for level in range(levels)
    )


def load(folder: Path, world: str | None = None, kind: WorldKind | None = None) -> list[Picture]:
    """Every picture of a folder.

    Args:
        folder: the packed data set, or any folder of pictures.
        world: the name of a plain folder's world.
        kind: what that world is; None for a scroll if that is its name, and a plane if not.

    Raises:
        InvalidRequest: the folder holds nothing to learn from, or is plain and no world was named.
    """
    if (folder / "landscapes").is_dir():
        return [*_landscapes(folder / "landscapes"), *_earth(folder / "earth")]
    if world is None:
        raise InvalidRequest(f"{folder} is not the packed data set: say which world it is for")
    kind = kind or ("scroll" if world == "scroll" else "plane")
    found = user.look(folder, kind, lambda line: typer.echo(line, err=True))
    many = len(found.sizes) >= FEW
    pictures = []
    for file, image, caption in found.sources():
        name, levels = Path(file).stem, pyramid(image, found.extent.finest + 1)
        held_out = many and is_held_out(name)
        pictures.append(Picture(name, world, held_out, levels, caption, kind=kind))
    return pictures


def split(folder: Path, world: str | None = None) -> tuple[list[Picture], list[Picture]]:
    """The pictures of a folder to train on, and those held out; the rest as in `load`."""
    everything = load(folder, world)
    return (
        [picture for picture in everything if not picture.held_out],
        [picture for picture in everything if picture.held_out],
    )


def _landscapes(folder: Path) -> Iterator[Picture]:
    about, outlined = landscapes(folder / "captions.csv"), outlines(WATER)
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
            found.tags,
            kind="scroll",
            horizon=horizon,
            clouds=found.clouds,
            water=_filled(outlined[path.stem], image) if path.stem in outlined else None,
        )


def _filled(outlines: Sequence[Outline], image: Image.Image) -> Mask:
    """What lies in one of the outlines (H, W), and not in two."""
    inside = np.zeros((image.height, image.width), bool)
    for outline in outlines:
        drawn = Image.new("1", image.size)
        corners = [(right * image.width, down * image.height) for right, down in outline]
        ImageDraw.Draw(drawn).polygon(corners, fill=1)
        inside ^= np.asarray(drawn)
    return inside


def _earth(folder: Path) -> Iterator[Picture]:
    relief = np.array(Image.open(folder / "earth_relief.webp").convert("RGB"))
    relief[:, -BLANK_PX:] = relief[:, -BLANK_PX - 1 : -BLANK_PX]
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
