"""Joins: how a painting goes on from a picture that was given, in each of four directions.

All is measured in strips as wide as the given picture, turned so that one looks from it outwards:
the given picture lies to the left of the join, what goes on from it to the right.

Shape suffixes: G pictures, L looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np

from handscroll.geometry import Region
from training.features import Lite0, cut
from training.metrics import Estimate, Floats, bootstrap
from training.pictures import Pixels
from training.quality import LOOKS, looks
from training.seams import Seams

Way = Literal["left", "right", "up", "down"]
WAYS: tuple[Way, ...] = get_args(Way)

SEGMENT_PX = 64
"""Of a join, as many pixels together are one segment."""
BAND_PX = 128
DISTANCES_PX = (0, 128, 256, 512, 1024)
"""From the join to where a band of BAND_PX begins."""


class Strip(NamedTuple):
    """What lies in one direction.

    Attributes:
        pixels: (along the join, away from it, 3).
        join: the first column beyond the given picture.
    """

    pixels: Pixels
    join: int

    def bands(self) -> Iterator[tuple[int, Pixels]]:
        """Bands of BAND_PX and how far from the join each begins, as far as there are any."""
        for distance in DISTANCES_PX:
            start = self.join + distance
            if start + BAND_PX <= self.pixels.shape[1]:
                yield distance, self.pixels[:, start : start + BAND_PX]


def strip(pixels: Pixels, region: Region, given: Region, way: Way) -> Strip | None:
    """The strip in one direction; None if the region ends where the given picture does.

    Args:
        pixels: of the region, (H, W, 3).
        region: where they lie.
        given: where the given picture lies, wholly in the region.
        way: the direction.
    """
    top, left = given.top - region.top, given.left - region.left
    along, start, rows, size = top, left, given.height, given.width
    if way in ("up", "down"):
        pixels = pixels.transpose(1, 0, 2)
        along, start, rows, size = left, top, given.width, given.height
    length = pixels.shape[1]
    if way in ("left", "up"):
        pixels, start = pixels[:, ::-1], length - start - size
    if start + size == length:
        return None
    return Strip(pixels[along : along + rows, start:], size)


def add_segments(
    seams: Seams, way: Way, name: str, found: Strip, sides: Sequence[int] = (-1, 1)
) -> None:
    """The segments of a join, against what lies to its sides: -1 what was given, 1 what goes on."""
    grey = found.pixels.mean(axis=-1)
    for top in range(0, len(grey) - SEGMENT_PX + 1, SEGMENT_PX):
        seams.add(way, name, grey[top : top + SEGMENT_PX], found.join, sides=sides)


class Drift(NamedTuple):
    """How what lies at a distance differs from the given picture's own band along the join.

    Attributes:
        way: the direction.
        distance_px: from the join.
        pictures: how many this is about.
        shifts: of each of LOOKS, in grey levels.
        features: distance of mean features.
    """

    way: Way
    distance_px: int
    pictures: int
    shifts: list[Estimate]
    features: Estimate


@dataclass
class Joins:
    """The joins of some pictures.

    Attributes:
        lite0: the features.
        around: segments of joins by direction, against both sides.
        inside: the same, against the given picture alone.
    """

    lite0: Lite0
    around: Seams = field(default_factory=Seams)
    inside: Seams = field(default_factory=Seams)
    _moved: dict[tuple[Way, int], list[Floats]] = field(default_factory=dict)

    def add(self, name: str, pixels: Pixels, region: Region, given: Region) -> None:
        """Measure the joins of a picture in a region in which it goes on.

        Args:
            name: of the picture.
            pixels: of the region, (H, W, 3).
            region: where they lie.
            given: where the given picture lies, wholly in the region.
        """
        for way in WAYS:
            found = strip(pixels, region, given, way)
            if found is not None:
                add_segments(self.around, way, name, found)
                add_segments(self.inside, way, name, found, sides=(-1,))
                self._add_bands(way, found)

    def _add_bands(self, way: Way, found: Strip) -> None:
        own = found.pixels[:, found.join - BAND_PX : found.join]
        own_looks, own_features = looks(own), self._features(own)
        for distance, band in found.bands():
            apart = float(np.linalg.norm(self._features(band) - own_features))
            moved = np.append(looks(band) - own_looks, apart)
            self._moved.setdefault((way, distance), []).append(moved)

    def _features(self, band: Pixels) -> Floats:
        mean: Floats = self.lite0.look(cut(band, BAND_PX)).mean(axis=0)
        return mean

    def drift(self) -> Iterator[Drift]:
        """By direction and distance, as far as two pictures go on."""
        for (way, distance), moved in self._moved.items():
            if len(moved) > 1:
                found = [_mean(values_G) for values_G in np.array(moved).T]
                yield Drift(way, distance, len(moved), found[: len(LOOKS)], found[-1])


def _mean(values_G: Floats) -> Estimate:
    return bootstrap(lambda drawn: float(values_G[drawn].mean()), len(values_G))
