"""Branches: canvases that differ from another in a rectangle, and share all else with it.

A branch is a canvas whose spec names a parent and a rectangle. Nothing is copied: a patch that does
not touch the rectangle, at whatever level, *is* the parent's. Of one that touches it, coarse
ancestors included, the tokens outside the rectangle are the parent's and given; those inside are
drawn. The rectangle holds whole tokens at every level, so tokens differ inside it and nowhere else.

What a patch that is drawn anew sees:

    as ever       the patches it depends on, as they are in the branch
    kept tokens   the parent's tokens outside the rectangle: its own, those of all eight neighbours
                  whatever the order, and those around it on the level above and a frame before

So it sees both sides of each border of the rectangle. The parent knows nothing of its branches:
a patch is still a function of its canvas' spec and its key. What it stands on are patches of the
branch that touch the rectangle, and the parent's cones of what these see. With a lattice, both are
bounded and move with the rectangle: of a plane, a tile stands on at most ``9 * (level + 1)``
patches of the branch, as ever, and ``49 * (level + 1)`` of the parent: the 3x3 around a fill, all
around these, and what that stands on. Each further branch of a branch adds two patches to each
side, as far as its rectangle goes.

The field is the parent's at the rectangle's border, and the branch's own deep inside; where one
passes into the other is frayed, so that what is laid out anew is not seen to be a rectangle.

Of a film, a branch is a film of as many frames, and each stands on as many patches as the first. It
may be told of another motion, which then moves what is in the rectangle alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from handscroll.assemble import Pixels
from handscroll.canvas import Branch, Canvas, order_of
from handscroll.context import Codes, Field, Floats, Given
from handscroll.detail import STEP_PX
from handscroll.errors import InvalidRequest, SpecMismatch
from handscroll.field import CELL_PX, frayed
from handscroll.geometry import PATCH_PX, STANDS, Extent, Mask, Patch, Region, Tile, tile_region
from handscroll.known import BESIDE_PX, TONE_PX, KnownPlace
from handscroll.view import View

MAX_BRANCHES = 64
"""How long a chain of branches, each of the one before, may be."""
NEAR_KNOWN_PX = TONE_PX + BESIDE_PX + STEP_PX
"""How much around a tile is decoded near a known picture: where tones are compared, of what has
been given detail."""
_DEEP = 3 / 8
"""How far inside the rectangle the field is all the branch's own, as a share of its shorter side:
in a small one, too, its words are to be seen."""
_REACH_PX = 80 + NEAR_KNOWN_PX
"""What a tile shows lies less than so many pixels from it, also near a known picture."""


class BranchPlace:
    """Where a branch differs from its parent, which its spec alone says.

    Args:
        extent: of both.
        branch: the rectangle.
        side: tokens to a patch's side.
    """

    def __init__(self, extent: Extent, branch: Branch, side: int) -> None:
        self.extent, self.branch, self.side = extent, branch, side

    def touches(self, patch: Patch) -> bool:
        """Whether any of a patch is drawn anew; else it is the parent's."""
        return all(start < last and first < stop for first, last, start, stop in self._spans(patch))

    def below(self, patch: Patch) -> tuple[Patch, ...]:
        """The parent's patches that a patch which is drawn anew sees tokens of, itself included."""
        around = (patch, *patch.neighbours)
        found = list(around)
        if patch.level > 0:
            found += dict.fromkeys(one.parent for one in around)
        if patch.frame > 0:
            found += (one._replace(frame=patch.frame - 1) for one in around)
        return tuple(one for one in found if self.keeps(one))

    def keeps(self, patch: Patch) -> bool:
        """Whether any of a patch that lies in the canvas lies outside the rectangle."""
        return self.extent.contains(patch) and not all(
            start <= first and last <= stop for first, last, start, stop in self._spans(patch)
        )

    def anew(self, patch: Patch) -> Mask:
        """Which tokens of a patch lie in the rectangle: (side, side)."""
        f = PATCH_PX // self.side
        corner = (patch.row * PATCH_PX, patch.col * PATCH_PX)
        return self._inside(patch.level, corner, self.side, f)

    def laid(self, region: Region, parents: Pixels, own: Pixels) -> Pixels:
        """A square of pixels (h, h, 3): its own in the rectangle, the parent's outside."""
        level, top, left, size, _, _ = region
        return np.where(self._inside(level, (top, left), size, 1)[..., None], own, parents)

    def _inside(self, level: int, corner: tuple[int, int], count: int, size: int) -> Mask:
        """Which of ``count x count`` squares of ``size`` pixels lie in the rectangle."""
        _, top, left, height, width, _ = _rectangle(self.extent, self.branch, level)
        rows, cols = (np.arange(count) * size + start for start in corner)
        return np.logical_and.outer(
            (rows >= top) & (rows < top + height), (cols >= left) & (cols < left + width)
        )

    def _spans(self, patch: Patch) -> list[tuple[int, int, int, int]]:
        """Where a patch, as far as the canvas goes, and the rectangle begin and end, per axis."""
        _, top, left, height, width, _ = _rectangle(self.extent, self.branch, patch.level)
        sizes = self.extent.size(patch.level)
        found = []
        for index, size, start, length in zip(
            (patch.row, patch.col), sizes, (top, left), (height, width), strict=True
        ):
            first, last = index * PATCH_PX, (index + 1) * PATCH_PX
            found.append((first, last if size is None else min(last, size), start, start + length))
        return found


