"""The laws of `handscroll.branch`: nothing changes outside the rectangle, and all join inside."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handscroll.assemble import Pixels
from handscroll.branch import (
    MAX_BRANCHES,
    NEAR_KNOWN_PX,
    BranchField,
    BranchPlace,
    BranchTokens,
    Lineage,
    shows_branch,
)
from handscroll.canvas import MAX_BRANCH_PX, Branch, Canvas, Known, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import RING_TOK, Codes, Context, Floats, Source, gather
from handscroll.detail import BLOCK_PX
from handscroll.errors import InvalidRequest, SpecMismatch
from handscroll.geometry import (
    PATCH_PX,
    TILE_PX,
    Extent,
    Patch,
    Region,
    Tile,
    patches_of,
    tile_region,
    tile_window,
    tiles_of,
    window_patches,
)
from handscroll.known import digest_of
from handscroll.order import Lattice, Order, Outward, Raster
from handscroll.paint import Painter
from handscroll.text import TextEncoder
from handscroll.tokenizer import RADIUS_TOK

SIDE, F, FINEST = 16, 16, 2
STEP = F * 2**FINEST
PLANE, SCROLL = Extent("plane", FINEST), Extent("scroll", FINEST, 704)
PICTURE = Extent("picture", FINEST, 704, 1216)


def canvas_of(extent: Extent = PLANE, **changes: Any) -> Canvas:
    """A canvas of a model that is not there."""
    spec: dict[str, Any] = {"model": "0" * 64, "world": "any", "seed": 7} | changes
    return Canvas(extent=extent, **spec)


def branch_of(
    parent: Canvas, top: int, left: int, height: int, width: int, **changes: Any
) -> Canvas:
    """A branch of a canvas: the same with another seed."""
    branch = Branch(parent.id, top, left, height, width)
    spec: dict[str, Any] = {"seed": parent.seed + 1, "known": None, "branch": branch}
    return replace(parent, **spec | changes)


@st.composite
def placed(draw: st.DrawFn) -> Canvas:
    """A branch somewhere on a canvas."""
    extent = draw(st.sampled_from([PLANE, SCROLL, PICTURE]))
    size, corner = [], []
    for bound in (extent.height_px, extent.width_px):
        length = STEP * draw(st.integers(1, 12 if bound is None else bound // STEP))
        least, most = (-20, 20) if bound is None else (0, (bound - length) // STEP)
        far = draw(st.sampled_from([0, 10**5])) if bound is None else 0
        corner.append(STEP * (draw(st.integers(least, most)) + far))
        size.append(length)
    return branch_of(canvas_of(extent), *corner, *size)


def place_of(canvas: Canvas) -> BranchPlace:
    """Where a branch differs from its parent."""
    assert canvas.branch is not None
    return BranchPlace(canvas.extent, canvas.branch, SIDE)


def rectangle(canvas: Canvas, level: int) -> Region:
    """The pixels of a level that a branch draws anew."""
    branch, step = canvas.branch, 2 ** (canvas.extent.finest - level)
    assert branch is not None
    size = (branch.top, branch.left, branch.height, branch.width)
    return Region(level, *(one // step for one in size))


def near(canvas: Canvas, level: int) -> list[Patch]:
    """The patches of a level that a branch touches, and those around."""
    return patches_of(rectangle(canvas, level), canvas.extent, PATCH_PX)


# Where it differs.


@settings(max_examples=40)
@given(placed(), st.integers(0, FINEST))
def test_a_token_is_drawn_anew_where_it_lies_inside(canvas: Canvas, level: int) -> None:
    """Token by token: of each patch, what is kept and what not."""
    place, (_, top, left, height, width, _) = place_of(canvas), rectangle(canvas, level)
    for patch in near(canvas, level):
        anew, corner = place.anew(patch), (patch.row * SIDE, patch.col * SIDE)
        inside = canvas.extent.inside(level, *corner, (SIDE, SIDE), F)
        for row, col in np.ndindex(SIDE, SIDE):
            down, right = (corner[0] + row) * F - top, (corner[1] + col) * F - left
            within = -F < down < height and -F < right < width
            assert anew[row, col] == within
            assert within == (0 <= down <= height - F and 0 <= right <= width - F), "whole tokens"
        assert place.touches(patch) == anew.any()
        assert place.keeps(patch) == (~anew & inside).any()


def code_at(patch: Patch, canvas: int) -> Codes:
    """Codes that tell the patch and whose it is."""
    values = (patch.level, patch.row % 256, patch.col % 256, canvas)
    return np.full((SIDE, SIDE, 4), values, np.uint8)


def seen(context: Context, source: Source) -> dict[tuple[float, float], tuple[int, ...]]:
    """What a context holds from a source: codes by place."""
    return {
        (float(down), float(right)): tuple(codes)
        for one, (down, right), codes in zip(
            context.source_N, context.place_N2, context.codes_NK.tolist(), strict=True
        )
        if one == source
    }


ORDERS = [Lattice(PLANE), Lattice(SCROLL), Raster(PICTURE)]
ORDERS.append(Outward(PICTURE, Region(FINEST, 64, 128, 300, 400)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("level", range(FINEST + 1))
def test_kept_tokens_are_seen_on_all_sides_and_no_others_of_the_parent(
    order: Order, level: int
) -> None:
    """Token by token: of the ring and above, the branch's own where drawn, else the parent's."""
    canvas = branch_of(canvas_of(order.extent), 128, 192, 384, 448)
    place = place_of(canvas)
    for patch in near(canvas, level):
        if not place.touches(patch):
            continue
        allowed = set(place.below(patch))

        def kept(one: Patch, allowed: set[Patch] = allowed) -> Codes:
            assert one in allowed
            return code_at(one, 0)

        def read(one: Patch) -> Codes:
            assert one in order.dependencies(patch)  # noqa: B023
            return code_at(one, int(place.touches(one)))

        context = gather(patch, order, SIDE, read, None, BranchTokens(place, 4, kept))
        np.testing.assert_array_equal(context.known_ss, ~place.anew(patch) & context.inside_ss)
        assert (context.known_ssK[context.known_ss] == code_at(patch, 0)[0, 0]).all()
        for source, margin, scale, home in (
            (Source.RING, RING_TOK, 1, patch),
            (Source.PARENT, 2, 2, patch.parent),
        ):
            if home.level < 0:
                continue
            visible = {one for one in order.dependencies(patch) if one.level == home.level}
            origin = np.array((patch.row, patch.col)) * SIDE // scale
            expected: dict[tuple[float, float], tuple[int, ...]] = {}
            for down, right in product(range(-margin, SIDE // scale + margin), repeat=2):
                own = 0 <= down < SIDE // scale and 0 <= right < SIDE // scale
                if own and source is Source.RING:
                    continue
                row, col = origin + (down, right)
                if not order.extent.inside(home.level, row, col, (1, 1), F).all():
                    continue
                other, at = (
                    home._replace(row=row // SIDE, col=col // SIDE),
                    (row % SIDE, col % SIDE),
                )
                centre = (scale * down + (scale - 1) / 2, scale * right + (scale - 1) / 2)
                if other in visible:
                    expected[centre] = tuple(code_at(other, int(place.touches(other)))[at].tolist())
                elif not place.anew(other)[at]:
                    expected[centre] = tuple(code_at(other, 0)[at].tolist())
            assert seen(context, source) == expected


# What it costs.


def lineage_of(canvas: Canvas, *parents: Canvas) -> Lineage:
    """A branch with its ancestors."""
    return Lineage.of([canvas, *parents], SIDE)


def under(canvas: Canvas, level: int) -> Iterator[list[Patch]]:
    """The patches under each tile that shows anything of a branch."""
    place, extent = rectangle(canvas, level), canvas.extent
    around = Region(level, place.top - 80, place.left - 80, place.height + 160, place.width + 160)
    for tile in tiles_of(around, extent):
        patches = window_patches(tile, extent, F, RADIUS_TOK)
        if patches:
            yield patches


SIZES = [(64, 64), (512, 512), (1024, 1024), (576, MAX_BRANCH_PX)]


@pytest.mark.parametrize("level", range(FINEST + 1))
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_cone_is_bounded_and_the_same_a_billion_pixels_away(
    level: int, height: int, width: int
) -> None:
    parent, most = canvas_of(), 0
    for top, left in ((0, 0), (192, 448), (-64, 960), (512, -1600)):
        counts = []
        for far in (0, 2**29, -(2**29)):
            branch = branch_of(parent, top + far, left - far, height, width)
            line = lineage_of(branch, parent)
            found = []
            for patches in under(branch, level):
                cone = line.cone(patches)
                own = sum(canvas == branch.id for canvas, _ in cone)
                assert own <= 9 * (level + 1)
                assert len(cone) - own <= 49 * (level + 1)
                found.append((own, len(cone)))
            counts.append(found)
        assert counts[0] == counts[1] == counts[2]
        most = max(most, *(total for _, total in counts[0]))
    assert most > 9 * (level + 1), "the parent's patches are counted too"


def test_what_shows_nothing_of_the_rectangle_costs_what_it_does_in_the_parent() -> None:
    parent = canvas_of()
    branch = branch_of(parent, 0, 0, 64, 64)
    patches = window_patches(Tile(2, 9, 9), PLANE, F, RADIUS_TOK)
    expected = {(parent.id, one) for one in Lattice(PLANE).cone(patches)}
    assert lineage_of(branch, parent).cone(patches) == expected
    assert len(expected) == 27


@pytest.mark.parametrize("level", range(FINEST + 1))
def test_each_frame_costs_what_the_first_does(level: int) -> None:
    """So a tile of a film stands on at most so many times what one of a still branch does."""
    parent = canvas_of(frames=4)
    branch = branch_of(parent, -64, 192, 512, 1024)
    line = lineage_of(branch, parent)
    for patches in under(branch, level):
        first = line.cone(patches)
        last = line.cone(patch._replace(frame=3) for patch in patches)
        assert len(last) == 4 * len(first)
        assert {(canvas, patch._replace(frame=0)) for canvas, patch in last} == first


def test_branches_of_branches_add_two_patches_to_each_side() -> None:
    canvases = [canvas_of()]
    for _ in range(4):
        canvases.insert(0, branch_of(canvases[0], -2048, 128, 4096, 4096))
    line = Lineage.of(canvases, SIDE)
    cone = line.cone(window_patches(Tile(2, -1, -1), PLANE, F, RADIUS_TOK))
    for age, canvas in enumerate(canvases):
        own = [patch for owner, patch in cone if owner == canvas.id]
        assert 0 < len(own) <= (3 + 4 * age) ** 2 * 3


# Whose a patch is, and who may be whose.


@settings(max_examples=40)
@given(placed(), st.integers(0, FINEST), st.data())
def test_a_patch_is_of_the_youngest_that_draws_any_of_it(
    child: Canvas, level: int, data: st.DataObject
) -> None:
    assert child.branch is not None
    root = canvas_of(child.extent)
    assert root.id == child.branch.parent
    place = child.branch
    height = STEP * data.draw(st.integers(1, place.height // STEP))
    grandchild = branch_of(child, place.top, place.left, height, place.width)
    line = lineage_of(grandchild, child, root)
    for patch in near(child, level):
        ages = [one for one in (grandchild, child) if place_of(one).anew(patch).any()]
        assert line.home(patch).canvas == [*ages, root][0]


def test_parents_are_checked() -> None:
    parent = canvas_of()
    branch = branch_of(parent, 0, 0, 64, 64)
    for wrong in ([branch], [branch, replace(parent, seed=1)], [parent, parent]):
        with pytest.raises(InvalidRequest, match="branched from"):
            Lineage.of(wrong, SIDE)
    unlike: list[dict[str, Any]] = [
        {"model": "1" * 64},
        {"world": "other"},
        {"extent": Extent("plane", 1)},
        {"frames": 2},
    ]
    for changes in unlike:
        with pytest.raises(SpecMismatch, match=f"parent's {next(iter(changes))}"):
            lineage_of(replace(branch, **changes), parent)
    with pytest.raises(SpecMismatch, match="frames, 1, not 2: make the parent move first$"):
        lineage_of(replace(branch, frames=2, motion="waves roll"), parent)
    film = replace(parent, frames=2)
    with pytest.raises(SpecMismatch, match="frames, 2, not 1$"):
        lineage_of(branch_of(film, 0, 0, 64, 64, frames=1), film)


def test_chains_are_bounded() -> None:
    canvases = [canvas_of()]
    for _ in range(MAX_BRANCHES):
        canvases.insert(0, branch_of(canvases[0], 0, 0, 64, 64))
    assert Lineage.of(canvases, SIDE).branches == MAX_BRANCHES
    canvases.insert(0, branch_of(canvases[0], 0, 0, 64, 64))
    with pytest.raises(InvalidRequest, match=f"{MAX_BRANCHES} long"):
        Lineage.of(canvases, SIDE)


# The tiles that it shares.


@settings(max_examples=40)
@given(placed(), st.integers(0, FINEST))
def test_a_tile_shows_the_branch_if_any_token_is_that_it_is_decoded_from(
    canvas: Canvas, level: int
) -> None:
    _, top, left, height, width, _ = rectangle(canvas, level)
    shown = 0
    wide = Region(level, top - 512, left - 512, height + 1024, width + 1024)
    for tile in tiles_of(wide, canvas.extent):
        window = tile_window(tile, canvas.extent, F, RADIUS_TOK)
        rows, cols = (at + np.arange(window.side_tok) for at in (window.row_tok, window.col_tok))
        within = ((rows * F >= top) & (rows * F < top + height)).any() and (
            (cols * F >= left) & (cols * F < left + width)
        ).any()
        assert shows_branch(canvas, tile) or not within
        region = tile_region(tile, canvas.extent)
        far = max(
            top - region.top - TILE_PX,
            region.top - top - height,
            left - region.left - TILE_PX,
            region.left - left - width,
        )
        assert not shows_branch(canvas, tile) or far < 80 + NEAR_KNOWN_PX
        shown += shows_branch(canvas, tile)
    assert shown
    assert not shows_branch(replace(canvas, branch=None), Tile(level, 0, 0))


# Painted.


@contextmanager
def painter_of(model: Checkpoint, *canvases: Canvas, **pictures: Pixels) -> Iterator[Painter]:
    """A painter of the last of some canvases, each the parent of the next."""
    with ExitStack() as stack:
        painter: Painter | None = None
        for canvas in canvases:
            picture = pictures.get(f"of_{canvas.known.picture}") if canvas.known else None
            made = Painter(model, canvas, picture=picture, parent=painter)
            painter = stack.enter_context(made)
        assert painter is not None
        yield painter


def real(model: Checkpoint, world: str = "planet", **changes: Any) -> Canvas:
    """A canvas of the tiny model; large groups, because that is quick."""
    extent, sampling = model.worlds[world].extent, Sampling(group=64)
    spec: dict[str, Any] = {"seed": 7, "extent": extent, "sampling": sampling} | changes
    return Canvas(model.digest, world, **spec)


def that_reads(model: Checkpoint) -> Checkpoint:
    """The same model, as if it had learned words."""
    return replace(model, text_encoder=TextEncoder().digest)


def painted(painter: Painter, region: Region) -> Pixels:
    return np.concatenate(list(painter.region(region)))


@pytest.mark.parametrize(
    ("world", "place", "changes"),
    [
        ("planet", (-128, 192, 256, 320), {}),
        ("planet", (2**20 - 128, -(2**20), 256, 320), {}),
        ("scroll", (64, 192, 640, 320), {}),
        ("planet", (128, 192, 256, 320), {"extent": PICTURE, "order": "raster"}),
        ("planet", (128, 192, 256, 320), {"extent": PICTURE, "order": "outward"}),
        ("planet", (-64, 192, 128, 128), {"frames": 3}),
        ("scroll", (64, 192, 128, 128), {"frames": 2, "motion": "waves roll"}),
    ],
)
def test_nothing_changes_but_inside(
    model: Checkpoint, world: str, place: tuple[int, int, int, int], changes: dict[str, Any]
) -> None:
    """Tokens of every level and frame, and pixels as far as the decoder and detail reach."""
    model = that_reads(model) if "motion" in changes else model
    parent = real(model, world, **changes)
    child = branch_of(parent, *place)
    where = place_of(child)
    with painter_of(model, parent) as before, painter_of(model, parent, child) as after:
        for frame, level in product(range(parent.frames), range(FINEST + 1)):
            patches = [patch._replace(frame=frame) for patch in near(child, level)]
            old, new = dict[Patch, Codes](), dict[Patch, Codes]()
            for painter, found in ((before, old), (after, new)):
                drawn = dict(painter.patches(patches))
                assert all(where.touches(patch) for patch in drawn) or painter is before
                found.update({patch: painter.pool[patch] for patch in patches})
            changed = 0
            for patch in patches:
                anew = where.anew(patch)
                np.testing.assert_array_equal(old[patch][~anew], new[patch][~anew])
                changed += int((old[patch] != new[patch]).any(-1)[anew].sum())
            assert changed > 0.5 * sum(where.anew(patch).sum() for patch in patches)
        _, top, left, height, width, _ = rectangle(child, FINEST)
        margin = (RADIUS_TOK + 1) * F + BLOCK_PX
        for frame in range(parent.frames):
            large = Region(FINEST, top - 64, left - 160, height + 64, width + 320, frame)
            one, other = painted(before, large), painted(after, large)
            differs = (one != other).any(-1)
            inside = np.zeros_like(differs)
            inside[64:, 160:-160] = True
            assert differs[inside].mean() > 0.5
            near_it = np.zeros_like(differs)
            near_it[max(0, 64 - margin) :, 160 - margin : -160 + margin] = True
            assert not differs[~near_it].any()


def test_a_place_is_the_same_alone_and_among_others(model: Checkpoint) -> None:
    parent = real(model)
    child = branch_of(parent, -128, 192, 384, 448)
    large = Region(FINEST, -200, 100, 500, 640)
    with painter_of(model, parent, child) as painter:
        whole = painted(painter, large)
    for down, right in ((0, 0), (100, 400), (380, 500)):
        part = Region(FINEST, large.top + down, large.left + right, 100, 120)
        with painter_of(model, parent, child) as painter:
            assert painter.parent is not None
            for _ in painter.parent.patches([Patch(FINEST, 0, 0, right // 200)]):
                pass  # who looked at the parent before changes nothing
            np.testing.assert_array_equal(
                painted(painter, part), whole[down : down + 100, right : right + 120]
            )


def test_a_frame_is_the_same_alone_and_among_others(model: Checkpoint) -> None:
    """In whatever order a film is looked at, and whatever is kept of it."""
    parent = real(model, frames=3, extent=Extent("plane", 1))
    child = branch_of(parent, -64, 192, 128, 128)
    large = Region(1, -100, 150, 200, 220)
    with painter_of(model, parent, child) as painter:
        whole = [painted(painter, large._replace(frame=frame)) for frame in range(3)]
    assert (whole[0] != whole[1]).any() and (whole[1] != whole[2]).any()
    for places in ([(2, 90, 110)], [(1, 0, 0), (2, 120, 0), (0, 60, 60)]):
        with ExitStack() as stack:
            before = stack.enter_context(Painter(model, parent, keep=0))
            painter = stack.enter_context(Painter(model, child, keep=0, parent=before))
            for frame, down, right in places:
                top, left = large.top + down, large.left + right
                part = painted(painter, Region(1, top, left, 60, 100, frame))
                expected = whole[frame][down : down + 60, right : right + 100]
                np.testing.assert_array_equal(part, expected)


def test_a_film_begins_as_the_still_branch_and_goes_on_as_is_said(model: Checkpoint) -> None:
    """What moves is heard in the rectangle, from the second frame on."""
    model = that_reads(model)
    still = real(model, extent=Extent("plane", 0), sampling=Sampling(group=64, guidance=20))
    film = replace(still, frames=2, motion="winter turns to summer")
    place, patch = (64, 64, 192, 192), Patch(0, 0, 0, 0)
    found = []
    for parent, motion in ((still, ""), (film, film.motion), (film, "waves roll")):
        child = branch_of(parent, *place, motion=motion)
        with painter_of(model, parent, child) as painter:
            frames = [patch._replace(frame=frame) for frame in range(child.frames)]
            list(painter.patches(frames))
            found.append([painter.pool[one] for one in frames])
    (first,), (one, *alike), (other, *unlike) = found
    np.testing.assert_array_equal(first, one)
    np.testing.assert_array_equal(first, other)
    anew = place_of(branch_of(film, *place)).anew(patch)
    differs = (alike[0] != unlike[0]).any(-1)
    assert differs[anew].any() and not differs[~anew].any()


@pytest.mark.parametrize(("keep", "frame"), [(0, 0), (4096, 0), (0, 1)])
def test_painter_draws_the_cone_of_the_lineage_once(
    model: Checkpoint, keep: int, frame: int
) -> None:
    root = real(model, frames=frame + 1)
    child = branch_of(root, -128, 192, 256, 320)
    grandchild = branch_of(child, 64, 384, 128, 256)
    tile, told = Tile(FINEST, -2, -1, frame), list[tuple[str, Patch]]()
    with ExitStack() as stack:
        painter: Painter | None = None
        for canvas in (root, child, grandchild):

            def tell(patch: Patch, canvas: Canvas = canvas) -> None:
                told.append((canvas.id, patch))

            made = Painter(model, canvas, keep=keep, on_patch=tell, parent=painter)
            painter = stack.enter_context(made)
        assert painter is not None
        region = tile_region(tile, PLANE)
        line = lineage_of(grandchild, child, root)
        cone = line.cone(window_patches(tile, PLANE, F, RADIUS_TOK))
        assert {canvas for canvas, _ in cone} == {root.id, child.id, grandchild.id}
        assert painter.cost(region) == len(cone)
        painter.tile(tile)
        assert sorted(told) == sorted(cone)
        assert all(len(one.pool) <= max(keep, 0) for one in (painter, painter.parent) if one)


def test_a_shared_tile_is_the_parents(model: Checkpoint) -> None:
    parent = real(model)
    child = branch_of(parent, -128, 192, 256, 320)
    shared = [
        one for one in (Tile(FINEST, -2, -3), Tile(FINEST, -1, 3)) if not shows_branch(child, one)
    ]
    assert shared
    with painter_of(model, parent) as before, painter_of(model, parent, child) as after:
        for tile in shared:
            np.testing.assert_array_equal(before.tile(tile), after.tile(tile))


def noise(height: int, width: int) -> Pixels:
    """A picture of which no pixel is like the next."""
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def known_at(pixels: Pixels, top: int, left: int) -> Known:
    return Known(digest_of(pixels), top, left, *pixels.shape[:2])


def test_a_known_picture_stays_outside_and_is_painted_over_inside(model: Checkpoint) -> None:
    pixels = noise(320, 384)
    parent = real(model, known=known_at(pixels, 0, 0))
    child = branch_of(parent, 64, 128, 128, 128)
    with painter_of(model, parent, child, **{f"of_{digest_of(pixels)}": pixels}) as painter:
        found = painted(painter, Region(FINEST, 0, 0, 320, 384))
    same = (found == pixels).all(-1)
    assert same[64:192, 128:256].mean() < 0.001  # by chance
    same[64:192, 128:256] = True
    assert same.all()


def test_a_picture_is_the_first_frame_of_a_branch_of_a_film(model: Checkpoint) -> None:
    """The parent's too, outside the rectangle; what moves then is drawn inside, else as it was."""
    pixels, parents = noise(128, 128), noise(320, 384)
    parent = real(model, frames=2, known=known_at(parents, 0, 0))
    child = branch_of(parent, 64, 128, 192, 192, known=known_at(pixels, 64, 128))
    given = {f"of_{digest_of(one)}": one for one in (pixels, parents)}
    shown = Region(FINEST, 0, 0, 320, 384)
    with (
        painter_of(model, parent, **given) as before,
        painter_of(model, parent, child, **given) as after,
    ):
        first, second = (painted(after, shown._replace(frame=frame)) for frame in (0, 1))
        moved = painted(before, shown._replace(frame=1))
    own, whole = (slice(64, 192), slice(128, 256)), (slice(64, 256), slice(128, 320))
    np.testing.assert_array_equal(first[own], pixels)
    assert (second[own] != pixels).any(-1).mean() > 0.5
    outside = np.ones((320, 384), bool)
    outside[whole] = False
    np.testing.assert_array_equal(first[outside], parents[outside])
    reached = np.zeros((320, 384), bool)
    reached[: 256 + 80, 128 - 80 : 320 + 80] = True
    differs = (second != moved).any(-1)
    assert differs[whole].mean() > 0.5 and not differs[~reached].any()


