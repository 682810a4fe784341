"""The Arbitrary Direction Controller: which patches a patch may see, and so what goes first.

An order is one function, `rank`: of two neighbouring patches of a level, the one of lower rank is
drawn first and seen by the other; equal ranks do not see each other. Everything else follows.
Levels go coarse to fine, frames first to last.

    raster, outward     the paper's orders (NUWA-Infinity, section on the ADC). Each patch stands
                        on an unbounded chain of earlier ones: for bounded pictures.
    lattice             ours, for canvases without end. Three phases: *seeds* see no neighbour,
                        *bridges* see the two seeds they join, *fills* see all eight. Whatever
                        is asked for, wherever, a patch stands on at most the 3x3 around a fill,
                        at every level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field

from handscroll.course import STILL, Course
from handscroll.errors import InvalidRequest
from handscroll.geometry import PATCH_PX, Extent, Patch, Region, cells_of

MAX_BOUNDED_PATCHES = 4096


@dataclass(frozen=True)
class Order(ABC):
    """Which patches of an extent see which.

    Attributes:
        extent: of the canvas.
        course: what kind of motion later frames are told of, and where things of the first go.
    """

    extent: Extent
    course: Course = field(default=STILL, kw_only=True)

    @abstractmethod
    def rank(self, patch: Patch) -> tuple[int, ...]:
        """What decides between neighbours of one level and frame: lower is drawn first."""

    def seen(self, patch: Patch) -> tuple[Patch, ...]:
        """The neighbours a patch sees at its own level and frame, in raster order."""
        own = self.rank(patch)
        return tuple(
            near
            for near in patch.neighbours
            if self.extent.contains(near) and self.rank(near) < own
        )

    def dependencies(self, patch: Patch) -> tuple[Patch, ...]:
        """Every patch that a patch sees, of whatever level and frame.

        Of the level above, only the parents of the patch and of the neighbours it sees: that is
        what keeps the cone of `Lattice` bounded. Of the frame before, the same places; and of the
        first frame, `origins`.
        """
        near = (patch, *self.seen(patch))
        found = list(near[1:])
        if patch.level > 0:
            found += dict.fromkeys(one.parent for one in near)
        if patch.frame > 0:
            found += (one._replace(frame=patch.frame - 1) for one in near)
            found += self.origins(patch)
        return tuple(dict.fromkeys(found))

    def origins(self, patch: Patch) -> tuple[Patch, ...]:
        """The patches of the first frame from which things have come to where a later one is."""
        if patch.frame == 0:
            return ()
        rows, cols = (
            cells_of(index * PATCH_PX - moved, (index + 1) * PATCH_PX - moved, PATCH_PX)
            for index, moved in zip((patch.row, patch.col), self.moved_px(patch), strict=True)
        )
        found = (Patch(patch.level, 0, row, col) for row in rows for col in cols)
        return tuple(one for one in found if self.extent.contains(one))

    def moved_px(self, patch: Patch) -> tuple[int, int]:
        """How far down and right things of the first frame have come where a patch is."""
        return self.course.moved_px(patch.level, patch.frame, self.extent.finest)

    def cone(self, patches: Iterable[Patch], have: Container[Patch] = ()) -> set[Patch]:
        """Everything that must be drawn for these patches to stand, themselves included.

        Args:
            patches: what is wanted.
            have: what is there already; nothing is looked for behind it.
        """
        found: set[Patch] = set()
        todo = [patch for patch in patches if patch not in have]
        while todo:
            patch = todo.pop()
            if patch not in found:
                found.add(patch)
                todo += (one for one in self.dependencies(patch) if one not in have)
        return found

    def waves(self, patches: Collection[Patch], have: Container[Patch] = ()) -> list[list[Patch]]:
        """The cone in the order it is drawn: patches of one wave do not see each other."""
        cone = self.cone(patches, have)
        wave: dict[Patch, int] = {}
        for patch in sorted(cone, key=lambda one: (one.frame, one.level, self.rank(one), one)):
            wave[patch] = 1 + max(
                (wave[one] for one in self.dependencies(patch) if one in cone), default=-1
            )
        waves: list[list[Patch]] = [[] for _ in range(max(wave.values(), default=-1) + 1)]
        for patch, number in wave.items():
            waves[number].append(patch)
        return waves


@dataclass(frozen=True)
class Lattice(Order):
    """Seed, bridge, fill: the order with random access.

    Seeds stand at even rows and even columns, fills at odd and odd. A bridge's neighbours of lower
    rank are just the two seeds it joins. Counted, a cold tile of a plane stands on exactly
    ``9 * (level + 1) * (frame + 1)`` patches; where something moves, on as many more of the first
    frame as lie between there and where it came from.
    """

    def rank(self, patch: Patch) -> tuple[int, ...]:
        """The phase: 0 seed, 1 bridge, 2 fill."""
        return (patch.row % 2 + patch.col % 2,)


@dataclass(frozen=True)
class Raster(Order):
    """Reading order, in any of its eight directions.

    Attributes:
        by_columns: walk columns instead of rows.
        up: start at the bottom.
        left: start at the right.
    """

    by_columns: bool = False
    up: bool = False
    left: bool = False

    def rank(self, patch: Patch) -> tuple[int, ...]:
        """Row and column in the direction of travel."""
        row, col = (-patch.row if self.up else patch.row, -patch.col if self.left else patch.col)
        return (col, row) if self.by_columns else (row, col)


@dataclass(frozen=True)
class Outward(Order):
    """Ring by ring around what is known; the paper's order for outpainting.

    Attributes:
        known: the rectangle at the finest level from which the rings are counted.
    """

    known: Region

    def rank(self, patch: Patch) -> tuple[int, ...]:
        """The ring, then reading order inside it."""
        side = PATCH_PX * 2 ** (self.extent.finest - patch.level)
        _, top, left, height, width, _ = self.known
        rows, cols = cells_of(top, top + height, side), cells_of(left, left + width, side)
        ring = max(
            rows.start - patch.row,
            patch.row - rows.stop + 1,
            cols.start - patch.col,
            patch.col - cols.stop + 1,
            0,
        )
        return (ring, patch.row, patch.col)


def order_named(
    name: str, extent: Extent, known: Region | None = None, course: Course = STILL
) -> Order:
    """The order a canvas spec names: ``lattice``, ``raster`` or ``outward``.

    Args:
        name: of the order.
        extent: of the canvas.
        known: at the finest level, where ``outward`` starts; None for the middle of the picture.
        course: where things of the first frame go.

    Raises:
        InvalidRequest: no such order, or an unbounded one on an extent without end or beyond
            MAX_BOUNDED_PATCHES.
    """
    if name == "lattice":
        return Lattice(extent, course=course)
    if name not in ("raster", "outward"):
        raise InvalidRequest(f"order must be lattice, raster or outward, not {name!r}")
    height, width = extent.size(extent.finest)
    if height is None or width is None:
        raise InvalidRequest(f"order {name} needs a bounded picture, not a {extent.kind}")
    count = len(cells_of(0, height, PATCH_PX)) * len(cells_of(0, width, PATCH_PX))
    if count > MAX_BOUNDED_PATCHES:
        raise InvalidRequest(
            f"order {name} draws at most {MAX_BOUNDED_PATCHES} patches; this picture has {count}"
        )
    if name == "raster":
        return Raster(extent, course=course)
    around = known or Region(extent.finest, height // 2, width // 2, 1, 1)
    return Outward(extent, around, course=course)
