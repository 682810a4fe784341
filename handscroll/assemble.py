"""Tiles, and larger pictures made of them, out of patches.

A tile is decoded from one window of tokens, the same shape for every tile of every level, taken
from the patches under it. Larger pictures are put together from tiles, so that a window cut from a
large picture and that window painted alone are the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from handscroll.context import Codes
from handscroll.geometry import (
    PATCH_PX,
    STANDS,
    TILE_PX,
    Extent,
    Mask,
    Moved,
    Patch,
    Region,
    Tile,
    Window,
    tile_region,
    tile_window,
    tiles_of,
    window_patches,
)

Pixels = NDArray[np.uint8]


def window_codes(
    tile: Tile,
    extent: Extent,
    side: int,
    radius_tok: int,
    read: Callable[[Patch], Codes],
    moved_px: Moved = STANDS,
) -> tuple[Codes, Mask, Window]:
    """The tokens a tile is decoded from.

    Args:
        tile: the tile.
        extent: of the canvas.
        side: tokens to a patch's side.
        radius_tok: tokens of margin the pixel decoder needs.
        read: the codes (side, side, K) of a patch.
        moved_px: how far down and right they have moved to come to the tile.

    Returns:
        Codes (w, w, K), which of them lie in the canvas (w, w), and where the tile lies in them.
    """
    f = PATCH_PX // side
    window = tile_window(tile, extent, f, radius_tok, moved_px)
    patches = window_patches(tile, extent, f, radius_tok, moved_px)
    parts = {patch: read(patch) for patch in patches}
    size = window.side_tok
    codes = np.zeros((size, size, next(iter(parts.values())).shape[-1]), np.uint8)
    for patch, part in parts.items():
        top = patch.row * side - window.row_tok
        left = patch.col * side - window.col_tok
        rows = slice(max(0, top), min(size, top + side))
        cols = slice(max(0, left), min(size, left + side))
        codes[rows, cols] = part[
            rows.start - top : rows.stop - top, cols.start - left : cols.stop - left
        ]
    inside = extent.inside(tile.level, window.row_tok, window.col_tok, (size, size), f)
    return codes, inside, window


def strips(
    region: Region,
    extent: Extent,
    paint: Callable[[list[Tile]], Iterable[Pixels]],
) -> Iterator[Pixels]:
    """A region's pixels from top to bottom, one row of tiles at a time: (rows, width, 3) uint8.

    Args:
        region: what to paint.
        extent: of the canvas.
        paint: turns a row of tiles into their pictures (TILE_PX, TILE_PX, 3), in turn.
    """
    for _, row in groupby(tiles_of(region, extent), key=lambda tile: tile.row):
        tiles = list(row)
        corner = tile_region(tiles[0], extent)
        strip = np.empty((TILE_PX, len(tiles) * TILE_PX, 3), np.uint8)
        for number, pixels in enumerate(paint(tiles)):
            strip[:, number * TILE_PX : (number + 1) * TILE_PX] = pixels
        top, left = region.top - corner.top, region.left - corner.left
        yield strip[max(0, top) : top + region.height, left : left + region.width]
