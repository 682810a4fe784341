"""The laws of `handscroll.context`: what a patch may see, no more and no less, and for how long."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from handscroll.context import (
    PARENT_TOK,
    RING_TOK,
    Codes,
    Context,
    Floats,
    NearbyContextPool,
    Source,
    gather,
)
from handscroll.course import Course, Kind
from handscroll.geometry import PATCH_PX, Extent, Patch, Region
from handscroll.order import Lattice, Order, Outward, Raster
from handscroll.render import render

SIDE, CODES = 16, 3
SCROLL = Extent("scroll", 2, 704)
PICTURE = Extent("picture", 2, 704, 1216)
EXTENTS = [Extent("plane", 2), SCROLL, PICTURE]
KNOWN = Region(2, 300, 200, 200, 500)
ORDERS: list[Callable[[Extent], Order]] = [
    Lattice,
    Raster,
    lambda extent: Raster(extent, by_columns=True, up=True, left=True),
    lambda extent: Outward(extent, KNOWN),
]
COORDINATES = st.integers(-4, 6) | st.integers(-(10**12), 10**12)


def codes_of(patch: Patch, side: int = SIDE) -> Codes:
    """Random codes, the patch's own."""
    rng = np.random.default_rng([one + 2**50 for one in patch])
    return rng.integers(0, 256, (side, side, CODES), dtype=np.uint8)


