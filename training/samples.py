"""Pictures painted by a model, to be looked at and measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import Progress

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes
from handscroll.geometry import PATCH_PX, Extent, Region, patches_of
from handscroll.paint import Painter
from training.pictures import Picture

PLANE_PX = 1024
OUTLINE_RGB = (255, 64, 64)
SHEET_SCALE = 2
STEP_PX = 1600
"""From the picture of one seed to that of the next: no two meet patches and field anchors alike."""


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


def codes_of(painter: Painter, region: Region) -> Codes:
    """The tokens (h, w, K) of a region that begins at pixel 0 and has been painted."""
    patches = patches_of(region, painter.canvas.extent)
    lines: dict[int, list[Codes]] = {}
    for patch in patches:
        lines.setdefault(patch.row, []).append(painter.pool[patch])
    codes = np.concatenate([np.concatenate(line, axis=1) for line in lines.values()])
    return codes[: region.height // painter.f, : region.width // painter.f]


def view(extent: Extent, level: int, at_px: int = 0) -> Region:
    """The part of a canvas that is measured: a scroll twice as wide as high, or a square.

    Args:
        extent: the canvas extent.
        level: the level of the region; at every level it is the same place.
        at_px: where its middle lies at the finest level: to the right, on a plane downwards too.
    """
    scale = 2 ** (extent.finest - level)
    height = extent.height_px or PLANE_PX
    width = 2 * height if extent.height_px else PLANE_PX
    top = 0 if extent.height_px else at_px - height // 2
    left = at_px - width // 2
    return Region(level, *(side // scale for side in (top, left, height, width)))


@dataclass(frozen=True)
class Studio:
    """Paints for an evaluation, and keeps what it painted: a second run finds it there.

    Attributes:
        model: what paints.
        folder: where pictures are kept, under their canvas' id.
        workers: cores to use.
    """

    model: Checkpoint
    folder: Path
    workers: int

    def canvas(self, world: str, seed: int, prompt: str = "", negative: str = "") -> Canvas:
        """The canvas of a seed, with the sampling that the model paints best with."""
        extent = self.model.world(world).extent
        sampling = replace(self.model.sampling, negative_prompt=negative)
        return Canvas(self.model.digest, world, seed, extent, prompt, sampling=sampling)

    def paint(
        self, canvas: Canvas, regions: Sequence[Region], picture: Pixels | None = None
    ) -> list[Pixels]:
        """The pixels of some regions of a canvas, painted around a picture if it is around one."""
        paths = [self._path(canvas, region) for region in regions]
        missing = [pair for pair in zip(regions, paths, strict=True) if not pair[1].exists()]
        if missing:
            self._paint(canvas, missing, picture)
        return [np.asarray(Image.open(path)) for path in paths]

    def _paint(
        self, canvas: Canvas, missing: Sequence[tuple[Region, Path]], picture: Pixels | None
    ) -> None:
        with Progress(transient=True) as progress:
            task = progress.add_task(f"painting {canvas.world}, seed {canvas.seed}", total=None)
            with Painter(
                self.model,
                canvas,
                self.workers,
                on_patch=lambda _: progress.advance(task),
                picture=picture,
            ) as painter:
                for region, path in missing:
                    progress.reset(task, total=len(painter.cone(region)))
                    pixels = np.concatenate(list(painter.region(region)))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    aside = path.with_suffix(".new")
                    Image.fromarray(pixels).save(aside, "PNG")
                    aside.replace(path)

    def _path(self, canvas: Canvas, region: Region) -> Path:
        level, top, left, height, width, _ = region
        return self.folder / canvas.id / f"{level}_{top}_{left}_{height}x{width}.png"

    def pictures(self, world: str, count: int, levels: int | None = None) -> list[Picture]:
        """The views of seeds 0 to ``count - 1``, each at its place, as pictures.

        Args:
            world: by its name.
            count: how many.
            levels: of how many levels, the coarsest; None for all.
        """
        found = []
        for seed in range(count):
            canvas = self.canvas(world, seed)
            shown = range(canvas.extent.finest + 1)[:levels]
            views = [view(canvas.extent, level, STEP_PX * seed) for level in shown]
            found.append(Picture(f"seed {seed}", world, False, tuple(self.paint(canvas, views))))
        return found


def compared(before: Pixels, after: Pixels, region: Region, place: Region) -> Pixels:
    """A region before, with a place in it outlined, above the same after; both made smaller."""
    above = Image.fromarray(before)
    top, left = place.top - region.top, place.left - region.left
    box = (left, top, left + place.width - 1, top + place.height - 1)
    ImageDraw.Draw(above).rectangle(box, outline=OUTLINE_RGB, width=2 * SHEET_SCALE)
    both = np.concatenate([np.asarray(above), after])
    return np.asarray(Image.fromarray(both).reduce(SHEET_SCALE))


def rows(pictures: Sequence[Pixels], columns: int) -> Pixels:
    """Pictures of one size as a sheet, ``columns`` to a row, the last row filled up with black."""
    lacking = -len(pictures) % columns
    filled = [*pictures, *[np.zeros_like(pictures[0])] * lacking]
    return np.concatenate(
        [
            np.concatenate(filled[start : start + columns], axis=1)
            for start in range(0, len(filled), columns)
        ]
    )