@dataclass(frozen=True)
class BranchTokens:
    """What is given to the patches of a branch.

    Attributes:
        place: where it differs from its parent.
        codes: of a token.
        read: codes (side, side, K) of a patch of the parent; called for `BranchPlace.below`, and
            for patches that the branch shares.
        known: what a known picture of the branch's own gives; it lies in the rectangle.
    """

    place: BranchPlace
    codes: int
    read: Callable[[Patch], Codes]
    known: Given | None = None

    def tokens(self, patch: Patch) -> tuple[Codes, Mask]:
        """Codes (side, side, K) of a patch, and which of them are given."""
        if self.known is None or not self.place.touches(patch):
            codes = np.zeros((self.place.side, self.place.side, self.codes), np.uint8)
            given = np.zeros(codes.shape[:2], bool)
        else:
            codes, given = self.known.tokens(patch)
        if self.place.keeps(patch):
            kept = ~self.place.anew(patch)
            codes = np.where(kept[..., None], self.read(patch), codes)
            given = given | kept
        return codes, given

    def whole(self, patch: Patch) -> bool:
        """Whether nothing of a patch is drawn in the branch."""
        return not self.place.touches(patch) or (self.known is not None and self.known.whole(patch))


@dataclass(frozen=True)
class BranchField:
    """The field of a branch: at the rectangle's border the parent's, deep inside its own.

    Attributes:
        place: where the rectangle is.
        parents: the parent's field.
        seed: the branch's.
        own: what the field would be without a parent.
    """

    place: BranchPlace
    parents: Field
    seed: int
    own: Field

    def around(self, patch: Patch) -> tuple[Floats, Floats]:
        """Values (M, V) and places (M, 2) of a level-0 patch's cells and those beside them."""
        parents_MV, place_M2 = self.parents.around(patch)
        own_MV, _ = self.own.around(patch)
        f = PATCH_PX // self.place.side
        _, top, left, height, width, _ = _rectangle(self.place.extent, self.place.branch, 0)
        deep, spans, covers = _DEEP * min(height, width), [], []
        for axis, index, start, size in ((0, patch.row, top, height), (1, patch.col, left, width)):
            centre = (np.unique(place_M2[:, axis]) + 0.5) * f + index * PATCH_PX
            inside = np.minimum(centre - start, start + size - centre)  # negative outside
            spans.append(np.floor(centre / CELL_PX).astype(np.int64))
            covers.append(np.clip(inside / deep, 0, 1))
        own_M1 = frayed(np.outer(*covers), self.seed, *spans).reshape(-1, 1)
        return (parents_MV + own_M1 * (own_MV - parents_MV)).astype(np.float32), place_M2


