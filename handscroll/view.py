"""Views: what is decoded to show a tile.

Mostly that is the tile's own window. Near a known picture what the tokenizer has lost of it is
given back (see `handscroll.known`), which takes pixels around the tile too, and those of frame 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from handscroll.assemble import Pixels, window_codes
from handscroll.context import Codes, Floats
from handscroll.geometry import (
    PATCH_PX,
    TILE_PX,
    Extent,
    Mask,
    Patch,
    Region,
    Tile,
    tile_region,
    window_patches,
)


class Tokens(NamedTuple):
    """A window of tokens to be decoded.

    Attributes:
        codes: (h, w, K).
        inside: which of them lie in the canvas, (h, w).
        top_px, left_px: where in the window the pixels begin that are wanted.
        side_px: how many rows and columns there are of them.
    """

    codes: Codes
    inside: Mask
    top_px: int
    left_px: int
    side_px: int

    @property
    def crop(self) -> tuple[slice, slice]:
        """The rows and columns of pixels that are wanted."""
        return (
            slice(self.top_px, self.top_px + self.side_px),
            slice(self.left_px, self.left_px + self.side_px),
        )


class View(NamedTuple):
    """How a tile is decoded.

    Attributes:
        tile: the tile.
        extent: of the canvas.
        side: tokens to a patch's side.
        radius_tok: tokens of margin the pixel decoder needs.
        margin_px: pixels around the tile that are wanted too.
    """

    tile: Tile
    extent: Extent
    side: int
    radius_tok: int
    margin_px: int = 0

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The tile, and the same of frame 0 where that is wanted."""
        first = self.tile._replace(frame=0)
        return (self.tile, first) if self.margin_px and first != self.tile else (self.tile,)

    @property
    def region(self) -> Region:
        """The pixels that are wanted."""
        level, top, left, height, width, frame = tile_region(self.tile, self.extent)
        margin = self.margin_px
        return Region(
            level, top - margin, left - margin, height + 2 * margin, width + 2 * margin, frame
        )

    def patches(self) -> list[Patch]:
        """The patches of the canvas that all of it is decoded from."""
        found = (window_patches(tile, self.extent, self._f, self._reach_tok) for tile in self.tiles)
        return [patch for patches in found for patch in patches]

    def tokens(self, read: Callable[[Patch], Codes]) -> list[Tokens]:
        """What is to be decoded for each of `tiles`, given the codes (side, side, K) of patches."""
        found = []
        for tile in self.tiles:
            codes, inside, at = window_codes(tile, self.extent, self.side, self._reach_tok, read)
            top_px, left_px = at.top_px - self.margin_px, at.left_px - self.margin_px
            found.append(Tokens(codes, inside, top_px, left_px, TILE_PX + 2 * self.margin_px))
        return found

    def painted(self, tokens: Sequence[Tokens], pixels: Sequence[Pixels]) -> Painted:
        """What came of it: the pixels (h, w, 3) that each of these tokens was decoded to."""
        still = _alike(tokens[0], tokens[-1], self._f)[tokens[0].crop]
        return Painted(self, pixels[0], pixels[-1], still)

    @property
    def _f(self) -> int:
        return PATCH_PX // self.side

    @property
    def _reach_tok(self) -> int:
        return self.radius_tok - (-self.margin_px // self._f)


class Painted(NamedTuple):
    """What a view came to: pixels of its region.

    Attributes:
        view: how.
        pixels: what is painted there, (h, w, 3).
        first: what is there in frame 0, (h, w, 3).
        still: how far each pixel's tokens are those of frame 0, (h, w), 0 to 1.
    """

    view: View
    pixels: Pixels
    first: Pixels
    still: Floats

    def cut(self, pixels: Pixels) -> Pixels:
        """The tile (TILE_PX, TILE_PX, 3) out of pixels of the region."""
        inner = slice(self.view.margin_px, self.view.margin_px + TILE_PX)
        return pixels[inner, inner]


def _alike(now: Tokens, first: Tokens, f: int) -> Floats:
    """How far pixels have the same tokens around them in two windows of the same place: (H, W).

    1 where a token and all beside it are the same; from there to 0, one token further, linear.
    """
    differs = np.pad((now.codes != first.codes).any(-1), 1)
    height, width = now.inside.shape
    around = (differs[row : row + height, col : col + width] for row, col in np.ndindex(3, 3))
    same = Image.fromarray((~np.logical_or.reduce(list(around))).astype(np.float32))
    return np.asarray(same.resize((width * f, height * f), Image.Resampling.BILINEAR))
