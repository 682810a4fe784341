"""Known pictures: what is given, and painted around (outpainting; NUWA-Infinity, section 3).

A known picture lies on the token grid of every level, so its tokens are those of a canvas of which
it is a part: a token is known where it lies wholly inside the picture. The other tokens of a patch
are drawn given these. At level 0 the field takes on the picture's own colours near it, and passes
into what it is elsewhere; else the model would be told of two skies at once.

Shape suffixes: K codes of a token, M field cells, V values of a cell, s tokens to a patch's side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas
from handscroll.context import Codes, Floats
from handscroll.errors import InvalidRequest
from handscroll.field import CELL_PX, ProceduralField, cell_values, statistics
from handscroll.geometry import PATCH_PX, Extent, Mask, Patch, Region, Tile, tile_region

WINDOW_TOK = 32
"""Pictures are encoded in windows of so many tokens to a side, each alone, so that what encodes
them decides nothing."""
MARGIN_TOK = 4
"""How far a token's codes reach: tokens to each side."""
_REACH_PX = 512
"""How far the field takes after a known picture, in pixels of level 0."""

Encode = Callable[[Pixels], Codes]
"""Pixels (h * f, w * f, 3) to codes (h, w, K)."""


def digest_of(pixels: Pixels) -> str:
    """SHA-256 of a picture's height, width and pixels (H, W, 3): its name in a canvas spec."""
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{height} {width}\n".encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class KnownPicture:
    """A known picture on a canvas: its pixels and tokens at every level.

    Attributes:
        extent: of the canvas.
        places: where it lies at each level, coarsest first.
        pixels: (H, W, 3) at each level.
        codes: (h, w, K) at each level, of the tokens that lie wholly inside.
        side: tokens to a patch's side.
    """

    extent: Extent
    places: Sequence[Region]
    pixels: Sequence[Pixels]
    codes: Sequence[Codes]
    side: int

    def tokens(self, patch: Patch) -> tuple[Codes, Mask]:
        """Codes (side, side, K) of a patch, 0 where unknown, and which are known."""
        codes, place = self.codes[patch.level], self.places[patch.level]
        side, f = self.side, PATCH_PX // self.side
        block, known = (
            np.zeros((side, side, codes.shape[2]), np.uint8),
            np.zeros((side, side), bool),
        )
        if patch.frame == 0:
            target, source = _overlap(
                (patch.row * side, patch.col * side),
                (side, side),
                (place.top // f, place.left // f),
                codes.shape[:2],
            )
            block[target], known[target] = codes[source], True
        return block, known

    def whole(self, patch: Patch) -> bool:
        """Whether all tokens of a patch that lie in the canvas are known."""
        f = PATCH_PX // self.side
        corner = (patch.row * self.side, patch.col * self.side)
        inside = self.extent.inside(patch.level, *corner, (self.side, self.side), f)
        return bool(self.tokens(patch)[1][inside].all())

    def lay_over(self, tile: Tile, pixels: Pixels) -> Pixels:
        """A tile (TILE_PX, TILE_PX, 3), the picture's own pixels in place of decoded ones."""
        region, place = tile_region(tile, self.extent), self.places[tile.level]
        own = self.pixels[tile.level]
        if tile.frame:
            return pixels
        target, source = _overlap(
            (region.top, region.left),
            (region.height, region.width),
            (place.top, place.left),
            own.shape[:2],
        )
        pixels = pixels.copy()
        pixels[target] = own[source]
        return pixels


def _overlap(
    corner: tuple[int, int], shape: tuple[int, int], other: tuple[int, int], size: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where two rectangles, each a corner and a size, overlap: counted from each one's corner."""
    own, others = [], []
    for start, length, begin, extent in zip(corner, shape, other, size, strict=True):
        first, last = max(start, begin), max(start, begin, min(start + length, begin + extent))
        own.append(slice(first - start, last - start))
        others.append(slice(first - begin, last - begin))
    return (own[0], own[1]), (others[0], others[1])


def _shrunk(pixels: Pixels, step: int) -> Pixels:
    """A picture with the mean of each ``step x step`` square in its place, as levels are made."""
    height, width = (size // step for size in pixels.shape[:2])
    whole = pixels[: height * step, : width * step].astype(np.uint32)
    total = whole.reshape(height, step, width, step, 3).sum(axis=(1, 3))
    return ((total + step * step // 2) // step**2).astype(np.uint8)


@dataclass(frozen=True)
class KnownField:
    """The field of a canvas with a known picture: the picture's own cells, and near it like them.

    Attributes:
        wild: what it is far from the picture.
        picture: the picture.
    """

    wild: ProceduralField
    picture: KnownPicture

    def around(self, patch: Patch) -> tuple[Floats, Floats]:
        """Values (M, V) and places (M, 2) of a level-0 patch's cells and those beside them."""
        values_MV, place_M2 = self.wild.around(patch)
        f, place = self.wild.f, self.picture.places[0]
        corner = np.array([patch.row, patch.col]) * PATCH_PX - (place.top, place.left)
        centre_M2 = (place_M2 + 0.5) * f + corner  # from the picture's corner, in pixels
        nearest_M2 = np.clip(centre_M2, 0, (place.height, place.width))
        away_M = np.linalg.norm(centre_M2 - nearest_M2, axis=1)
        own_M1 = np.clip(1 - away_M / _REACH_PX, 0, 1)[:, None]
        own_M1 = own_M1 * own_M1 * (3 - 2 * own_M1)
        known_MV = np.stack([self._cell(*centre) for centre in nearest_M2.round().astype(int)])
        return ((1 - own_M1) * values_MV + own_M1 * known_MV).astype(np.float32), place_M2

    def _cell(self, down: int, right: int) -> Floats:
        """The values of the picture's pixels in a cell around a place of it."""
        pixels = self.picture.pixels[0]
        rows, cols = (
            slice(max(0, min(at - CELL_PX // 2, size - CELL_PX)), max(CELL_PX, at + CELL_PX // 2))
            for at, size in zip((down, right), pixels.shape[:2], strict=True)
        )
        cell = statistics(pixels[rows, cols], 1)
        return cell_values(cell.mean(axis=(0, 1)))


def known_picture(canvas: Canvas, pixels: Pixels, f: int, encode: Encode) -> KnownPicture:
    """A canvas' known picture, encoded at every level.

    Args:
        canvas: names it.
        pixels: it, (H, W, 3).
        f: pixels to a token's side.
        encode: the tokenizer, working on one core.

    Raises:
        InvalidRequest: it is another picture than the canvas names.
    """
    known, extent = canvas.known, canvas.extent
    if known is None or digest_of(pixels) != known.picture:
        raise InvalidRequest("this is not the picture that the canvas is painted around")
    places, levels, codes = [], [], []
    for level in range(extent.finest + 1):
        step = 2 ** (extent.finest - level)
        halved = _shrunk(pixels, step)
        height, width, _ = halved.shape
        places.append(Region(level, known.top // step, known.left // step, height, width))
        levels.append(halved)
        codes.append(encoded(halved[: height // f * f, : width // f * f], f, encode))
    return KnownPicture(extent, places, levels, codes, PATCH_PX // f)


def encoded(pixels: Pixels, f: int, encode: Encode) -> Codes:
    """Codes (h, w, K) of a picture (h * f, w * f, 3), window by window."""
    height, width = (size // f for size in pixels.shape[:2])
    bands = []
    for top in range(0, height, WINDOW_TOK):
        parts = []
        for left in range(0, width, WINDOW_TOK):
            first = max(0, top - MARGIN_TOK), max(0, left - MARGIN_TOK)
            last = top + WINDOW_TOK + MARGIN_TOK, left + WINDOW_TOK + MARGIN_TOK
            window = pixels[first[0] * f : last[0] * f, first[1] * f : last[1] * f]
            codes = encode(np.ascontiguousarray(window))[top - first[0] :, left - first[1] :]
            parts.append(codes[:WINDOW_TOK, :WINDOW_TOK])
        bands.append(np.concatenate(parts, axis=1))
    return np.concatenate(bands)
