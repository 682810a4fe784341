"""The procedural field: the parent that level 0 has instead of a level above.

A field gives every cell of CELL_PX pixels at level 0 a few values, those of a real picture's cell:
its mean colour and how much its brightness varies. Anchors stand along the endless axes at a fixed
spacing; each picks one entry of a palette of real cells by the seed alone, and between anchors
their entries blend smoothly. So far-apart places differ as pictures do, near ones agree, and any
place can be asked for at once. It costs no patches.

Along a bounded axis (the height of a scroll) a palette entry holds one cell per row: sky above
ground stays sky above ground.

Shape suffixes: E palette entries, R rows of an entry, V values of a cell, M cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handscroll.context import Floats
from handscroll.geometry import PATCH_PX, Extent, Patch
from handscroll.seeds import patch_key, philox

CELL_PX = 64
CELL_VALUES = 4
_STREAM = 1
_MARGIN = 1


@dataclass(frozen=True)
class ProceduralField:
    """The field of one canvas.

    Attributes:
        seed: the canvas seed.
        extent: the canvas extent.
        palette_ERV: entries; R is 1, or the rows of cells in a scroll's height.
        spacing: cells between anchors.
        f: pixels to a token's side.
    """

    seed: int
    extent: Extent
    palette_ERV: Floats
    spacing: int
    f: int

    def around(self, patch: Patch) -> tuple[Floats, Floats]:
        """Values (M, V) and places (M, 2) of a level-0 patch's cells and those beside them."""
        side = PATCH_PX // CELL_PX
        spans = []
        for index, size in zip((patch.row, patch.col), self.extent.size(0), strict=True):
            span = np.arange(index * side - _MARGIN, (index + 1) * side + _MARGIN)
            inside = (span >= 0) & (span * CELL_PX < size) if size is not None else span == span
            spans.append(span[inside])
        rows, cols = spans
        corner = np.array([patch.row, patch.col]) * PATCH_PX
        centre = (np.stack(np.meshgrid(rows, cols, indexing="ij"), -1) + 0.5) * CELL_PX - corner
        place_M2 = centre.reshape(-1, 2) / self.f - 0.5
        return self.cells(rows, cols).reshape(len(place_M2), -1), place_M2.astype(np.float32)

    def cells(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
        """Values (rows, cols, V) of a block of cells, counted from pixel 0."""
        layered = self.palette_ERV.shape[1] > 1
        blend = np.zeros((len(rows), len(cols), self.palette_ERV.shape[2]))
        for anchor_row, down in [(0, np.ones(len(rows)))] if layered else self._anchors(rows):
            for anchor_col, right in self._anchors(cols):
                entry_RV = self.palette_ERV[self._entry(anchor_row, anchor_col)]
                entry_nV = entry_RV[rows if layered else np.zeros_like(rows)].astype(np.float64)
                blend += down[:, None, None] * right[None, :, None] * entry_nV[:, None, :]
        return blend.astype(np.float32)

    def _anchors(self, span: NDArray[np.int64]) -> list[tuple[int, NDArray[np.float64]]]:
        """The anchors a span of cells lies between, and each one's weight in each cell."""
        found = []
        for anchor in range(span[0] // self.spacing, span[-1] // self.spacing + 2):
            near = np.clip(1 - np.abs(span / self.spacing - anchor), 0, 1)
            found.append((anchor, near * near * (3 - 2 * near)))
        return found

    def _entry(self, row: int, col: int) -> int:
        key = patch_key(self.seed, (0, 0, row, col), _STREAM)
        word = int(philox(np.zeros(4, np.uint32), key)[0])
        return word * len(self.palette_ERV) >> 32