@st.composite
def orders_and_patches(draw: st.DrawFn) -> tuple[Order, Patch]:
    extent = draw(st.sampled_from(EXTENTS))
    level, frame = draw(st.integers(0, 2)), draw(st.integers(0, 3))
    # Bounded axes: 1, 2 or 3 rows of patches, 2, 3 or 5 columns, by level.
    bounds = [size and -(-size // PATCH_PX) for size in extent.size(level)]
    row, col = (draw(st.integers(0, one - 1) if one else COORDINATES) for one in bounds)
    order = draw(st.sampled_from(ORDERS))(extent)
    ways = st.integers(-3, 3)
    course = Course(draw(ways), draw(ways), draw(st.sampled_from(Kind)))
    return replace(order, course=course), Patch(level, frame, row, col)


# gather


Entry = tuple[int, float, float, tuple[int, ...]]


def seen_token_by_token(patch: Patch, order: Order, side: int) -> list[Entry]:
    """Every token a patch sees, (source, row, col, codes), from the definitions alone."""
    level, frame, row, col = patch
    dependencies = set(order.dependencies(patch))
    # A neighbour that is not seen lends neither its parent nor its past.
    near = {patch} | {one for one in dependencies if one[:2] == (level, frame)}
    parents = {one.parent for one in near} if level > 0 else set()
    before = {one._replace(frame=frame - 1) for one in near} if frame > 0 else set()
    origins = {one for one in dependencies if one[:2] == (level, 0)} if frame > 0 else set()
    moved = [px * side // PATCH_PX for px in order.course.moved_px(level, frame, 2)]

    def look(there: int, when: int, allowed: set[Patch], down: int, right: int) -> list[int]:
        """Codes of the token at a place counted from pixel 0 of a level, if it is visible."""
        home = Patch(there, when, down // side, right // side)
        f = PATCH_PX // side
        height, width = order.extent.size(there)
        if home not in allowed:
            return []
        if height is not None and not 0 <= down * f < height:
            return []
        if width is not None and not 0 <= right * f < width:
            return []
        return codes_of(home, side)[down % side, right % side].tolist()

    entries: list[Entry] = []
    for down in range(-RING_TOK, side + RING_TOK):
        for right in range(-RING_TOK, side + RING_TOK):
            place = (row * side + down, col * side + right)
            own = 0 <= down < side and 0 <= right < side
            if not own and (codes := look(level, frame, near, *place)):
                entries.append((Source.RING, down, right, tuple(codes)))
            if codes := look(level, frame - 1, before, *place):
                entries.append((Source.PREVIOUS, down, right, tuple(codes)))
            came_from = (place[0] - moved[0], place[1] - moved[1])
            if own and (codes := look(level, 0, origins, *came_from)):
                entries.append((Source.FIRST, down, right, tuple(codes)))
    # Token (R, C) of the level above covers tokens 2R and 2R + 1, 2C and 2C + 1 of this one.
    first_row, first_col = row * side // 2, col * side // 2
    for above in range(first_row - PARENT_TOK, first_row + side // 2 + PARENT_TOK):
        for across in range(first_col - PARENT_TOK, first_col + side // 2 + PARENT_TOK):
            if codes := look(level - 1, frame, parents, above, across):
                centre = (2 * above + 0.5 - row * side, 2 * across + 0.5 - col * side)
                entries.append((Source.PARENT, *centre, tuple(codes)))
    return sorted(entries)


def entries_of(context: Context) -> list[Entry]:
    return sorted(
        (int(source), float(down), float(right), tuple(codes.tolist()))
        for source, (down, right), codes in zip(
            context.source_N, context.place_N2, context.codes_NK, strict=True
        )
    )


def test_what_stood_where_tokens_are_new_is_gone_and_nothing_has_come_there() -> None:
    order = Lattice(Extent("plane", 2), course=Course(right=1))
    context = gather(Patch(2, 3, 1, 1), order, SIDE, codes_of, None)
    new_ss = np.zeros((SIDE, SIDE), bool)
    new_ss[2:5, 3:] = True
    after = context.forget(new_ss)
    (stood, _), (gone, is_gone) = context.at(Source.PREVIOUS), after.at(Source.GONE)
    np.testing.assert_array_equal(is_gone, new_ss)
    np.testing.assert_array_equal(gone[new_ss], stood[new_ss])
    for source in (Source.PREVIOUS, Source.FIRST):
        there = context.at(source)[1]
        assert there.all()
        np.testing.assert_array_equal(after.at(source)[1], ~new_ss)
    assert len(after.codes_NK) == len(context.codes_NK) - new_ss.sum()
    assert entries_of(after.forget(new_ss)) == entries_of(after)


@settings(max_examples=40)
@given(orders_and_patches())
def test_gather_is_the_definition_token_by_token(case: tuple[Order, Patch]) -> None:
    order, patch = case
    context = gather(patch, order, SIDE, codes_of, None)
    assert entries_of(context) == seen_token_by_token(patch, order, SIDE)
    assert context.patch == patch
    assert context.kind == (order.course.kind if patch.frame else Kind.OTHER)
    assert context.codes_NK.dtype == np.uint8
    assert context.place_N2.dtype == np.float32


@settings(max_examples=5)
@given(orders_and_patches())
def test_gather_is_the_definition_for_finer_tokens(case: tuple[Order, Patch]) -> None:
    """Tokens of 8 px, 32 to a patch's side."""
    order, patch = case
    context = gather(patch, order, 32, lambda one: codes_of(one, 32), None)
    assert entries_of(context) == seen_token_by_token(patch, order, 32)


@given(orders_and_patches())
def test_gather_reads_its_dependencies_and_nothing_else(case: tuple[Order, Patch]) -> None:
    """And each of them lends at least a token: no patch is drawn for nothing."""
    order, patch = case
    read: list[Patch] = []

    def mark(one: Patch) -> Codes:
        """Codes that say how many patches were read before."""
        read.append(one)
        return np.full((SIDE, SIDE, 1), len(read) - 1, np.uint8)

    context = gather(patch, order, SIDE, mark, None)
    assert sorted(set(read)) == sorted(order.dependencies(patch))
    assert {read[number] for number in context.codes_NK[:, 0]} == set(read)


@settings(max_examples=30)
@given(orders_and_patches())
def test_gather_says_which_own_tokens_are_drawn(case: tuple[Order, Patch]) -> None:
    order, patch = case
    inside = gather(patch, order, SIDE, codes_of, None).inside_ss
    height, width = order.extent.size(patch.level)
    for token in np.ndindex(SIDE, SIDE):
        down, right = patch.row * SIDE + token[0], patch.col * SIDE + token[1]
        expected = (height is None or down * 16 < height) and (width is None or right * 16 < width)
        assert inside[token] == expected


@settings(max_examples=30)
@given(orders_and_patches(), st.integers(-3, 3), st.integers(-3, 3))
def test_gather_of_a_plane_is_blind_to_absolute_places(
    case: tuple[Order, Patch], down: int, right: int
) -> None:
    """Moved by whole fours of patches, so that phases and quarters stay, it sees the same."""
    _, patch = case
    order = Lattice(Extent("plane", 2))
    far = patch._replace(row=patch.row + 4 * down, col=patch.col + 4 * right)

    def relative(one: Patch) -> Codes:
        """The same codes whether asked around one patch or the other."""
        scale = 4 // 2 ** (patch.level - one.level)
        return codes_of(one._replace(row=one.row % scale, col=one.col % scale))

    here, there = (gather(one, order, SIDE, relative, None) for one in (patch, far))
    for name in ("codes_NK", "place_N2", "source_N", "inside_ss"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))


class Cells:
    """A field that tells which patch asked."""

    def around(self, patch: Patch) -> tuple[Floats, Floats]:
        values = np.full((3, 4), patch.col, np.float32)
        return values, np.full((3, 2), patch.row, np.float32)


def test_gather_shows_the_field_to_level_0_of_the_first_frame_alone() -> None:
    order = Lattice(Extent("plane", 2))
    context = gather(Patch(0, 0, 5, 7), order, SIDE, codes_of, Cells())
    assert (context.field_MV == 7).all() and context.field_MV.shape == (3, 4)
    assert (context.field_place_M2 == 5).all() and context.field_place_M2.shape == (3, 2)
    for level, frame, field in ((1, 0, Cells()), (2, 0, Cells()), (0, 0, None), (0, 1, Cells())):
        blind = gather(Patch(level, frame, 5, 7), order, SIDE, codes_of, field)
        assert len(blind.field_MV) == len(blind.field_place_M2) == 0


def test_gather_of_a_seed_of_level_0_is_empty() -> None:
    """Absent context is absent, not faked."""
    context = gather(Patch(0, 0, 2, 4), Lattice(Extent("plane", 2)), SIDE, codes_of, None)
    assert len(context.codes_NK) == len(context.place_N2) == len(context.source_N) == 0
    assert context.inside_ss.all()


@pytest.mark.parametrize(
    ("patch", "ring", "parent"),
    [
        (Patch(1, 0, 0, 0), 0, 10 * 10),
        (Patch(1, 0, 0, 1), 2 * 4 * 16, 10 * 12),
        (Patch(1, 0, 1, 0), 2 * 4 * 16, 12 * 10),
        (Patch(1, 0, 1, 1), 24 * 24 - 16 * 16, 12 * 12),
    ],
)
def test_gather_counts_of_the_lattice(patch: Patch, ring: int, parent: int) -> None:
    """Seed, two bridges, fill. A parent's margin is seen as far as its patches may be."""
    context = gather(patch, Lattice(Extent("plane", 2)), SIDE, codes_of, None)
    counted = np.bincount(context.source_N, minlength=3)
    assert counted.tolist() == [ring, parent, 0]


# NearbyContextPool


def blank(contexts: Sequence[Context]) -> list[tuple[Patch, Codes]]:
    return [(one.patch, np.zeros((SIDE, SIDE, CODES), np.uint8)) for one in contexts]


@given(
    st.sampled_from(ORDERS),
    st.lists(
        st.builds(Patch, st.just(2), st.integers(0, 1), st.integers(0, 2), st.integers(0, 4)),
        min_size=1,
        max_size=4,
        unique=True,
    ),
)
@settings(max_examples=20)
def test_pool_keeps_just_what_the_plan_still_needs(
    build: Callable[[Extent], Order], wanted: list[Patch]
) -> None:
    """With ``keep=0``: all that a patch yet to be drawn will see, and not one patch more."""
    order = build(PICTURE)
    waves = order.waves(wanted)
    left = {patch for wave in waves for patch in wave}
    drawn: set[Patch] = set()
    pool = NearbyContextPool(order, SIDE, None, keep=0)
    for wave in waves:
        pool.expect(wave)
    for wave in waves:
        for patch in wave:
            assert all(one in pool for one in order.dependencies(patch))
            pool.add(patch, np.zeros((SIDE, SIDE, CODES), np.uint8))
            left.remove(patch)
            drawn.add(patch)
            needed = {one for each in left for one in order.dependencies(each)} & drawn
            assert {one for one in drawn if one in pool} == needed
            assert len(pool) == len(needed)
    assert len(pool) == 0


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=4), st.integers(0, 40))
@settings(max_examples=20)
def test_pool_never_holds_more_than_it_keeps(places: list[tuple[int, int]], keep: int) -> None:
    """Between requests, of whatever order; and what is there need not be drawn again."""
    order = Lattice(Extent("plane", 2))
    pool = NearbyContextPool(order, SIDE, None, keep)
    for row, col in places:
        held = {one for one in order.cone([Patch(2, 0, row, col)]) if one in pool}
        drawn = {one for one, _ in render([Patch(2, 0, row, col)], order, pool, blank)}
        assert not drawn & held
        assert len(pool) <= keep


def seeds(count: int) -> list[Patch]:
    return [Patch(0, 0, 0, 2 * col) for col in range(count)]


def test_pool_forgets_the_least_recently_used() -> None:
    order = Lattice(Extent("plane", 2))
    pool = NearbyContextPool(order, SIDE, None, keep=3)
    one, two, three, four, five = seeds(5)
    for patch in (one, two, three):
        pool.add(patch, codes_of(patch))
    pool[one]
    pool.add(four, codes_of(four))
    assert [patch in pool for patch in (one, two, three, four)] == [True, False, True, True]
    pool[three]
    pool.add(five, codes_of(five))
    assert [patch in pool for patch in (one, three, four, five)] == [False, True, True, True]


def test_pool_keeps_what_is_claimed_until_it_is_released_as_often() -> None:
    pool = NearbyContextPool(Lattice(Extent("plane", 2)), SIDE, None, keep=0)
    early, late = seeds(2)
    pool.claim([early, late])
    pool.claim([late])
    for patch in (early, late):
        pool.add(patch, codes_of(patch))
    np.testing.assert_array_equal(pool[late], codes_of(late))
    pool.release([early, late])
    assert (early in pool, late in pool) == (False, True)
    pool.release([late])
    assert len(pool) == 0


def test_pool_claims_what_it_already_holds() -> None:
    """A patch kept from an earlier request is safe as soon as a plan needs it."""
    order = Lattice(Extent("plane", 2))
    pool = NearbyContextPool(order, SIDE, None, keep=2)
    left, right, other = seeds(3)
    bridge = Patch(0, 0, 0, 1)
    for patch in (left, right):
        pool.add(patch, codes_of(patch))
    pool.expect([bridge])
    for patch in [other, *(Patch(0, 0, 8, 2 * col) for col in range(4))]:
        pool.add(patch, codes_of(patch))
    assert left in pool and right in pool
    pool.add(bridge, codes_of(bridge))
    assert len(pool) == 2


def test_pool_around_is_what_gather_says() -> None:
    order = Lattice(Extent("plane", 2))
    pool = NearbyContextPool(order, SIDE, Cells())
    fill = Patch(0, 0, 1, 1)
    for patch in order.dependencies(fill):
        pool.add(patch, codes_of(patch))
    pool_says, gather_says = pool.around(fill), gather(fill, order, SIDE, codes_of, Cells())
    arrays: list[tuple[NDArray[np.generic], NDArray[np.generic]]] = [
        (pool_says.codes_NK, gather_says.codes_NK),
        (pool_says.place_N2, gather_says.place_N2),
        (pool_says.field_MV, gather_says.field_MV),
    ]
    for found, expected in arrays:
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(KeyError):
        pool.around(Patch(0, 0, 5, 5))
