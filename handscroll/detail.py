"""Detail: what the tokenizer loses, found again by example.

A tokenizer keeps what a picture shows and loses its grain: blades of grass, stones, ripples. Of the
pictures that a model has learned from, pieces are kept, themselves and what is decoded of their
tokens, and of a picture that is given (see `handscroll.known`) both are at hand; so each place of
them is an example of what is lost of what looks so. What is painted is cut into blocks, and each is
given what was lost at a place that looks like it (image analogies, Hertzmann et al. 2001;
example-based super-resolution, Freeman et al. 2002): of the few that look most like it one of which
little was lost. Of a sky a bare twig may be lost, or nothing.

Which place that is, is found in whole numbers: it does not depend on what else is looked at, nor on
how a machine adds.

Shape suffixes: N pieces, E examples, n m blocks, r c squares of half a block's side, V values of a
block.
"""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from handscroll.assemble import Pixels
from handscroll.field import near
from handscroll.geometry import Mask

STEP_PX = 16
"""How far apart blocks of what is painted begin, from a tile's corner on; each is twice as large.
So of so many pixels around a tile must be known what is painted."""
BLOCK_PX = 2 * STEP_PX
EVERY_PX = 8
"""How far apart examples lie, at least."""
MOST = 2**14
"""About how many examples there are at most: of larger pictures they lie farther apart."""
TURNS = 4
"""Of so many blocks in a row each has examples of its own, of which the others take none: what was
given to many side by side would be seen to be repeated."""
ALIKE, NEARLY = 9, 12
"""Among how many places one is chosen, and by how many grey levels more than the most alike they
may differ from a block. It is the third of nine by how much was lost there."""
UNLIKE = 32
"""How far, in grey levels, a block is from what it is likened to if nothing that was lost there is
given to it; the nearer, the more."""
SOFT = 2
"""The contrast of a block, in grey levels, from which on it counts: of what was lost where there is
more contrast, a softer block is given the less."""
STANDS_OUT = 6
"""How many times as much as the median of its block may be lost of a pixel to be given to another,
rounded up by a grey level: it is grain. What stands out are things, and would be seen repeated."""
_CELL_PX = 4
"""Blocks are compared by the means of squares of so many pixels."""
_AT_ONCE = 256
"""How many blocks are compared at a time; each takes up to 64 KiB."""
_RISES = np.sin(np.pi * (np.arange(STEP_PX) + 0.5) / BLOCK_PX) ** 2
_LEAST = 1e-9

Number = TypeVar("Number", bound=np.generic)
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


class Pieces(NamedTuple):
    """Pieces of pictures of one level, all of one size.

    Attributes:
        pictures_NHW3: themselves.
        decoded_NHW3: what is decoded of their tokens.
    """

    pictures_NHW3: Pixels
    decoded_NHW3: Pixels