def test_a_picture_may_be_put_into_a_branch(model: Checkpoint) -> None:
    pixels, parent = noise(320, 256), real(model)
    child = branch_of(parent, -128, 64, 576, 384, known=known_at(pixels, 0, 128))
    with (
        painter_of(model, parent) as before,
        painter_of(model, parent, child, **{f"of_{digest_of(pixels)}": pixels}) as after,
    ):
        found = painted(after, Region(FINEST, 0, 128, 320, 256))
        np.testing.assert_array_equal(found, pixels)
        level = Patch(FINEST, 0, 0, 0)
        for painter in (before, after):
            list(painter.patches([level]))
        anew = place_of(child).anew(level)
        np.testing.assert_array_equal(before.pool[level][~anew], after.pool[level][~anew])


def test_a_painter_wants_the_parent(model: Checkpoint) -> None:
    parent = real(model)
    child = branch_of(parent, 0, 0, 64, 64)
    with pytest.raises(InvalidRequest, match="branched from"):
        Painter(model, child)
    with Painter(model, parent) as painter, pytest.raises(InvalidRequest, match="branched from"):
        Painter(model, parent, parent=painter)


def test_the_field_is_the_parents_at_the_border_and_its_own_deep_inside() -> None:
    class Flat:
        """A field of one value."""

        def __init__(self, value: float) -> None:
            self.value = value

        def around(self, patch: Patch) -> tuple[Floats, Floats]:
            span = np.arange(-2, 18)
            place = np.stack(np.meshgrid(span, span, indexing="ij"), -1).reshape(-1, 2)
            return np.full((400, 4), self.value, np.float32), place.astype(np.float32)

    for size in (4096, 1024):
        canvas = branch_of(canvas_of(), -size // 2, -size // 2, size, size)
        field, half = BranchField(place_of(canvas), Flat(0), 3, Flat(1)), size // 8
        between = False
        for patch in (Patch(0, 0, row, col) for row, col in product(range(-3, 3), repeat=2)):
            values, places = field.around(patch)
            down, right = ((places + 0.5) * F + np.array((patch.row, patch.col)) * PATCH_PX).T
            deep = half - np.maximum(abs(down), abs(right))
            assert (values[deep <= 0] == 0).all() and (values[deep >= half * 3 / 4] == 1).all()
            assert ((values >= 0) & (values <= 1)).all()
            between |= bool(((values > 0) & (values < 1)).any())
        assert between, "one passes into the other"


# Specs.


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"parent": "x"}, "hexadecimal"),
        ({"top": 32}, "multiples of 64"),
        ({"left": -32}, "multiples of 64"),
        ({"height": 0}, "height must be 1 to 4096"),
        ({"width": MAX_BRANCH_PX + STEP}, "width must be 1 to 4096"),
        ({"width": 100}, "multiples of 64"),
        ({"left": 2**31}, "at most"),
        ({"top": "0"}, "must be int"),
    ],
)
def test_bad_rectangles_are_refused(changes: dict[str, Any], match: str) -> None:
    good: dict[str, Any] = {"parent": "0" * 64, "top": 0, "left": 0, "height": 64, "width": 64}
    canvas_of(branch=Branch(**good))
    with pytest.raises(InvalidRequest, match=match):
        canvas_of(branch=Branch(**good | changes))


def test_rectangles_and_their_pictures_lie_inside() -> None:
    branch = Branch("0" * 64, 640, 0, 128, 64)
    with pytest.raises(InvalidRequest, match="covers 640 to 768 px, and the scroll only 0 to 704"):
        canvas_of(SCROLL, branch=branch)
    known = Known("0" * 64, 640, 64, 64, 64)
    with pytest.raises(InvalidRequest, match="picture covers 64 to 128 px, and the branch only 0"):
        canvas_of(branch=branch, known=known)
    with pytest.raises(InvalidRequest, match="branch must be Branch"):
        canvas_of(branch=(0, 0, 64, 64))


def test_specs_with_branches_are_read_as_written() -> None:
    canvas = branch_of(canvas_of(), -64, 128, 64, 192)
    assert Canvas.parse(canvas.canonical()) == canvas
