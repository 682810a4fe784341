"""Words of a canvas: its prompt, and regions of it with prompts of their own.

A patch has one embedding: that of the canvas' prompt and of the regions it lies in, weighted by how
much of it each covers. So a region's border is as soft as the region says and at least as soft as a
patch is wide, and a coarse patch hears of all that lies below it. Where a canvas moves, all frames
but the first hear in addition what moves; the first is that of the still canvas.

A layout is looked for by its words, less half of what the negative prompt says.

Shape suffix: W length of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handscroll.canvas import Branch, Canvas, PromptRegion
from handscroll.context import Floats
from handscroll.field import CELL_PX, Layout
from handscroll.geometry import PATCH_PX, Patch, cell_of

Vectors = Mapping[str, Floats]
"""Embeddings (W,) by prompt."""

AWAY = 0.5
"""How far a layout moves away from the negative prompt: all the way, it would fit no prompt."""


def prompts_of(canvas: Canvas) -> list[str]:
    """All prompts whose embeddings a canvas takes, each once; the negative one is among them."""
    said = [canvas.prompt, *(region.prompt for region in canvas.regions)]
    if canvas.motion:
        said += [moving(canvas, prompt) for prompt in said]
    return [one for one in dict.fromkeys((*said, canvas.sampling.negative_prompt)) if one]


def moving(canvas: Canvas, prompt: str) -> str:
    """What is said of a place in every frame but the first: its prompt, and what moves."""
    return ", ".join(one for one in (prompt, canvas.motion) if one)


class Share(NamedTuple):
    """A prompt, and the share of a patch that is under it; shares add up to 1."""

    prompt: str
    share: float


def shares(canvas: Canvas, patch: Patch) -> list[Share]:
    """What a patch is under: the canvas' prompt first, then the regions', later ones on top."""
    side = PATCH_PX * 2 ** (canvas.extent.finest - patch.level)
    left, found = 1.0, []
    for region in reversed(canvas.regions):
        down = _down(region, patch.row * side, side)
        covered = down * _right(region, patch.col * side, side)
        found.append(Share(region.prompt, left * covered))
        left *= 1 - covered
    found = [Share(canvas.prompt, left), *reversed(found)]
    if patch.frame == 0 or not canvas.motion:
        return found
    return [one._replace(prompt=moving(canvas, one.prompt)) for one in found]


class Words:
    """The embedding of each patch of a canvas.

    Args:
        canvas: the canvas.
        vectors: of all its prompts.
    """

    def __init__(self, canvas: Canvas, vectors: Vectors) -> None:
        self._canvas, self._vectors = canvas, vectors

    def __call__(self, patch: Patch) -> Floats | None:
        """The embedding (W,), of length one; None where most of the patch has no words."""
        said = [one for one in shares(self._canvas, patch) if one.prompt and one.share]
        if sum(one.share for one in said) < 0.5:
            return None
        if len(said) == 1:
            return self._vectors[said[0].prompt]
        vectors = np.stack([self._vectors[one.prompt] for one in said]).astype(np.float64)
        mixed = np.array([one.share for one in said]) @ vectors
        return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def words_of(canvas: Canvas, vectors: Vectors) -> Words | None:
    """The embeddings of a canvas' patches; None if nothing is said of any of them."""
    said = canvas.prompt or canvas.motion or any(region.prompt for region in canvas.regions)
    return Words(canvas, vectors) if said else None


def layouts_of(canvas: Canvas, vectors: Vectors) -> tuple[Layout, ...]:
    """What the field of a canvas is laid out of: the canvas, and over it each of its regions.

    A branch is seen in its rectangle alone, and is laid out around the middle of that. A negative
    prompt has a say where there is a prompt, whatever the guidance.
    """
    negative_W = vectors.get(canvas.sampling.negative_prompt)
    cell = CELL_PX * 2**canvas.extent.finest

    def sought(prompt: str) -> Floats | None:
        if not prompt:
            return None
        said_W = vectors[prompt]
        return said_W if negative_W is None else said_W - np.float32(AWAY) * negative_W

    def layout(region: PromptRegion) -> Layout:
        def down(rows: NDArray[np.int64]) -> NDArray[np.float64]:
            return np.array([_down(region, row * cell, cell) for row in rows.tolist()])

        def right(cols: NDArray[np.int64]) -> NDArray[np.float64]:
            return np.array([_right(region, col * cell, cell) for col in cols.tolist()])

        sides = cell_of(region.left, cell), cell_of(region.left + region.width, cell)
        return Layout(sought(region.prompt), _middle(region, cell), down, right, sides)

    middle = _middle(canvas.branch, cell) if canvas.branch else (0, 0)
    return Layout(sought(canvas.prompt), middle), *map(layout, canvas.regions)


def _middle(place: PromptRegion | Branch, cell: int) -> tuple[int, int]:
    """Row and column of the cell in the middle of a rectangle."""
    row, col = place.top + place.height // 2, place.left + place.width // 2
    return cell_of(row, cell), cell_of(col, cell)


def _down(region: PromptRegion, start: int, size: int) -> float:
    """How much of a stretch of rows a region covers, its soft border included: 0 to 1."""
    return _along(start, size, region.top, region.height, region.softness)


def _right(region: PromptRegion, start: int, size: int) -> float:
    """The same of columns."""
    return _along(start, size, region.left, region.width, region.softness)


def _along(start: int, size: int, begin: int, length: int, softness: int) -> float:
    """The mean, over a stretch, of 1 inside a region and 0 outside, the steps being ramps."""

    def area(place: float) -> float:
        """The integral, up to a place, of a ramp from 0 to 1 around 0."""
        half = softness / 2
        if place <= -half:
            return 0.0
        if place >= half:
            return float(place)
        return (place + half) ** 2 / (2 * softness)

    def under(edge: int) -> float:
        return area(start + size - edge) - area(start - edge)

    return min(1.0, max(0.0, (under(begin) - under(begin + length)) / size))