class _Examples(NamedTuple):
    """Some places, and what they are found by.

    Attributes:
        place_E3: of each, its piece and its corner in that.
        values_EV: of each, as it is decoded, a byte each.
        half_E: half the sum of their squares.
        lost_E: how much was lost there, the sum of its squares.
    """

    place_E3: Ints
    values_EV: NDArray[np.int8]
    half_E: Singles
    lost_E: Ints

    @classmethod
    def of(cls, values_EV: Singles, place_E3: Ints, lost_E: Ints) -> _Examples:
        """Of these values."""
        half_E = np.square(values_EV).sum(axis=1) / np.float32(2)
        return cls(place_E3, values_EV.astype(np.int8), half_E, lost_E)

    def like(self, values_nmV: Singles) -> tuple[Ints, Floats]:
        """Where what is like each block is, (n, m, 3), and how much of what was lost there it is
        given, (n, m)."""
        values_VE = self.values_EV.T.astype(np.float32)
        shape, values_BV = values_nmV.shape[:2], values_nmV.reshape(-1, values_nmV.shape[2])
        found_B, unlike_B = np.zeros(len(values_BV), np.int64), np.zeros(len(values_BV))
        for start in range(0, len(values_BV), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            like_BE = values_BV[some] @ values_VE - self.half_E
            squared_B = np.square(values_BV[some]).sum(axis=1)
            found_B[some], unlike_B[some] = self._quiet(like_BE, squared_B)
        fainter_B = (_contrast(values_BV) + SOFT) / (_contrast(self.values_EV[found_B]) + SOFT)
        share_B = np.minimum(fainter_B, 1) * near(unlike_B / UNLIKE)
        return self.place_E3[found_B].reshape(*shape, 3), share_B.reshape(shape)

    def _quiet(self, like_BE: Singles, squared_B: Singles) -> tuple[Ints, Floats]:
        """Of the few that are most like each block the one of which little was lost, and how far
        it is from that, in grey levels.

        Args:
            like_BE: half of what squares of the block and the example add up to, less half the
                squares of what differs; whole and half numbers. Overwritten.
            squared_B: the sum of the block's squares.
        """
        rows_B = np.arange(len(like_BE))
        few_AB, unlike_AB = [], []
        for _ in range(min(ALIKE, like_BE.shape[1])):
            few_AB.append(like_BE.argmax(axis=1))  # the first of those that are as like
            apart_B = np.maximum(squared_B - 2 * like_BE[rows_B, few_AB[-1]], 0).astype(np.float64)
            unlike_AB.append(np.sqrt(apart_B / self.values_EV.shape[1]))
            like_BE[rows_B, few_AB[-1]] = -np.inf
        few, unlike = np.stack(few_AB), np.stack(unlike_AB)
        nearly = unlike <= unlike[0] + NEARLY
        by_lost = np.where(nearly, self.lost_E[few], np.iinfo(np.int64).max).argsort(0, "stable")
        chosen_B = by_lost[(nearly.sum(axis=0) - 1) // 4, rows_B]
        return few[chosen_B, rows_B], unlike[chosen_B, rows_B]


class Detail:
    """What the tokenizer has lost of pictures of one level, to be found again.

    Args:
        pieces: of them.
        tile: where a tile begins, counted down and right from the corner of a piece. To tokens
            examples lie as blocks of tiles do then: what is painted as the piece is decoded, at the
            place where the piece lies, finds itself.
    """

    def __init__(self, pieces: Pieces, tile: tuple[int, int] = (0, 0)) -> None:
        self._pieces = pieces
        count, height, width, _ = pieces.decoded_NHW3.shape
        places = math.prod(max(0, size - BLOCK_PX) // EVERY_PX + 1 for size in (height, width))
        apart_px = EVERY_PX * math.ceil(math.sqrt(count * places / MOST))
        begin_2 = np.array(tile) % min(apart_px, STEP_PX)
        seen = (one[begin_2[0] :, begin_2[1] :] for one in pieces.decoded_NHW3)
        values_NnmV = np.stack([_values(one, apart_px) for one in seen])
        place_Nnm3 = np.moveaxis(np.indices(values_NnmV.shape[:3]), 0, 3) * (1, apart_px, apart_px)
        place_Nnm3 += (0, *begin_2)
        turn_Nnm2 = (place_Nnm3[..., 1:] - tile) // STEP_PX % TURNS
        self._examples: dict[tuple[int, int], _Examples] = {}
        for turn in product(range(TURNS), range(TURNS)) if values_NnmV.size else ():
            mine = (turn_Nnm2 == turn).all(axis=3)
            if not mine.any():  # of few examples, or some far apart, there are none for some turns
                mine[:] = True
            place_E3 = place_Nnm3[mine]
            self._examples[turn] = _Examples.of(values_NnmV[mine], place_E3, self._losses(place_E3))

    def of(self, painted: Pixels, inside: Mask, corner_px: tuple[int, int]) -> Floats:
        """What the tokenizer would have lost of what is painted.

        Where blocks overlap that have found the same place, that is what is there, but for what
        stands out. Others are mixed by weights of which the squares add up to one, so that grain
        stays as strong as it is; but the means of blocks, which are tones, by weights that add up
        themselves. Blocks that reach out of the canvas count for nothing.

        Args:
            painted: (h, w, 3).
            inside: which of it lies in the canvas, (h, w).
            corner_px: the corner of a tile in it, down and right, from which blocks are laid and
                counted. Within STEP_PX of the rim not all blocks are seen.

        Returns:
            Grey levels to be added, (h, w, 3).
        """
        found_HW3 = np.zeros(painted.shape)
        if not self._examples:
            return found_HW3
        rows, cols = (
            slice(first := at % STEP_PX, size - (size - first) % STEP_PX)
            for at, size in zip(corner_px, inside.shape, strict=True)
        )
        first_nm = ((rows.start - corner_px[0]) // STEP_PX, (cols.start - corner_px[1]) // STEP_PX)
        place_nm3, share_nm = self._like(_values(painted[rows, cols], STEP_PX), first_nm)
        whole_nm = np.asarray(_windows(inside[rows, cols], BLOCK_PX, STEP_PX).all(axis=(2, 3)))
        mixed = self._mixed(place_nm3, share_nm, whole_nm)
        shape = (rows.stop - rows.start, cols.stop - cols.start, 3)
        found_HW3[rows, cols] = mixed.transpose(0, 2, 1, 3, 4).reshape(shape)
        return found_HW3

    def _like(self, values_nmV: Singles, first: tuple[int, int]) -> tuple[Ints, Floats]:
        """Where what is like each block is, and how much of what was lost there it is given.

        Args:
            values_nmV: of the blocks.
            first: how many steps from a tile's corner they begin, down and right.
        """
        share_nm = np.zeros(values_nmV.shape[:2])
        place_nm3 = np.zeros((*share_nm.shape, 3), np.int64)
        for (down, right), examples in self._examples.items():
            mine = np.s_[(down - first[0]) % TURNS :: TURNS, (right - first[1]) % TURNS :: TURNS]
            place_nm3[mine], share_nm[mine] = examples.like(values_nmV[mine])
        return place_nm3, share_nm

    def _mixed(self, place_nm3: Ints, share_nm: Floats, whole_nm: Mask) -> Floats:
        """What blocks are given, mixed: (r, c, STEP_PX, STEP_PX, 3).

        A square lies under four blocks: two that begin there, or began a step before, each way.
        """
        lost_nmBB3 = self._lost(place_nm3, BLOCK_PX)
        most_nm = STANDS_OUT * np.median(np.abs(lost_nmBB3), axis=(2, 3, 4)) + 1
        bound = most_nm[:, :, None, None, None]
        tone_nm3 = np.clip(lost_nmBB3, -bound, bound).mean(axis=(2, 3))
        place, tone, most, share, whole = (
            np.pad(one, ((1, 1), (1, 1), *((0, 0),) * (one.ndim - 2)))
            for one in (place_nm3, tone_nm3, most_nm, share_nm, whole_nm)
        )
        rows, cols = share_nm.shape
        parts = []
        for down, right in product((0, 1), (0, 1)):  # half a block farther on in it than its corner
            over = np.s_[1 - down : rows + 2 - down, 1 - right : cols + 2 - right]
            weight_HW = np.outer(*(_RISES[:: 1 - 2 * farther] for farther in (down, right)))
            parts.append(
                _Part(
                    place[over] + STEP_PX * np.array([0, down, right]),
                    whole[over][..., None, None] * weight_HW,
                    share[over][..., None, None, None],
                    tone[over][:, :, None, None],
                    most[over][..., None, None, None],
                )
            )
        total = np.maximum(sum(one.weight for one in parts), _LEAST)
        mixed = np.zeros((*total.shape, 3))
        for part in parts:
            alike = sum(
                one.weight * (one.place == part.place).all(axis=2)[..., None, None] for one in parts
            )
            lost = self._lost(part.place, STEP_PX)
            grain = np.clip(lost, -part.most, part.most) - part.tone
            grain /= np.sqrt(np.maximum(alike / total, _LEAST))[..., None]
            mixed += (part.weight / total)[..., None] * part.share * (part.tone + grain)
        return mixed

    def _losses(self, place_E3: Ints) -> Ints:
        """How much was lost of blocks of the pieces, the sums of its squares, (E,)."""
        parts = [place_E3[None, at : at + _AT_ONCE] for at in range(0, len(place_E3), _AT_ONCE)]
        squares = (np.square(self._lost(one, BLOCK_PX).astype(np.int64))[0] for one in parts)
        return np.concatenate([one.sum(axis=(1, 2, 3)) for one in squares])

    def _lost(self, place_nm3: Ints, side: int) -> NDArray[np.int16]:
        """What was lost of squares of the pieces: (n, m, side, side, 3)."""
        at = tuple(np.moveaxis(place_nm3, 2, 0))
        own, decoded = (
            np.moveaxis(sliding_window_view(one, (side, side), axis=(1, 2))[at], 2, 4)
            for one in self._pieces
        )
        return own.astype(np.int16) - decoded


class _Part(NamedTuple):
    """What the blocks that begin there, or half a block before, give to squares, (r, c, …).

    Attributes:
        place: that was found, its piece and its corner in that, (r, c, 3).
        weight: of each pixel, (r, c, STEP_PX, STEP_PX).
        share: how much of it is given.
        tone: the mean of what was lost in the block.
        most: what is given of a pixel at most, either way.
    """

    place: Ints
    weight: Floats
    share: Floats
    tone: Floats
    most: Floats


def _windows(values: NDArray[Number], side: int, apart: int) -> NDArray[Number]:
    """The squares (n, m, side, side, …) of an array (h, w, …), so far apart."""
    windows = sliding_window_view(values, (side, side), axis=(0, 1))[::apart, ::apart]
    return np.moveaxis(windows, (-2, -1), (2, 3))


def _values(pixels: Pixels, apart_px: int) -> Singles:
    """What blocks are compared by, (n, m, V): whole numbers from -128 to 127.

    Products of them add up to less than 2**24 in a block, so that in float32 sums are exact.
    """
    height, width = (size // _CELL_PX for size in pixels.shape[:2])
    cells = pixels[: height * _CELL_PX, : width * _CELL_PX]
    cells = cells.reshape(height, _CELL_PX, width, _CELL_PX, 3)
    means_hw3 = cells.sum(axis=(1, 3), dtype=np.int32) // _CELL_PX**2 - 128
    side = BLOCK_PX // _CELL_PX
    if min(height, width) < side:
        return np.zeros((0, 0, 3 * side**2), np.float32)
    blocks = _windows(means_hw3.astype(np.float32), side, apart_px // _CELL_PX)
    return blocks.reshape(*blocks.shape[:2], -1)


def _contrast(values_BV: Singles | NDArray[np.int8]) -> Floats:
    """How far blocks are from their mean, in grey levels."""
    cells_Bp3 = values_BV.reshape(len(values_BV), -1, 3).astype(np.float64)
    squares_B3, means_B3 = np.square(cells_Bp3).mean(axis=1), cells_Bp3.mean(axis=1)
    return np.sqrt((squares_B3 - np.square(means_B3)).mean(axis=1))
