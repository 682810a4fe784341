"""Known pictures: what is given, and painted around (outpainting; NUWA-Infinity, section 3).

A known picture lies on the token grid of every level, so its tokens are those of a canvas of which
it is a part: a token is known where it lies wholly inside the picture. The other tokens of a patch
are drawn given these. At level 0 the field takes on the picture's own colours near it, and passes
into what it is elsewhere; else the model would be told of two skies at once.

Shape suffixes: K codes of a token, M field cells, V values of a cell, s tokens to a patch's side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas, Known
from handscroll.context import Codes, Field, Floats
from handscroll.detail import Detail, Pieces
from handscroll.errors import InvalidRequest
from handscroll.field import CELL_PX, cell_values, near
from handscroll.geometry import (
    PATCH_PX,
    STANDS,
    Extent,
    Mask,
    Moved,
    Patch,
    Region,
    Tile,
    tile_region,
)
from handscroll.view import First, Painted, Tokens, View

WINDOW_TOK = 32
"""Pictures are encoded in windows of so many tokens to a side, each alone, so that what encodes
them decides nothing."""
MARGIN_TOK = 4
"""How far tokens reach to each side: what encodes them as well as what decodes them."""
INWARDS = 0.6
"""Where the mirror stands, from a picture's edge (0) to the middle of its outermost pixels (1). At
0 the same would stand there twice in a row, and across the join there would be less change than
beside it; at 1 twice as much, as what was lost is noise to what is painted."""
RIM_PX = 24
"""How far around a known picture what the tokenizer has lost of it is given back, mirrored. Pixels
of twice as far around a tile are at hand."""
TONE_PX = 96
"""How far around a known picture what is painted takes on its tones."""
BESIDE_PX = 32
"""How far around a pixel of a picture's edge tones are compared."""
MIXED_PX = 16
"""How far around a known picture tones are mixed already, by what decodes them."""
TONE_STEP = 96
"""The difference, in grey levels, above which what is painted is another thing and not toned."""
OTHER = 32
"""How far from frame 0, in grey levels, nothing of it is to be seen any more."""
_REACH_PX = 512
"""How far the field takes after a known picture, in pixels of level 0."""

Slices = tuple[slice, slice]
"""Rows and columns."""
Indices = NDArray[np.int64]


class Window(NamedTuple):
    """A part of a picture that is encoded by itself, in tokens.

    Attributes:
        seen: the part with a margin, counted from the picture's corner.
        inner: the part, counted from the corner of ``seen``.
        part: the part, counted from the picture's corner.
    """

    seen: Slices
    inner: Slices
    part: Slices

    def pixels(self, picture: Pixels, f: int) -> Pixels:
        """What is to be encoded (h * f, w * f, 3) of a picture."""
        return np.ascontiguousarray(picture[_pixels_of(self.seen, f)])

    def tokens(self, codes: Codes, f: int) -> Tokens:
        """What is to be decoded, given a picture's codes (h, w, K)."""
        seen = codes[self.seen]
        rows, cols = _pixels_of(self.inner, f)
        size = rows.stop - rows.start, cols.stop - cols.start
        return Tokens(seen, np.ones(seen.shape[:2], bool), rows.start, cols.start, *size)


def windows(height_tok: int, width_tok: int) -> Iterator[Window]:
    """The windows of a picture: each token lies in one, with all around it that it depends on."""
    for corner in product(range(0, height_tok, WINDOW_TOK), range(0, width_tok, WINDOW_TOK)):
        seen, inner, part = [], [], []
        for start, size in zip(corner, (height_tok, width_tok), strict=True):
            stop = min(start + WINDOW_TOK, size)
            first = max(0, start - MARGIN_TOK)
            seen.append(slice(first, min(stop + MARGIN_TOK, size)))
            inner.append(slice(start - first, stop - first))
            part.append(slice(start, stop))
        yield Window((seen[0], seen[1]), (inner[0], inner[1]), (part[0], part[1]))


def digest_of(pixels: Pixels) -> str:
    """SHA-256 of a picture's height, width and pixels (H, W, 3): its name in a canvas spec."""
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{height} {width}\n".encode() + pixels.tobytes()).hexdigest()