class Lineage:
    """A canvas and those that it was branched from: whose its patches are, what they stand on.

    Attributes:
        canvas: the canvas, and its ``id`` and ``order``.
        known: where its known picture lies, if it has one.
        place: where it differs from its parent; None if it was not branched.
        parent: the parent's lineage.

    Raises:
        InvalidRequest: the parent is not the one that the canvas names, or the chain of branches is
            longer than MAX_BRANCHES.
        SpecMismatch: the parent is of another model, world, extent or number of frames.
    """

    def __init__(self, canvas: Canvas, side: int, parent: Lineage | None = None) -> None:
        self.canvas, self.id, self.side, self.parent = canvas, canvas.id, side, parent
        self.order, branch = order_of(canvas), canvas.branch
        self.place = None if branch is None else BranchPlace(canvas.extent, branch, side)
        self.known: KnownPlace | None = None
        if canvas.known is not None:
            self.known = KnownPlace(canvas.extent, canvas.known, side)
        named, given = branch and branch.parent, parent and parent.id
        if named != given:
            raise InvalidRequest(f"the canvas was branched from {named}, and given is {given}")
        self.branches: int = 0 if parent is None else parent.branches + 1
        if parent is not None:
            _check_alike(parent.canvas, canvas)
            if self.branches > MAX_BRANCHES:
                raise InvalidRequest(f"a chain of branches may be {MAX_BRANCHES} long")

    @classmethod
    def of(cls, canvases: Sequence[Canvas], side: int) -> Lineage:
        """The lineage of the first of some canvases, each of which was branched from the next."""
        *younger, oldest = canvases
        found = cls(oldest, side)
        for canvas in reversed(younger):
            found = cls(canvas, side, found)
        return found

    @property
    def line(self) -> Iterator[Lineage]:
        """The canvas itself, what it was branched from, and so on."""
        one: Lineage | None = self
        while one is not None:
            yield one
            one = one.parent

    def home(self, patch: Patch) -> Lineage:
        """Whose a patch is: the youngest that draws any of it, or the one without a parent."""
        one = self
        while one.parent is not None and one.place is not None and not one.place.touches(patch):
            one = one.parent
        return one

    def gives(self, patch: Patch) -> bool:
        """Whether a patch of its own is wholly given by its known picture."""
        return self.known is not None and patch in self.known

    def view(self, tile: Tile, radius_tok: int) -> View:
        """How a tile is decoded by what needs ``radius_tok`` tokens of margin."""
        extent, margin_px = self.canvas.extent, STEP_PX
        moved_px = STANDS
        came_px = self.order.course.moved_px(tile.level, tile.frame, extent.finest)
        if any(one.known and one.known.shows(tile, came_px) for one in self.line):
            margin_px, moved_px = NEAR_KNOWN_PX, came_px
        return View(tile, extent, self.side, radius_tok, margin_px, moved_px)

    def member(self, canvas_id: str) -> Lineage:
        """The canvas itself or an ancestor, by its id."""
        found = next((one for one in self.line if one.id == canvas_id), None)
        assert found is not None, f"{canvas_id} is not of this lineage"
        return found

    def cone(self, patches: Iterable[Patch], since: int = 0) -> set[tuple[str, Patch]]:
        """Everything that must be drawn for these patches to stand, and of which canvas it is.

        Args:
            patches: what is wanted.
            since: nothing is looked for behind patches of frames before this one.
        """
        return self.behind(((self.home(patch).id, patch) for patch in patches), since)

    def behind(self, places: Iterable[tuple[str, Patch]], since: int = 0) -> set[tuple[str, Patch]]:
        """The same for patches of which is said which canvas of the lineage they are of."""
        found: set[tuple[str, Patch]] = set()
        todo = [(self.member(canvas_id), patch) for canvas_id, patch in places]
        while todo:
            one, patch = todo.pop()
            if (one.id, patch) in found or one.gives(patch):
                continue
            found.add((one.id, patch))
            if patch.frame < since:
                continue
            todo += ((one.home(seen), seen) for seen in one.order.dependencies(patch))
            if one.parent is not None and one.place is not None:
                todo += ((one.parent.home(kept), kept) for kept in one.place.below(patch))
        return found


def shows_branch(canvas: Canvas, tile: Tile) -> bool:
    """Whether a tile shows anything of what a canvas is branched for; else it is its parent's."""
    if canvas.branch is None:
        return False
    _, top, left, height, width, _ = _rectangle(canvas.extent, canvas.branch, tile.level)
    region = tile_region(tile, canvas.extent)
    return (
        -height < top - region.top + _REACH_PX < region.height + 2 * _REACH_PX
        and -width < left - region.left + _REACH_PX < region.width + 2 * _REACH_PX
    )


def _check_alike(parent: Canvas, child: Canvas) -> None:
    """Refuse a branch that differs in more than a branch may."""
    for name in ("model", "world", "extent", "frames"):
        own, given = getattr(child, name), getattr(parent, name)
        if own != given:
            # Of frames that it adds there would be nothing to show outside the rectangle.
            hint = ": make the parent move first" if name == "frames" and own > given else ""
            raise SpecMismatch(f"a branch has its parent's {name}, {given}, not {own}{hint}")


def _rectangle(extent: Extent, branch: Branch, level: int) -> Region:
    """The pixels of a level that a branch draws anew."""
    step = 2 ** (extent.finest - level)
    _, *rectangle = astuple(branch)
    return Region(level, *(size // step for size in rectangle))
