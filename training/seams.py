"""Seams: how much more changes across a border than beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handscroll.geometry import PATCH_PX, Extent, Patch, Region, tile_region, tiles_of
from handscroll.order import Lattice
from training.metrics import Estimate, bootstrap
from training.pictures import Pixels

FLAT, LEAST = 0.1, 1e-9
PHASES = ("seed", "bridge", "fill")
TOKENS = "token border inside a patch"


class Segment(NamedTuple):
    """One border of one patch: gradient energies in squared grey levels.

    Attributes:
        picture: the one that it is in.
        at: that across the border.
        beside: the geometric mean of those across lines beside it. By their mean any line would
            seem to be less than its surroundings: of 217 photographs 0.91, and 0.73 of horizontal
            lines; so it is 0.99 and 1.00.
    """

    picture: str
    at: float
    beside: float


@dataclass(frozen=True)
class Seams:
    """The segments found, by kind of border."""

    segments: dict[str, list[Segment]] = field(default_factory=dict)

    def add(
        self,
        kind: str,
        picture: str,
        grey_HW: NDArray[np.float64],
        column: int,
        gaps: Sequence[int] = (16, 32),
        sides: Sequence[int] = (-1, 1),
    ) -> None:
        """One segment, between ``column - 1`` and ``column``, against ``gaps`` px away.

        Args:
            kind: of border.
            picture: the one that it is in.
            grey_HW: brightness, the border upright.
            column: the first one beyond the border.
            gaps: how far away to look.
            sides: where: -1 to the left, 1 to the right.
        """
        steps = np.diff(grey_HW, axis=1) ** 2
        away = [column - 1 + side * gap for side in sides for gap in gaps]
        at, *others = np.maximum(steps[:, [column - 1, *away]].mean(axis=0), LEAST)
        beside = float(np.exp(np.log(others).mean()))
        self.segments.setdefault(kind, []).append(Segment(picture, float(at), beside))

    def ratios(self) -> Iterator[tuple[str, int, Estimate]]:
        """Of each kind its segments and the geometric mean of their ratios.

        Segments with less than FLAT beside the border are left out: in a clear sky the ratio would
        be one of rounding errors.
        """
        for kind in sorted(self.segments):
            logs: dict[str, list[float]] = {}
            for one in self.segments[kind]:
                if one.beside >= FLAT:
                    logs.setdefault(one.picture, []).append(np.log(one.at / one.beside))
            found = list(logs.values())
            if len(found) > 1:
                yield kind, sum(map(len, found)), bootstrap(partial(_mean_ratio, found), len(found))


def _mean_ratio(logs: Sequence[Sequence[float]], drawn: NDArray[np.int64]) -> float:
    return float(np.exp(np.concatenate([logs[number] for number in drawn]).mean()))


def measure_seams(
    seams: Seams, name: str, pixels: Pixels, region: Region, kind: Callable[..., str]
) -> None:
    """All borders of the patch grid inside a painted region, vertical and horizontal ones."""
    grey = pixels.mean(axis=-1)
    for turned in (False, True):
        along, across = (region.left, region.top) if turned else (region.top, region.left)
        picture = grey.T if turned else grey
        height, width = picture.shape
        for line in range(-(-(across + 34) // PATCH_PX), (across + width - 34) // PATCH_PX + 1):
            for start in range(-(-along // PATCH_PX), (along + height) // PATCH_PX):
                top = start * PATCH_PX - along
                part = picture[top : top + PATCH_PX]
                first, second = (start, line - 1), (start, line)
                if turned:
                    first, second = first[::-1], second[::-1]
                column = line * PATCH_PX - across
                seams.add(kind(first, second, turned), name, part, column)
                if 64 <= column <= width - 64:
                    seams.add(TOKENS, name, part, column + 48, range(5, 11))


def lattice_kind(order: Lattice, level: int) -> Callable[..., str]:
    """Names a border by its phases, and by the way from the patch drawn first to the other."""

    def name(first: tuple[int, int], second: tuple[int, int], turned: bool) -> str:
        ranks = [order.rank(Patch(level, 0, *place))[0] for place in (first, second)]
        forward = ranks[0] < ranks[1]
        way = ("down" if forward else "up") if turned else ("right" if forward else "left")
        return f"{PHASES[min(ranks)]}-{PHASES[max(ranks)]} {way}"

    return name


def line_kind(first: tuple[int, int], second: tuple[int, int], turned: bool) -> str:
    """Names a line across a photograph, which nobody drew in an order."""
    return "horizontal" if turned else "vertical"


def tile_seams(seams: Seams, name: str, pixels: Pixels, region: Region, extent: Extent) -> None:
    """Vertical borders of tiles inside a painted region."""
    grey = pixels.mean(axis=-1)
    for tile in tiles_of(region, extent):
        corner = tile_region(tile, extent)
        top, left = corner.top - region.top, corner.left - region.left
        if top >= 0 and 34 <= left <= region.width - 34 and top + PATCH_PX <= region.height:
            seams.add("tile border", name, grey[top : top + PATCH_PX], left)