class KnownPlace:
    """Where a known picture lies on a canvas, which its spec alone says; wholly known patches are
    in it.

    Args:
        extent: of the canvas.
        known: the picture and its place.
        side: tokens to a patch's side.
    """

    def __init__(self, extent: Extent, known: Known, side: int) -> None:
        self.extent, self.known, self.side = extent, known, side

    def region(self, level: int) -> Region:
        """The pixels of a level that the picture covers."""
        known, step = self.known, 2 ** (self.extent.finest - level)
        _, *rectangle = astuple(known)
        return Region(level, *(size // step for size in rectangle))

    def shape_tok(self, level: int) -> tuple[int, int]:
        """Height and width of what is known at a level, in tokens."""
        f, region = PATCH_PX // self.side, self.region(level)
        return region.height // f, region.width // f

    def overlap(self, patch: Patch) -> tuple[Slices, Slices]:
        """The known tokens of a patch: counted from the patch's first, and from the picture's."""
        side, region = self.side, self.region(patch.level)
        f = PATCH_PX // side
        return _overlap(
            (patch.row * side, patch.col * side),
            (side, side if patch.frame == 0 else 0),  # what moves is drawn
            (region.top // f, region.left // f),
            self.shape_tok(patch.level),
        )

    def shows(self, tile: Tile, moved_px: Moved = STANDS) -> bool:
        """Whether a tile, of whatever frame, shows any of the picture or of what it passes into.

        As it stands, or as it is when it has moved.
        """
        region, place = tile_region(tile, self.extent), self.region(tile.level)
        down, right = region.top - place.top + TONE_PX, region.left - place.left + TONE_PX
        return any(
            -region.height < down - moved_down < place.height + 2 * TONE_PX
            and -region.width < right - moved_right < place.width + 2 * TONE_PX
            for moved_down, moved_right in (STANDS, moved_px)
        )

    def __contains__(self, patch: object) -> bool:
        if not isinstance(patch, Patch):
            return False
        own, _ = self.overlap(patch)
        f = PATCH_PX // self.side
        sizes = self.extent.size(patch.level)
        for known, index, size in zip(own, (patch.row, patch.col), sizes, strict=True):
            first, last = 0, self.side
            if size is not None:  # tokens outside the canvas need not be known
                first = max(first, -index * self.side)
                last = min(last, size // f - index * self.side)
            if known.start > first or known.stop < last:
                return False
        return True


@dataclass(frozen=True)
class KnownTokens:
    """What a known picture gives to the patches it lies in, and to those near it.

    Attributes:
        place: where it lies.
        codes: (h, w, K) at each level, coarsest first, of the tokens that lie wholly inside.
    """

    place: KnownPlace
    codes: Sequence[Codes]

    def tokens(self, patch: Patch) -> tuple[Codes, Mask]:
        """Codes (side, side, K) of a patch, 0 where unknown, and which are known."""
        codes, side = self.codes[patch.level], self.place.side
        block = np.zeros((side, side, codes.shape[2]), np.uint8)
        known = np.zeros((side, side), bool)
        own, others = self.place.overlap(patch)
        block[own], known[own] = codes[others], True
        return block, known

    def whole(self, patch: Patch) -> bool:
        """Whether all tokens of a patch that lie in the canvas are known."""
        return patch in self.place

    def decoded(self, level: int, decode: Callable[[Tokens], Pixels]) -> Pixels:
        """What is decoded of a level (h * f, w * f, 3), in windows that are each decoded alone."""
        f, codes = PATCH_PX // self.place.side, self.codes[level]
        parts = [
            (window.part, decode(window.tokens(codes, f))) for window in windows(*codes.shape[:2])
        ]
        return joined(codes.shape[:2], parts, f)


@dataclass(frozen=True)
class KnownPixels:
    """A known picture as it is to be seen: untouched.

    Attributes:
        place: where it lies.
        levels: (H, W, 3) at each level, coarsest first.
    """

    place: KnownPlace
    levels: Sequence[Pixels]

    def detail(self, level: int, decoded: Pixels) -> Detail:
        """What the tokenizer has lost of the picture at a level, given what is decoded of it."""
        height, width, _ = decoded.shape
        pieces = Pieces(self.levels[level][None, :height, :width], decoded[None])
        region, tile = self.place.region(level), tile_region(Tile(level, 0, 0), self.place.extent)
        return Detail(pieces, (tile.top - region.top, tile.left - region.left))

    def lay_over(self, painted: Painted) -> Pixels:
        """Show the picture where it lies.

        What a pixel of the picture has and the one decoded in its place has not, the tokenizer has
        lost. It is given back: to that pixel, and mirrored to those of the rim, fading outwards. So
        in frame 0 the picture is as it was given and passes into what is painted. Later it is so
        where nothing moves; where something has come from elsewhere in frame 0, its own detail goes
        along. By as much as the picture is brighter at its edge than what is beside it, that is
        brightened, fading outwards over TONE_PX, in all frames alike.

        Returns:
            (h, w, 3), of what is painted there.
        """
        view = painted.view
        if not self.place.shows(view.tile, view.moved_px):
            return painted.shown()
        shown_HW3 = painted.pixels + painted.lost
        toned_HW = np.ones(shown_HW3.shape[:2])
        for first in painted.firsts:
            share_HW, lost_HW3 = self._lost(view, first)
            shown_HW3 += share_HW[..., None] * (lost_HW3 - painted.lost)
            if first.moved_px != STANDS:
                toned_HW -= share_HW  # what has come brings its tones along
        stood = painted.firsts[0]
        shown_HW3 += toned_HW[..., None] * self._step(view, np.rint(stood.pixels + stood.lost))
        return np.rint(np.clip(shown_HW3, 0, 255)).astype(np.uint8)

    def _lost(self, view: View, first: First) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How much of what the tokenizer has lost is given back (h, w), and what it has (h, w, 3),
        mirrored outside the picture."""
        rows, cols = self._axes(view.region, first.moved_px)
        mirrored = np.ix_(rows.mirrored, cols.mirrored)
        lost_HW3 = (self._own(view, rows, cols) - first.pixels).astype(np.float64)
        for axis, line in enumerate((rows, cols)):
            at_edge = lost_HW3.take(line.mirrored, axis)
            lost_HW3 = at_edge + INWARDS * (lost_HW3.take(line.inwards, axis) - at_edge)
        seen_HW = first.share * near(np.maximum(first.change, first.change[mirrored]) / OTHER)
        return seen_HW * near(np.hypot(rows.away[:, None], cols.away) / RIM_PX), lost_HW3

    def _step(self, view: View, first_HW3: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much what is painted beside the picture, and was in frame 0, is brightened."""
        rows, cols = self._axes(view.region)
        away_HW = np.hypot(rows.away[:, None], cols.away)
        step_HW = near(away_HW / TONE_PX) - near(away_HW / MIXED_PX)
        if not view.cut(step_HW).any():  # a tile inside the picture takes on nothing
            return np.zeros(first_HW3.shape)
        level, top, left, height, width, _ = view.region
        inside_HW = view.extent.inside(level, top, left, (height, width), 1)
        own_mean_HW3 = _mean_around(self._own(view, rows, cols), away_HW == 0)
        step_HW3 = own_mean_HW3 - _mean_around(
            first_HW3.astype(np.int32), inside_HW & (away_HW > MIXED_PX)
        )
        edge = np.ix_(rows.nearest, cols.nearest)
        step_HW3 = np.nan_to_num(step_HW3[edge])  # where there is nothing to compare: none
        step_HW *= near(np.abs(step_HW3).max(axis=2) / TONE_STEP)
        return step_HW[..., None] * step_HW3

    def _axes(self, region: Region, moved_px: Moved = STANDS) -> tuple[_Axis, _Axis]:
        """How the pixels of a region lie to the picture when it has moved."""
        place, (down, right) = self.place.region(region.level), moved_px
        return (
            _Axis.of(region.top - down - place.top, region.height, place.height),
            _Axis.of(region.left - right - place.left, region.width, place.width),
        )

    def _own(self, view: View, rows: _Axis, cols: _Axis) -> NDArray[np.int32]:
        """The picture's pixels (h, w, 3) that are, or are nearest to, those of a view."""
        return self.levels[view.tile.level][np.ix_(rows.own, cols.own)].astype(np.int32)


class _Axis(NamedTuple):
    """How the pixels of a region lie to a picture, along one axis.

    Attributes:
        away: how far outside it.
        own: the pixel of the picture that it is, or is nearest to.
        mirrored: the place, in the region, of the picture's pixel that it is the mirror image of,
            if the mirror stands at the picture's edge.
        inwards: the same, if it stands in the middle of the outermost pixels.
        nearest: the place, in the region, of the picture's pixel nearest to it.
    """

    away: Indices
    own: Indices
    mirrored: Indices
    inwards: Indices
    nearest: Indices

    @classmethod
    def of(cls, start: int, length: int, size: int) -> _Axis:
        """Of ``length`` pixels from ``start`` on, counted from the corner of a picture of ``size``.

        Places beyond the region lie so far from the tile that what comes of them is cut off.
        """
        at = np.arange(start, start + length)
        own = np.clip(at, 0, size - 1)
        outside = [
            np.where(at < 0, -1 - at + inwards, np.minimum(at, 2 * size - 1 - inwards - at))
            for inwards in (0, 1)
        ]
        seen = (*(np.clip(one, 0, size - 1) for one in outside), own)
        places = (np.clip(one - start, 0, length - 1) for one in seen)
        return cls(np.abs(at - own), own, *places)


def _mean_around(values_HW3: NDArray[np.int32], mask_HW: Mask) -> NDArray[np.float64]:
    """The mean of whole numbers around each place, BESIDE_PX to every side, as far as a mask goes.

    NaN where it does not. Sums of whole numbers do not depend on what else is summed.
    """
    sums = np.concatenate((values_HW3, np.ones_like(values_HW3[..., :1])), axis=2)
    sums *= mask_HW[..., None]
    span = 2 * BESIDE_PX + 1
    for _ in range(2):  # down, then right
        whole = np.pad(sums, ((BESIDE_PX + 1, BESIDE_PX), (0, 0), (0, 0))).cumsum(0, dtype=np.int32)
        sums = (whole[span:] - whole[:-span]).swapaxes(0, 1)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = sums[..., :3] / sums[..., 3:]
    return found


def _overlap(
    corner: tuple[int, int], shape: tuple[int, int], other: tuple[int, int], size: tuple[int, int]
) -> tuple[Slices, Slices]:
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
    blocks = pixels[: height * step, : width * step].reshape(height, step, width, step, 3)
    total = blocks.sum(axis=(1, 3), dtype=np.uint32)
    return ((total + step * step // 2) // step**2).astype(np.uint8)


@dataclass(frozen=True)
class KnownField:
    """The field of a canvas with a known picture: the picture's own cells, and near it like them.

    Attributes:
        wild: what it is far from the picture.
        place: where the picture lies.
        statistics_hw4: of the picture's tokens at level 0, see `field.statistics`.
    """

    wild: Field
    place: KnownPlace
    statistics_hw4: Floats

    def around(self, patch: Patch) -> tuple[Floats, Floats]:
        """Values (M, V) and places (M, 2) of a level-0 patch's cells and those beside them."""
        values_MV, place_M2 = self.wild.around(patch)
        f, place = PATCH_PX // self.place.side, self.place.region(0)
        corner = np.array([patch.row, patch.col]) * PATCH_PX - (place.top, place.left)
        centre_M2 = (place_M2 + 0.5) * f + corner  # from the picture's corner, in pixels
        nearest_M2 = np.clip(centre_M2, 0, (place.height, place.width))
        away_M = np.linalg.norm(centre_M2 - nearest_M2, axis=1)
        own_M1 = near(away_M / _REACH_PX)[:, None]
        known_MV = np.stack([self._cell(*centre) for centre in nearest_M2.round().astype(int)])
        return ((1 - own_M1) * values_MV + own_M1 * known_MV).astype(np.float32), place_M2

    def _cell(self, down: int, right: int) -> Floats:
        """The values of a cell around a pixel of the picture, or of as much as there is of one."""
        f = PATCH_PX // self.place.side
        cell = CELL_PX // f
        rows, cols = (
            slice(first := max(0, min(at // f - cell // 2, size - cell)), first + cell)
            for at, size in zip((down, right), self.statistics_hw4.shape[:2], strict=True)
        )
        return cell_values(self.statistics_hw4[rows, cols].mean(axis=(0, 1)))


def known_pixels(canvas: Canvas, pixels: Pixels, side: int) -> KnownPixels:
    """A canvas' known picture at every level.

    Args:
        canvas: names it.
        pixels: it, (H, W, 3).
        side: tokens to a patch's side.

    Raises:
        InvalidRequest: it is another picture than the canvas names.
    """
    known, extent = canvas.known, canvas.extent
    if known is None or digest_of(pixels) != known.picture:
        raise InvalidRequest("this is not the picture that the canvas is painted around")
    levels = [_shrunk(pixels, 2 ** (extent.finest - level)) for level in range(extent.finest)]
    return KnownPixels(KnownPlace(extent, known, side), [*levels, pixels])


def known_tokens(picture: KnownPixels, encode: Callable[[Pixels], Codes]) -> KnownTokens:
    """A known picture, encoded at every level.

    Args:
        picture: the picture.
        encode: pixels (h * f, w * f, 3) to codes (h, w, K), on one core.
    """
    place, levels = picture.place, []
    f = PATCH_PX // place.side
    for level, pixels in enumerate(picture.levels):
        parts = [
            (window.part, encode(window.pixels(pixels, f))[window.inner])
            for window in windows(*place.shape_tok(level))
        ]
        levels.append(joined(place.shape_tok(level), parts))
    return KnownTokens(place, levels)


def joined(
    shape_tok: tuple[int, int], parts: Sequence[tuple[Slices, NDArray[np.uint8]]], f: int = 1
) -> NDArray[np.uint8]:
    """Codes (h, w, K) of a picture, or its pixels (h * f, w * f, 3), from those of its windows."""
    height, width = shape_tok
    whole = np.zeros((height * f, width * f, parts[0][1].shape[2]), np.uint8)
    for part, found in parts:
        whole[_pixels_of(part, f)] = found
    return whole


def _pixels_of(part: Slices, f: int) -> Slices:
    """The pixels of some tokens."""
    rows, cols = (slice(at.start * f, at.stop * f) for at in part)
    return rows, cols
