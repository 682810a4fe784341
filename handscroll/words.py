"""Words of a canvas: its prompt, and regions of it with prompts of their own.

A patch has one embedding: that of the canvas' prompt and of the regions it lies in, weighted by how
much of it each covers. So a region's border is as soft as the region says and at least as soft as a
patch is wide, and a coarse patch hears of all that lies below it. Where a canvas moves, all frames
but the first hear in addition what moves; the first is that of the still canvas.

A layout is looked for by its words, less half of what the negative prompt says.

Shape suffix: W length of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from handscroll.canvas import Canvas, PromptRegion
from handscroll.context import Floats
from handscroll.geometry import PATCH_PX, Patch

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
    left, found = 1.0, []
    for region in reversed(canvas.regions):
        covered = _covered(canvas, region, patch)
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


def sought_of(canvas: Canvas, vectors: Vectors) -> Callable[[Patch], Floats | None] | None:
    """What the layout of each patch is looked for by (W,); None if nothing is said of any.

    A negative prompt has a say where there is a prompt, whatever the guidance.
    """
    words, negative_W = words_of(canvas, vectors), vectors.get(canvas.sampling.negative_prompt)
    if words is None or negative_W is None:
        return words

    def sought(patch: Patch) -> Floats | None:
        said_W = words(patch)
        return None if said_W is None else said_W - np.float32(AWAY) * negative_W

    return sought


def _covered(canvas: Canvas, region: PromptRegion, patch: Patch) -> float:
    """How much of a patch a region covers, its soft border included: 0 to 1."""
    side = PATCH_PX * 2 ** (canvas.extent.finest - patch.level)
    return _along(patch.row * side, side, region.top, region.height, region.softness) * _along(
        patch.col * side, side, region.left, region.width, region.softness
    )


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
