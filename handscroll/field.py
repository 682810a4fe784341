"""The procedural field: the parent that level 0 has instead of a level above.

A field gives every cell of CELL_PX pixels at level 0 a few values, those of a real picture's cell:
its mean colour and how much its brightness varies. Anchors stand along the endless axes at a fixed
spacing; each picks one entry of a palette, a block of cells cut from a real picture or that block's
mirror image, and lays it around itself; about half way to the next anchor one passes smoothly into
the other, on a map along a border that a noise bends, as coasts are bent. So most places are laid
out as some picture is, far-apart ones differ as pictures do, any place can be asked for at once,
and it costs no patches. In the palette like lies next to like, and a slower noise says which part
of it anchors pick from: ocean, ice, forest and desert do not lie in pieces beside each other.

Where a canvas has words, anchors pick only from entries whose pictures were described alike: "a
stormy sea" is painted over colours of seas. A region with words of its own has anchors of its own,
one of them in its middle; what is around it flows into it at its sides as scenes do, or on a map
passes into it along a frayed border. So words decide what is where, and all around agree.

Along a bounded axis (the height of a scroll) an entry is as high as the canvas: sky above ground
stays sky above ground. In a picture of another height it is stretched. Such an entry is a scene,
and flows into the next: what lies at other heights in it moves up or down on the way, so that one
horizon rises to another. A mixture of hills and sky would be fog.

Entries are bridged as patches are: every second anchor picks what joins those beside it best, two
scenes or four parts of a map. So horizons and coasts meet, one sky passes into the next, and still
nothing further away is asked.

Shape suffixes: E palette entries, B blocks that they are, R rows and C columns of a block, V values
of a cell, M cells, W length of an embedding, P pairs of layers that flow into each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handscroll.context import Floats
from handscroll.geometry import PATCH_PX, Extent, Patch
from handscroll.seeds import patch_key, uniforms

Step = tuple[int, int]

CELL_PX = 16
CELL_VALUES = 4
MARGIN = 2
"""Cells around its own that a patch sees."""

# Streams of random numbers; an octave has its own, and 7 is that of snow (`sample`).
_PICK, _CLIMATE, _BEND, _FRAY = 1, 2, 3, 5
_CLIMATE_SPACING = 4  # anchors between two climates
_SPREAD = 1.6  # a blend of uniform numbers keeps to the middle: this spreads it again
_PICK_REACH = 0.3  # how much of the palette the anchors of one climate share
_SCENE_REACH = 0.12  # the same where an entry is a whole scene
_PASSAGE = 0.4  # the share of the way between anchors on which one entry passes into the next
_BENT = ((1 / 2, 0.3), (1 / 4, 0.15))  # bends of borders: how far apart and how deep, in anchors
_SCENE_PASSAGE = 0.8  # the share of the way on which one scene flows into the next
_RISE, _MEET = 0.3, 0.02  # what it costs a scene to flow up or down, and any two layers to meet
_EDGE = 4  # cells of an entry, across its border, that are to match
_BRIDGES = 4  # how many of the entries that match best a bridge picks from
_FRAYED = ((6, 2 / 3), (3, 1 / 3))  # what frays a cover: how far apart, in cells, and how much
_ALIKE = 5  # descriptions that words leave to pick from, at least
_AS_NEAR = 0.03  # how much less near than the nearest a description may be that is left, too


def statistics(pixels: NDArray[np.uint8], f: int) -> Floats:
    """Mean colour and mean squared brightness of every token of a level: (h, w, 4)."""
    colour = pixels.astype(np.float32) / 127.5 - 1
    grey = colour.mean(-1, keepdims=True) ** 2
    blocks = np.concatenate((colour, grey), axis=-1)
    height, width = (size // f for size in pixels.shape[:2])
    blocks = blocks[: height * f, : width * f]
    return blocks.reshape(height, f, width, f, 4).mean(axis=(1, 3))


def cell_values(statistics_4: Floats) -> Floats:
    """Statistics averaged over a cell, as the field gives them: mean colour, brightness spread."""
    spread = statistics_4[..., 3] - statistics_4[..., :3].mean(-1) ** 2
    return np.concatenate(
        (statistics_4[..., :3], np.sqrt(np.maximum(spread, 0))[..., None]), axis=-1
    )


@dataclass(frozen=True, eq=False)
class Palette:
    """What the fields of a world are made of.

    Every block is two entries: as it is, and from the other side.

    Attributes:
        blocks_BRCV: of cells, like next to like.
        captions_BW: embeddings of what each block's picture shows; None if nobody said.
        spacing: cells between anchors.
        layered: whether a block is as high as the canvas.
    """

    blocks_BRCV: Floats
    captions_BW: Floats | None
    spacing: int
    layered: bool

    def __len__(self) -> int:
        return 2 * len(self.blocks_BRCV)

    def __getitem__(self, entry: int) -> Floats:
        """The cells (R, C, V) of an entry."""
        block_RCV = self.blocks_BRCV[entry // 2]
        return block_RCV[:, ::-1] if entry % 2 else block_RCV

    def alike(self, words_W: Floats) -> NDArray[np.int64]:
        """The entries described nearest to these words, in the palette's order.

        Those of _ALIKE descriptions, and of more that are about as near as the nearest. Each of
        these has as many places among them: those with fewer entries repeat.
        """
        descriptions_DW, which_E = self._descriptions
        # Rounded, so that they are equally near on every machine.
        nearness = np.round(descriptions_DW.astype(np.float64) @ words_W.astype(np.float64), 6)
        count = max(_ALIKE, np.count_nonzero(nearness >= nearness.max() - _AS_NEAR))
        nearest = np.argsort(-nearness, kind="stable")[:count]
        told = [np.flatnonzero(which_E == one) for one in nearest]
        most = max(map(len, told))
        found: NDArray[np.int64] = np.sort(np.concatenate([np.resize(one, most) for one in told]))
        return found

    def between(self, beside: dict[Step, int], among_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Some of the entries ``among_N``, what joins the entries beside them best first.

        Not those described as one beside them is, where there are others: they show the same place,
        or its mirror image.

        Args:
            beside: the entry at each step from there.
            among_N: entries.
        """
        if self.captions_BW is not None:
            which_E = self._descriptions[1]
            others_N = among_N[~np.isin(which_E[among_N], which_E[list(beside.values())])]
            among_N = others_N if len(others_N) else among_N
        apart_N = np.zeros(len(among_N))
        for (down, right), entry in beside.items():
            own_EX, others_EX = self._edges[down, right], self._edges[-down, -right]
            apart_N += ((own_EX[among_N] - others_EX[entry]) ** 2).sum(-1)
        found: NDArray[np.int64] = among_N[np.argsort(np.round(apart_N, 6), kind="stable")]
        return found

    @cached_property
    def joined(self) -> Callable[[int, int], NDArray[np.int64]]:
        """Which layers of an entry and of the one to its right flow into each other: (P, 2).

        Found by `warping` along the border between them.
        """
        return lru_cache(maxsize=4096)(self._joined)

    def _joined(self, left: int, right: int) -> NDArray[np.int64]:
        left_R3, right_R3 = (
            self._edges[step][entry].reshape(-1, 3)
            for entry, step in ((left, (0, 1)), (right, (0, -1)))
        )
        return warping(left_R3, right_R3)

    @cached_property
    def _edges(self) -> dict[Step, NDArray[np.float64]]:
        """The mean colours along every entry where the anchors beside it begin, by the step there.

        Of a layered one along all of its height.
        """
        colours_ERC3 = np.stack([self[entry][..., :3] for entry in range(len(self))], dtype=float)
        along = np.arange(-self.spacing // 2, self.spacing // 2)
        found: dict[Step, NDArray[np.float64]] = {}
        for step in self.steps:
            axis = 1 if step[0] else 2
            across = sum(step) * self.spacing // 2 + np.arange(-_EDGE // 2, _EDGE // 2)
            cells = _around(0, across, colours_ERC3.shape[axis])
            edge_EX3 = colours_ERC3.take(cells, axis).mean(axis)
            if not self.layered:
                edge_EX3 = edge_EX3[:, _around(0, along, edge_EX3.shape[1])]
            found[step] = edge_EX3.reshape(len(self), -1)
        return found

    @property
    def steps(self) -> tuple[Step, ...]:
        """From an anchor to those beside it: rows and columns of anchors."""
        sideways = (0, -1), (0, 1)
        return sideways if self.layered else (*sideways, (-1, 0), (1, 0))

    @cached_property
    def _descriptions(self) -> tuple[Floats, NDArray[np.int64]]:
        """Every caption once, and which of them each entry has."""
        assert self.captions_BW is not None
        found, which = np.unique(self.captions_BW, axis=0, return_inverse=True)
        return found, np.repeat(which.reshape(-1), 2)


def _everywhere(span: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.ones(len(span))


class Layout(NamedTuple):
    """What is laid out by itself: a canvas, or a region of it that has words of its own.

    Attributes:
        sought_W: what its pictures are looked for by; None where nothing is said.
        middle: row and column of a cell that an anchor stands at.
        down: how much of each of some rows of cells it covers, 0 to 1, if its border were straight.
        right: the same of columns.
        sides: the columns of cells at which it begins and ends, if it does.
    """

    sought_W: Floats | None = None
    middle: tuple[int, int] = (0, 0)
    down: Callable[[NDArray[np.int64]], NDArray[np.float64]] = _everywhere
    right: Callable[[NDArray[np.int64]], NDArray[np.float64]] = _everywhere
    sides: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class ProceduralField:
    """The field of one canvas.

    Attributes:
        seed: the canvas seed.
        extent: the canvas extent.
        palette: of its world.
        f: pixels to a token's side.
        layouts: what it is laid out of; the first lies everywhere, later ones on top.
    """

    seed: int
    extent: Extent
    palette: Palette
    f: int
    layouts: tuple[Layout, ...] = (Layout(),)

    def around(self, patch: Patch) -> tuple[Floats, Floats]:
        """Values (M, V) and places (M, 2) of a level-0 patch's cells and those beside them."""
        side = PATCH_PX // CELL_PX
        spans = []
        for index, size in zip((patch.row, patch.col), self.extent.size(0), strict=True):
            span = np.arange(index * side - MARGIN, (index + 1) * side + MARGIN)
            inside = (span >= 0) & (span * CELL_PX < size) if size is not None else span == span
            spans.append(span[inside])
        rows, cols = spans
        corner = np.array([patch.row, patch.col]) * PATCH_PX
        centre = (np.stack(np.meshgrid(rows, cols, indexing="ij"), -1) + 0.5) * CELL_PX - corner
        place_M2 = centre.reshape(-1, 2) / self.f - 0.5
        return self.cells(rows, cols).reshape(len(place_M2), -1), place_M2.astype(np.float32)

    def cells(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
        """Values (rows, cols, V) of a block of cells, counted from pixel 0; no row outside."""
        if self.palette.layered:
            return self._layers(cols, len(self.layouts))[rows].astype(np.float32)
        laid = np.zeros((len(rows), len(cols), CELL_VALUES))
        for layout in self.layouts:
            cover = np.outer(layout.down(rows), layout.right(cols))
            cover = frayed(cover, self.seed, rows, cols)[..., None]
            if cover.any():
                laid += cover * (self._parts(layout, rows, cols) - laid)
        return laid.astype(np.float32)

    def _layers(self, cols: NDArray[np.int64], count: int) -> NDArray[np.float64]:
        """What so many layouts of layered entries say of columns of cells, at all heights.

        What lies below one flows into it at its sides, and is covered by it.
        """
        laid = self._scenes(self.layouts[0], cols)
        rows = np.arange(len(laid))
        for number, layout in enumerate(self.layouts[1:count], start=1):
            share_C = near(1 - layout.right(cols))
            if not share_C.any():
                continue
            over, flowed = self._scenes(layout, cols), laid.copy()
            for side, these_C in enumerate((cols < layout.middle[1], cols >= layout.middle[1])):
                flowed[:, these_C] = flowing(
                    laid[:, these_C], over[:, these_C], share_C[these_C], self._sides(number, side)
                )
            down_RC = np.broadcast_to(layout.down(rows)[:, None], laid.shape[:2])
            laid += frayed(down_RC, self.seed, rows, cols)[..., None] * (flowed - laid)
        return laid

    @cached_property
    def _sides(self) -> Callable[[int, int], NDArray[np.int64]]:
        """Which layers below a layout and of it flow into each other at its left or right: (P, 2).

        Found by `warping` along that side.
        """
        return lru_cache(maxsize=None)(self._joined)

    def _joined(self, number: int, side: int) -> NDArray[np.int64]:
        layout = self.layouts[number]
        cols = layout.sides[side] + np.arange(-_EDGE // 2, _EDGE // 2)
        below, above = self._layers(cols, number), self._scenes(layout, cols)
        return warping(below[..., :3].mean(1), above[..., :3].mean(1))

    def _scenes(self, layout: Layout, cols: NDArray[np.int64]) -> NDArray[np.float64]:
        """What a layout of layered entries says of columns of cells: each flows into the next."""
        palette, (row, start) = self.palette, layout.middle
        number_C = (cols - start) // palette.spacing
        laid_RCV = np.zeros((palette.blocks_BRCV.shape[1], len(cols), CELL_VALUES))
        for number in np.unique(number_C):
            these_C = number_C == number
            anchors = [start + int(number + step) * palette.spacing for step in (0, 1)]
            left, right = (self._entry(layout, row, anchor) for anchor in anchors)
            left_RCV, right_RCV = (
                palette[entry][:, _around(anchor, cols[these_C], palette.blocks_BRCV.shape[2])]
                for entry, anchor in zip((left, right), anchors, strict=True)
            )
            share_C = 1 - _own((cols[these_C] - anchors[0]) / palette.spacing, _SCENE_PASSAGE)
            joined_P2 = palette.joined(left, right)
            laid_RCV[:, these_C] = flowing(left_RCV, right_RCV, share_C, joined_P2)
        return self._stretched(laid_RCV)

    def _parts(
        self, layout: Layout, rows: NDArray[np.int64], cols: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What a layout of parts of maps says of cells."""
        palette = self.palette
        away = np.stack(
            np.meshgrid(rows - layout.middle[0], cols - layout.middle[1], indexing="ij"), axis=-1
        )
        place = away / palette.spacing + self._bend(rows, cols)  # whole numbers are anchors
        blend = np.zeros((len(rows), len(cols), CELL_VALUES))
        whole = np.floor(place).astype(np.int64).reshape(-1, 2)
        for anchor in itertools.product(*map(range, whole.min(0), whole.max(0) + 2)):
            weight = _own(place - anchor, _PASSAGE).prod(-1, keepdims=True)
            if not weight.any():
                continue
            row, col = (m + a * palette.spacing for m, a in zip(layout.middle, anchor, strict=True))
            block_RCV = palette[self._entry(layout, row, col)]
            down = _around(row, rows, len(block_RCV))
            right = _around(col, cols, block_RCV.shape[1])
            blend += weight * block_RCV[np.ix_(down, right)]
        return blend

    def _bend(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far cells are moved before it is asked where they belong: (rows, cols, 2) anchors.

        Borders between anchors would be straight lines, and be seen to be.
        """
        bend = np.zeros((len(rows), len(cols), 2))
        for octave, (apart, deep) in enumerate(_BENT):
            spans = (span / (apart * self.palette.spacing) for span in (rows, cols))
            bend += deep * (2 * smooth_noise(self.seed, _BEND + octave, *spans) - 1)
        return bend

    def _stretched(self, block_RCV: NDArray[np.float64]) -> NDArray[np.float64]:
        """Layers at all rows of cells of a canvas of this height: (rows, C, V)."""
        height = self.extent.size(0)[0]
        assert height is not None
        count, layers = -(-height // CELL_PX), len(block_RCV)
        place = np.clip((np.arange(count) + 0.5) * layers / count - 0.5, 0, layers - 1)
        above = np.floor(place).astype(np.int64)
        below = np.minimum(above + 1, layers - 1)
        share = (place - above)[:, None, None]
        stretched: NDArray[np.float64] = (1 - share) * block_RCV[above] + share * block_RCV[below]
        return stretched

    def _entry(self, layout: Layout, row: int, col: int) -> int:
        """Which palette entry an anchor at a cell picks; every second is a bridge."""
        palette, sought = self.palette, self._sought(layout)
        apart = palette.spacing
        away = (row - layout.middle[0], col - layout.middle[1])
        if sum(away) // apart % 2 == 0:
            return self._seed_entry(sought, row, col)
        beside = {
            (down, right): self._seed_entry(sought, row + down * apart, col + right * apart)
            for down, right in palette.steps
        }
        every = np.arange(len(palette)) if sought is None else np.unique(sought)
        best = palette.between(beside, every)[:_BRIDGES]
        return int(best[_index(self._pick(row, col), len(best))])

    def _seed_entry(self, sought: NDArray[np.int64] | None, row: int, col: int) -> int:
        """What an anchor picks by itself: one of those its words leave, or of its climate.

        Climates are slower than anchors: those near each other pick from one part of the palette.
        """
        pick, palette = self._pick(row, col), self.palette
        if sought is not None:
            return int(sought[_index(pick, len(sought))])
        climates = np.array([[row], [col]]) / (palette.spacing * _CLIMATE_SPACING)
        climate = float(smooth_noise(self.seed, _CLIMATE, *climates)[0, 0, 0])
        reach = _SCENE_REACH if palette.layered else _PICK_REACH
        at = 0.5 + _SPREAD * (climate - 0.5) + reach * (pick - 0.5)
        folded = abs(at - 2 * round(at / 2))  # beyond an end, back into the palette
        return _index(folded, len(palette))

    def _pick(self, row: int, col: int) -> float:
        """The random number by which the anchor at a cell picks."""
        return float(_pair(self.seed, row, col, _PICK)[0])

    def _sought(self, layout: Layout) -> NDArray[np.int64] | None:
        """The entries that a layout's words leave; None where it has none, or nobody knows."""
        if layout.sought_W is None or self.palette.captions_BW is None:
            return None
        return self.palette.alike(layout.sought_W)


def _index(share: float, count: int) -> int:
    """Which of so many lies at a share of the way through them, 0 to 1."""
    return min(int(share * count), count - 1)


def _around(anchor: int, span: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Which part of a block, laid around an anchor, a span of cells shows; then its mirror."""
    index = (span - anchor + size // 2) % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def frayed(
    cover_RC: NDArray[np.float64], seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[np.float64]:
    """A cover of cells, 0 to 1, whose border runs in and out as far as it is soft.

    What is laid over something else in a rectangle would be seen to be rectangular. Where there is
    none of it there is none still, and all where there is all.
    """
    if ((cover_RC == 0) | (cover_RC == 1)).all():
        return cover_RC
    noise_RC = np.zeros_like(cover_RC)
    for octave, (apart, share) in enumerate(_FRAYED):
        noise_RC += share * smooth_noise(seed, _FRAY + octave, rows / apart, cols / apart)[..., 0]
    spread_RC = np.clip(0.5 + _SPREAD * (noise_RC - 0.5), 0, 1)
    return near(1 - np.clip((cover_RC - (1 - _PASSAGE) * spread_RC) / _PASSAGE, 0, 1))


@lru_cache(maxsize=65536)
def _pair(seed: int, row: int, col: int, stream: int) -> NDArray[np.float64]:
    """Two random numbers of a place; places are asked about again and again."""
    return uniforms(patch_key(seed, (0, 0, row, col), stream), 2)


def smooth_noise(
    seed: int, stream: int, rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Two value noises, smooth between random numbers at whole places: (rows, cols, 2), 0 to 1.

    Args:
        seed: of the canvas.
        stream: noises for different purposes come from different ones.
        rows, cols: places, from the least to the greatest.
    """
    noise = np.zeros((len(rows), len(cols), 2))
    for row in range(math.floor(rows[0]), math.floor(rows[-1]) + 2):
        for col in range(math.floor(cols[0]), math.floor(cols[-1]) + 2):
            weight = np.outer(near(rows - row), near(cols - col))
            noise += weight[..., None] * _pair(seed, row, col, stream)
    return noise


def warping(left_R3: NDArray[np.float64], right_R3: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which layers of two borders flow into each other: (P, 2), downwards.

    Every layer does, and none crosses another: dynamic time warping (Sakoe and Chiba, 1978) of the
    colours along both.
    """
    count = len(left_R3)
    layer_R = np.arange(count)
    apart_RR = ((left_R3[:, None] - right_R3) ** 2).sum(-1)
    risen_RR = ((layer_R[:, None] - layer_R) / count) ** 2
    cost_RR = np.round(apart_RR + _RISE * risen_RR, 6) + _MEET
    total = np.full((count + 1, count + 1), np.inf)  # of the best way to each pair
    total[0, 0] = 0
    for i, j in itertools.product(range(count), repeat=2):
        before = min(total[i, j], total[i, j + 1], total[i + 1, j])
        total[i + 1, j + 1] = cost_RR[i, j] + before
    found = []
    i = j = count
    while i:
        found.append((i - 1, j - 1))
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda at: total[at])
    return np.array(found[::-1])


def flowing(
    left_RCV: NDArray[np.floating],
    right_RCV: NDArray[np.floating],
    share_C: NDArray[np.float64],
    joined_P2: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Layers (R, C, V) on their way from one scene to another: moved, and mixed where they meet.

    Args:
        left_RCV, right_RCV: what the scenes show there.
        share_C: how far each column is on its way to the right one, 0 to 1.
        joined_P2: which layers flow into each other.
    """
    found = np.where(share_C[:, None] < 1, left_RCV, right_RCV).astype(np.float64)
    first_P, second_P = joined_P2.T
    layer_R, last = np.arange(len(found)), max(len(joined_P2) - 2, 0)
    for col in np.flatnonzero((share_C > 0) & (share_C < 1)):
        share = share_C[col]
        height_P = (1 - share) * first_P + share * second_P
        mixed_PV = (1 - share) * left_RCV[first_P, col] + share * right_RCV[second_P, col]
        above_R = np.minimum(np.searchsorted(height_P, layer_R, "right") - 1, last)
        below_R = np.minimum(above_R + 1, len(joined_P2) - 1)
        gap_R = np.maximum(height_P[below_R] - height_P[above_R], 1e-9)
        down_R1 = np.clip((layer_R - height_P[above_R]) / gap_R, 0, 1)[:, None]
        found[:, col] = (1 - down_R1) * mixed_PV[above_R] + down_R1 * mixed_PV[below_R]
    return found


def _own(distance: NDArray[np.float64], passage: float) -> NDArray[np.float64]:
    """An anchor's weight at a distance: 1 on its own ground, and 0 on its neighbour's."""
    return near(np.clip((np.abs(distance) - 0.5) / passage + 0.5, 0, 1))


def near(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smoothstep from 1 at a place to 0 at a distance of 1."""
    share = np.clip(1 - np.abs(distance), 0, 1)
    return share * share * (3 - 2 * share)
