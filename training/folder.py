"""Any folder of pictures, brought to the sizes that one world takes.

A world has as many levels as most of its pictures are large: none is offered that the sources do
not hold. A picture that is a little small is enlarged, one that is far too small left out, and a
file that is no picture too; each with a line that says so.

``captions.csv`` beside the pictures, if it is there, has a line ``file,caption`` for some of them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from handscroll.assemble import Pixels
from handscroll.canvas import MAX_PROMPT_CHARACTERS
from handscroll.errors import InvalidRequest
from handscroll.geometry import PATCH_PX, Extent
from handscroll.picture import read_picture

SUFFIXES = {".webp", ".jpg", ".jpeg", ".png"}
CAPTIONS = "captions.csv"
SCROLL_HEIGHT_PX = 704
LEVELS = 3
"""As many as a world may have: the height above is that of a scroll with all of them."""

ENOUGH = 1.1
"""A picture holds a level if it need not be enlarged by more than this."""
MOST_ENLARGED = 2.5
LEAST_SHOWN = 0.7
"""Of a picture that a scroll cuts off above and below, the share that is no news."""
MOST_PX = 2048
"""The shorter side of a plane's larger pictures is brought to this."""
MOST_GIVEN_PX = 2**15

WorldKind = Literal["scroll", "plane"]
Tell = Callable[[str], None]


def extents(kind: WorldKind) -> list[Extent]:
    """What a world of a kind may cover, most levels first; all are alike at level 0."""
    finest = range(LEVELS - 1, -1, -1)
    if kind == "scroll":
        return [Extent(kind, last, SCROLL_HEIGHT_PX >> (LEVELS - 1 - last)) for last in finest]
    return [Extent(kind, last) for last in finest]


def least(extent: Extent) -> tuple[int, int]:
    """Height and width of the smallest picture with room for a patch at level 0."""
    side = PATCH_PX << extent.finest
    return extent.height_px or side, side


class Source(NamedTuple):
    """One picture, brought to size; its name is that of its file."""

    name: str
    image: Image.Image
    caption: str


@dataclass(frozen=True)
class Folder:
    """The pictures of a folder that can be learned from.

    Attributes:
        extent: what their world covers.
        sizes: height and width of each file.
        captions: by file name.
    """

    extent: Extent
    sizes: dict[Path, tuple[int, int]]
    captions: dict[str, str]

    def sources(self) -> Iterator[Source]:
        """Every picture, brought to size, one after another."""
        for path in self.sizes:
            pixels = _pixels(path)
            yield Source(path.name, fitted(pixels, self.extent), self.captions.get(path.name, ""))


def files(folder: Path) -> list[Path]:
    """The pictures in a folder, by their names.

    Raises:
        InvalidRequest: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"there is no folder {folder}")
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    if not found:
        raise InvalidRequest(f"no pictures ({', '.join(sorted(SUFFIXES))}) in {folder}")
    return found


def look(folder: Path, kind: WorldKind, tell: Tell) -> Folder:
    """See which pictures of a folder are fit for a world, and how many levels they hold.

    Args:
        folder: with PNG, JPEG or WebP files in it.
        kind: ``scroll`` or ``plane``.
        tell: called with a line on each file that is not taken as it is.

    Raises:
        InvalidRequest: there is no such folder, or nothing in it to learn from.
    """
    paths = files(folder)
    captions = _captions(folder / CAPTIONS, {path.name for path in paths}, tell)
    sizes: dict[Path, tuple[int, int]] = {}
    for path in paths:
        try:
            height, width, _ = _pixels(path).shape
            sizes[path] = height, width
        except InvalidRequest as error:
            tell(f"left out {path.name}: {error}")
    extent = _held(list(sizes.values()), extents(kind))
    for path, size in list(sizes.items()):
        if not _told(path, size, extent, tell):
            del sizes[path]
    if not sizes:
        raise InvalidRequest(
            f"none of the {len(paths)} pictures in {folder} can be learned from: "
            f"a {kind} takes {' x '.join(map(str, reversed(least(extent))))} px"
        )
    return Folder(extent, sizes, captions)


def fitted(pixels: Pixels, extent: Extent) -> Image.Image:
    """A picture (H, W, 3) as large as its world takes it; its sides are whole tokens at level 0."""
    scale = _scale(pixels.shape[:2], extent)
    if extent.height_px is None:
        scale = max(scale, min(1.0, MOST_PX / min(pixels.shape[:2])))
    height, width = (math.ceil(size * scale - 1e-6) for size in pixels.shape[:2])
    image = Image.fromarray(pixels)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    step = 16 << extent.finest
    tall, wide = extent.height_px or height // step * step, width // step * step
    top = (height - tall) // 2
    return image.crop((0, top, wide, top + tall))


def _pixels(path: Path) -> Pixels:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"it cannot be read: {error.strerror}") from error
    return read_picture(content, MOST_GIVEN_PX, MOST_GIVEN_PX**2 // 4)


def _scale(size: tuple[int, ...], extent: Extent) -> float:
    """How much a picture must be enlarged, at least, to fill its place in a world."""
    return max(wanted / there for wanted, there in zip(least(extent), size, strict=True))


def _held(sizes: list[tuple[int, int]], offered: list[Extent]) -> Extent:
    """The most levels that at least half of the pictures hold."""
    for extent in offered[:-1]:
        if 2 * sum(_scale(size, extent) <= ENOUGH for size in sizes) >= max(1, len(sizes)):
            return extent
    return offered[-1]


def _told(path: Path, size: tuple[int, int], extent: Extent, tell: Tell) -> bool:
    """Say what is odd about a picture's size; False if it is too small."""
    scale = _scale(size, extent)
    there = f"{size[1]} x {size[0]} px"
    if scale > MOST_ENLARGED:
        tell(f"left out {path.name}: {there} would have to be enlarged {scale:.1f} times")
        return False
    if scale > ENOUGH:
        tell(f"enlarged {path.name}, {there}, {scale:.1f} times")
    shown = 1.0 if extent.height_px is None else extent.height_px / (size[0] * scale)
    if shown < LEAST_SHOWN:
        tell(f"cut {path.name}, {there}, to the middle {shown:.0%} of its height: a scroll is wide")
    return True


def _captions(path: Path, names: set[str], tell: Tell) -> dict[str, str]:
    """The captions in a file, by picture; none without the file.

    Raises:
        InvalidRequest: it is not such a file.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    header = reader.fieldnames or []
    if not {"file", "caption"} <= set(header):
        raise InvalidRequest(f"{path} must begin with the line file,caption, not {header}")
    found = {row["file"]: (row["caption"] or "").strip() for row in rows}
    for name, caption in found.items():
        if len(caption) > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(
                f"{path}: a caption may have {MAX_PROMPT_CHARACTERS} characters, that of {name} "
                f"has {len(caption)}"
            )
    for name in sorted(set(found) - names):
        tell(f"{path.name} has a caption for {name}, and there is no such picture")
    return found
