"""Views: what is decoded to show a tile.

Mostly that is the tile's own window, and a few pixels around it, by which it is seen what detail
there is (see `handscroll.detail`); near a known picture more of them (see `handscroll.known`). A
film is held still where little changes: a later frame is seen against frame 0, for what should
stand is not always drawn as it was. What has moved in a known picture is seen against frame 0 at
the place that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from handscroll.assemble import Pixels, window_codes
from handscroll.context import Codes, Floats
from handscroll.detail import Detail, Number
from handscroll.field import near
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
    tile_region,
    window_patches,
)

AROUND_PX = 8
"""How far around a pixel it is seen whether anything moves."""
STILL = 8
"""The change, in grey levels, above which nothing is held still."""


class Tokens(NamedTuple):
    """A window of tokens to be decoded.

    Attributes:
        codes: (h, w, K).
        inside: which of them lie in the canvas, (h, w).
        top_px, left_px: where in the window the pixels begin that are wanted.
        height_px, width_px: how many rows and columns there are of them.
    """

    codes: Codes
    inside: Mask
    top_px: int
    left_px: int
    height_px: int
    width_px: int

    @property
    def crop(self) -> tuple[slice, slice]:
        """The rows and columns of pixels that are wanted."""
        return (
            slice(self.top_px, self.top_px + self.height_px),
            slice(self.left_px, self.left_px + self.width_px),
        )


class View(NamedTuple):
    """How a tile is decoded.

    Attributes:
        tile: the tile.
        extent: of the canvas.
        side: tokens to a patch's side.
        radius_tok: tokens of margin the pixel decoder needs.
        margin_px: pixels around the tile that are wanted too.
        moved_px: how far down and right has come what is also looked for in frame 0.
    """

    tile: Tile
    extent: Extent
    side: int
    radius_tok: int
    margin_px: int = 0
    moved_px: Moved = STANDS

    @property
    def looks(self) -> tuple[tuple[Tile, Moved], ...]:
        """The tile, the same of frame 0 and, if anything, what has come there from frame 0.

        From beyond a canvas with an end nothing comes.
        """
        if self.tile.frame == 0:
            return ((self.tile, STANDS),)
        first = self.tile._replace(frame=0)
        found = [(self.tile, STANDS), (first, STANDS)]
        if self.moved_px != STANDS and self._under(first, self.moved_px):
            found.append((first, self.moved_px))
        return tuple(found)

    @property
    def region(self) -> Region:
        """The pixels that are wanted."""
        level, top, left, height, width, frame = tile_region(self.tile, self.extent)
        margin = self.margin_px
        return Region(
            level, top - margin, left - margin, height + 2 * margin, width + 2 * margin, frame
        )

    def patches(self) -> list[Patch]:
        """The patches of the canvas that all of it is decoded from, some of them twice."""
        return [patch for look in self.looks for patch in self._under(*look)]

    def tokens(self, read: Callable[[Patch], Codes]) -> list[Tokens]:
        """What is to be decoded for each of `looks`, given the codes (side, side, K) of patches."""
        found, side_px = [], TILE_PX + 2 * self.margin_px
        for tile, moved_px in self.looks:
            codes, inside, at = window_codes(
                tile, self.extent, self.side, self._reach_tok, read, moved_px
            )
            top_px, left_px = at.top_px - self.margin_px, at.left_px - self.margin_px
            found.append(Tokens(codes, inside, top_px, left_px, side_px, side_px))
        return found

    def painted(self, pixels: Sequence[Pixels], detail: Detail | None = None) -> Painted:
        """What came of it.

        Args:
            pixels: what each of its tokens was decoded to, (h, w, 3).
            detail: what the tokenizer loses; None for what is shown as it is decoded.
        """
        lost = [
            self._lost(one, moved_px, detail)
            for one, (_, moved_px) in zip(pixels, self.looks, strict=True)
        ]
        if self.tile.frame == 0:
            nothing = np.zeros(pixels[0].shape[:2], np.float32)
            first = First(STANDS, pixels[0], lost[0], nothing, nothing + 1)
            return Painted(self, pixels[0], lost[0], (first,))
        now, *firsts = (one.astype(np.float32) for one in pixels)
        changes = [_around(np.abs(now - one).sum(axis=2)) / np.float32(3) for one in firsts]
        shares = [np.ones_like(changes[0])]
        if len(changes) == 2:  # whichever it is more like; what shows nothing that moves, stands
            came = changes[0] / (changes[0] + changes[1] + 1)
            shares = [1 - came, came]
        held, held_lost = now.astype(np.float64), lost[0].copy()
        for one, other, change, share in zip(firsts, lost[1:], changes, shares, strict=True):
            stands = (share * near(change / STILL))[..., None]
            held += stands * (one - now)
            held_lost += stands * (other - lost[0])
        found = (
            First(moved_px, *shown, *about)
            for (_, moved_px), shown, about in zip(
                self.looks[1:],
                zip(pixels[1:], lost[1:], strict=True),
                zip(changes, shares, strict=True),
                strict=True,
            )
        )
        return Painted(self, np.rint(held).astype(np.uint8), held_lost, tuple(found))

    def cut(self, values: NDArray[Number]) -> NDArray[Number]:
        """The tile (TILE_PX, TILE_PX, …) out of values of the region."""
        inner = slice(self.margin_px, self.margin_px + TILE_PX)
        return values[inner, inner]

    def _lost(self, pixels: Pixels, moved_px: Moved, detail: Detail | None) -> NDArray[np.float64]:
        """What the tokenizer has lost of what was decoded, as it was where it has come from."""
        if detail is None:
            return np.zeros(pixels.shape)
        (down, right), (level, top, left, height, width, _) = moved_px, self.region
        inside = self.extent.inside(level, top - down, left - right, (height, width), 1)
        return detail.of(pixels, inside, (self.margin_px + down, self.margin_px + right))

    def _under(self, tile: Tile, moved_px: Moved) -> list[Patch]:
        return window_patches(tile, self.extent, self._f, self._reach_tok, moved_px)

    @property
    def _f(self) -> int:
        return PATCH_PX // self.side

    @property
    def _reach_tok(self) -> int:
        return self.radius_tok - (-self.margin_px // self._f)


class First(NamedTuple):
    """Frame 0, as a view is seen against it.

    Attributes:
        moved_px: how far down and right it has come.
        pixels: what is there then, as it is decoded, (h, w, 3).
        lost: what the tokenizer has lost of it, in grey levels, (h, w, 3).
        change: how far the surroundings of each pixel are from it, (h, w), in grey levels.
        share: how much of each pixel is to be taken for it, (h, w), against what else it may be.
    """

    moved_px: Moved
    pixels: Pixels
    lost: NDArray[np.float64]
    change: Floats
    share: Floats


class Painted(NamedTuple):
    """What a view came to: pixels of its region.

    Attributes:
        view: how.
        pixels: what is painted there, as it is decoded, (h, w, 3), held still.
        lost: what the tokenizer has lost of it, in grey levels, (h, w, 3), held still too.
        firsts: what it is seen against: frame 0 as it stands, and as it has come there.
    """

    view: View
    pixels: Pixels
    lost: NDArray[np.float64]
    firsts: tuple[First, ...]

    def shown(self) -> Pixels:
        """What is to be seen of it: with what the tokenizer has lost of it."""
        return np.rint(np.clip(self.pixels + self.lost, 0, 255)).astype(np.uint8)


def _around(values_HW: Floats) -> Floats:
    """The mean of whole numbers around each place, AROUND_PX to every side."""
    size = 2 * AROUND_PX + 1
    sums = np.pad(values_HW.astype(np.int64), AROUND_PX, mode="edge")
    for axis in (0, 1):
        sums = sliding_window_view(sums, size, axis).sum(axis=-1)
    return (sums / size**2).astype(np.float32)
