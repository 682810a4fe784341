"""Pictures painted by a model, put on one sheet to be looked at."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import PATCH_PX, Region
from handscroll.paint import Painter


def paint(model: Checkpoint, canvas: Canvas, region: Region, workers: int = 1) -> Pixels:
    """A region's pixels (H, W, 3)."""
    with Painter(model, canvas, workers) as painter:
        return np.concatenate(list(painter.region(region)))


def seeds(
    model: Checkpoint,
    world: str,
    level: int,
    numbers: Iterable[int],
    sampling: Sampling,
    workers: int = 1,
) -> list[Pixels]:
    """The square at pixel 0 of each seed's canvas: two patches wide, or as high as a scroll is."""
    extent = model.world(world).extent
    side = min(extent.size(level)[0] or 2 * PATCH_PX, 2 * PATCH_PX)
    region = Region(level, 0, 0, side, side)
    return [
        paint(model, Canvas(model.digest, world, seed, extent, sampling=sampling), region, workers)
        for seed in numbers
    ]


def rows(pictures: list[Pixels], columns: int) -> Pixels:
    """Pictures of one size as a sheet, ``columns`` to a row."""
    return np.concatenate(
        [
            np.concatenate(pictures[start : start + columns], axis=1)
            for start in range(0, len(pictures), columns)
        ]
    )
