"""Where things are: patches, tiles, pixels and tokens of a canvas, and what an extent holds.

Coordinates are signed. Where one is divided, it is by `cell_of`, which floors towards minus
infinity: pixel -1 lies in patch -1, and the parent of row -1 is row -1.

The tile grid is shifted against the patch grid by a third of a patch along every axis that has
no end, so that a tile and the margin its decoding needs lie inside a 2x2 block of patches: tile
``(row, col)`` of level l covers 256 pixels from ``256 * col + 85 * 2**l``. The shift doubles with
the level, so tile pyramids nest as patch pyramids do.

Patches are PATCH_PX pixels wide at their own level; ``side`` is that width in tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from handscroll.errors import InvalidRequest

PATCH_PX = 256
TILE_PX = 256
SHIFT_PX = 85
MAX_LEVEL = 6
MAX_FRAMES = 32
ROOT_ZOOM = 14

Mask = NDArray[np.bool_]
Moved = tuple[int, int]
"""How far down and right something has come, in pixels."""

STANDS: Moved = (0, 0)
Place = TypeVar("Place", int, NDArray[np.int64])


def cell_of(place: Place, size: int) -> Place:
    """The cell of ``size`` that a signed coordinate, or each of an array, falls into.

    >>> cell_of(-1, 256)
    -1
    """
    return place // size


def cells_of(start: int, stop: int, size: int) -> range:
    """The cells of ``size`` that the coordinates from ``start`` up to ``stop`` fall into.

    >>> cells_of(-1, 512, 256)
    range(-1, 2)
    """
    return range(cell_of(start, size), cell_of(stop - 1, size) + 1)


class Patch(NamedTuple):
    """The unit of generation and of storage: the key ``(level, frame, row, col)``."""

    level: int
    frame: int
    row: int
    col: int

    @property
    def parent(self) -> Patch:
        """The patch of the level above that covers this one.

        >>> Patch(2, 0, -1, 5).parent
        Patch(level=1, frame=0, row=-1, col=2)
        """
        return Patch(self.level - 1, self.frame, cell_of(self.row, 2), cell_of(self.col, 2))

    @property
    def children(self) -> tuple[Patch, ...]:
        """The 2x2 patches of the next level that this one covers, in raster order."""
        level, frame, row, col = self
        return tuple(
            Patch(level + 1, frame, 2 * row + down, 2 * col + right)
            for down in (0, 1)
            for right in (0, 1)
        )

    @property
    def neighbours(self) -> tuple[Patch, ...]:
        """The eight patches around this one, in raster order."""
        level, frame, row, col = self
        return tuple(
            Patch(level, frame, row + down, col + right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if down or right
        )


class Tile(NamedTuple):
    """A 256x256 px picture: signed ``(level, row, col)`` on the shifted grid, and a frame."""

    level: int
    row: int
    col: int
    frame: int = 0


class Region(NamedTuple):
    """A rectangle of pixels at one level: top-left corner, height and width."""

    level: int
    top: int
    left: int
    height: int
    width: int
    frame: int = 0


ExtentKind = Literal["scroll", "plane", "picture"]


@dataclass(frozen=True)
class Extent:
    """What a canvas covers.

    Attributes:
        kind: ``scroll`` (fixed height, endless left and right), ``plane`` (endless), ``picture``
            (bounded).
        finest: the finest level.
        height_px: height at the finest level; None where endless.
        width_px: width at the finest level; None where endless.
    """

    kind: ExtentKind
    finest: int
    height_px: int | None = None
    width_px: int | None = None

    def size(self, level: int) -> tuple[int | None, int | None]:
        """Height and width in pixels at a level, None where endless."""
        scale = 2 ** (self.finest - level)
        height, width = self.height_px, self.width_px
        return (
            None if height is None else height // scale,
            None if width is None else width // scale,
        )

    def contains(self, patch: Patch) -> bool:
        """Whether any pixel of the patch lies in the canvas."""
        bounds = zip((patch.row, patch.col), self.size(patch.level), strict=True)
        return 0 <= patch.level <= self.finest and all(
            size is None or 0 <= PATCH_PX * index < size for index, size in bounds
        )

    def inside(
        self, level: int, row_tok: int, col_tok: int, shape: tuple[int, int], f: int
    ) -> Mask:
        """Which tokens of a window lie in the canvas.

        Args:
            level: the level.
            row_tok, col_tok: the window's first token, counted from pixel 0 of the level.
            shape: height and width of the window in tokens.
            f: pixels to a token's side.
        """
        mask = np.ones(shape, dtype=bool)
        for axis, (start, size) in enumerate(
            zip((row_tok, col_tok), self.size(level), strict=True)
        ):
            if size is not None:
                index = start + np.arange(shape[axis])
                within = (index >= 0) & (index < size // f)
                mask &= within[:, None] if axis == 0 else within[None, :]
        return mask

    def shift_px(self, level: int) -> tuple[int, int]:
        """Where tile (0, 0) of a level begins: row and column in pixels."""
        down, right = (
            SHIFT_PX * 2**level if size is None else 0 for size in (self.height_px, self.width_px)
        )
        return down, right


def patches_of(region: Region, extent: Extent, margin_px: int = 0) -> list[Patch]:
    """The patches of the canvas under a region widened by a margin, in raster order."""
    level, top, left, height, width, frame = region
    found = (
        Patch(level, frame, row, col)
        for row in cells_of(top - margin_px, top + height + margin_px, PATCH_PX)
        for col in cells_of(left - margin_px, left + width + margin_px, PATCH_PX)
    )
    return [patch for patch in found if extent.contains(patch)]


def tile_region(tile: Tile, extent: Extent) -> Region:
    """The pixels a tile covers."""
    down, right = extent.shift_px(tile.level)
    top, left = TILE_PX * tile.row + down, TILE_PX * tile.col + right
    return Region(tile.level, top, left, TILE_PX, TILE_PX, tile.frame)


def tiles_of(region: Region, extent: Extent) -> Iterator[Tile]:
    """The tiles that a region touches, row by row."""
    down, right = extent.shift_px(region.level)
    top, left = region.top - down, region.left - right
    for row in cells_of(top, top + region.height, TILE_PX):
        for col in cells_of(left, left + region.width, TILE_PX):
            yield Tile(region.level, row, col, region.frame)


class Window(NamedTuple):
    """The square of tokens a tile is decoded from, and where the tile lies in it.

    ``row_tok`` and ``col_tok`` count tokens from pixel 0 of the level; ``top_px`` and ``left_px``
    count pixels from the window's corner.
    """

    row_tok: int
    col_tok: int
    side_tok: int
    top_px: int
    left_px: int


def tile_window(
    tile: Tile, extent: Extent, f: int, radius_tok: int, moved_px: Moved = STANDS
) -> Window:
    """The window of a tile: it and ``radius_tok`` tokens around; the same size for every tile.

    A tile need not begin at a token's edge, so it touches up to ``256 / f + 1`` tokens. What has
    moved down and right by ``moved_px`` to come to the tile is that far above it, and to its left.
    """
    region = tile_region(tile, extent)
    top, left = region.top - moved_px[0], region.left - moved_px[1]
    row, col = cell_of(top, f) - radius_tok, cell_of(left, f) - radius_tok
    side = TILE_PX // f + 1 + 2 * radius_tok
    return Window(row, col, side, top - row * f, left - col * f)


def window_patches(
    tile: Tile, extent: Extent, f: int, radius_tok: int, moved_px: Moved = STANDS
) -> list[Patch]:
    """The patches of the canvas that the window of a tile is decoded from, in raster order."""
    row, col, side, _, _ = tile_window(tile, extent, f, radius_tok, moved_px)
    size = side * f
    return patches_of(Region(tile.level, row * f, col * f, size, size, tile.frame), extent)


def tile_to_xyz(tile: Tile) -> tuple[int, int, int]:
    """Web-Mercator ``(x, y, z)`` of a tile.

    >>> tile_to_xyz(Tile(0, 0, 0))
    (8192, 8192, 14)

    Raises:
        InvalidRequest: the tile lies outside the world, or its level is not 0 to MAX_LEVEL.
    """
    zoom = ROOT_ZOOM + tile.level
    half = 2 ** (zoom - 1)
    if not 0 <= tile.level <= MAX_LEVEL:
        raise InvalidRequest(f"level must be 0 to {MAX_LEVEL}, not {tile.level}")
    if not (-half <= tile.row < half and -half <= tile.col < half):
        raise InvalidRequest(
            f"tile row {tile.row}, col {tile.col} lies outside the world: both must be "
            f"{-half} to {half - 1} at level {tile.level}"
        )
    return half + tile.col, half + tile.row, zoom


def xyz_to_tile(x: int, y: int, z: int) -> Tile:
    """The tile at Web-Mercator ``(x, y, z)``.

    Raises:
        InvalidRequest: the zoom is not served, or x or y lies outside it.
    """
    if not ROOT_ZOOM <= z <= ROOT_ZOOM + MAX_LEVEL:
        raise InvalidRequest(f"zoom must be {ROOT_ZOOM} to {ROOT_ZOOM + MAX_LEVEL}, not {z}")
    if not (0 <= x < 2**z and 0 <= y < 2**z):
        raise InvalidRequest(f"x and y must be 0 to {2**z - 1} at zoom {z}, not {x}, {y}")
    half = 2 ** (z - 1)
    return Tile(z - ROOT_ZOOM, y - half, x - half)
