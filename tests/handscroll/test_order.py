"""The laws of `handscroll.order`: who sees whom, what stands on what, and how little it is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handscroll.course import Course, course_of
from handscroll.errors import InvalidRequest
from handscroll.geometry import (
    MAX_FRAMES,
    MAX_LEVEL,
    PATCH_PX,
    Extent,
    Patch,
    Region,
    Tile,
    window_patches,
)
from handscroll.order import (
    MAX_BOUNDED_PATCHES,
    Lattice,
    Order,
    Outward,
    Raster,
    order_named,
)

F = 16
RADIUS_TOK = 4

PLANE = Extent("plane", MAX_LEVEL)
SCROLL = Extent("scroll", 2, 704)
PICTURE = Extent("picture", 2, 704, 1216)
KNOWN = Region(2, 256, 512, 256, 256)

COORDINATES = st.integers(-(10**12), 10**12)
LEVELS = st.integers(0, MAX_LEVEL)
BOOLS = st.booleans()
COURSES = st.builds(Course, st.integers(-2, 2), st.integers(-2, 2), BOOLS)
BOUNDED_ORDERS = (
    st.builds(Raster, st.just(PICTURE), BOOLS, BOOLS, BOOLS)
    | st.just(Outward(PICTURE, KNOWN))
    | st.just(order_named("outward", PICTURE))
    | st.just(Lattice(PICTURE))
)
"""Orders of a small picture: 3 x 5 patches at level 2."""


@st.composite
def orders_and_patches(draw: st.DrawFn, frames: int = 2) -> tuple[Order, list[Patch]]:
    """An order and some patches of its extent, near each other."""
    order = draw(BOUNDED_ORDERS | st.sampled_from([Lattice(PLANE), Lattice(SCROLL)]))
    order = replace(order, course=draw(COURSES))
    row, col = (
        draw(st.just(0) if size is not None else COORDINATES) for size in order.extent.size(0)
    )
    places = st.builds(
        Patch,
        st.integers(0, 2),
        st.integers(0, frames - 1),
        st.integers(row, row + 4),
        st.integers(col, col + 4),
    ).filter(order.extent.contains)
    return order, draw(st.lists(places, min_size=1, max_size=4, unique=True))


# What a cold tile stands on.


def cold(order: Order, tile: Tile) -> int:
    return len(order.cone(window_patches(tile, order.extent, F, RADIUS_TOK)))


@pytest.mark.parametrize("level", range(MAX_LEVEL + 1))
@pytest.mark.parametrize("far", [0, 10**9, -(10**9)])
def test_cold_plane_tile_stands_on_nine_patches_a_level(level: int, far: int) -> None:
    for row in (far, far + 1):
        for col in (-far, 1 - far):
            assert cold(Lattice(PLANE), Tile(level, row, col)) == 9 * (level + 1)


@given(LEVELS, st.integers(0, 2), COORDINATES, COORDINATES)
def test_cold_plane_tile_stands_on_nine_patches_a_level_and_frame(
    level: int, frame: int, row: int, col: int
) -> None:
    tile = Tile(level, row, col, frame)
    assert cold(Lattice(PLANE), tile) == 9 * (level + 1) * (frame + 1)


@pytest.mark.parametrize(
    ("words", "most"), [("waves roll", 10), ("clouds drift left", 6), ("the camera moves up", 8)]
)
@pytest.mark.parametrize("level", range(3))
def test_what_moves_costs_as_much_more_as_it_has_come_far(
    level: int, words: str, most: int
) -> None:
    """For each level, patches of the first frame alone; counted at the last of all frames."""
    moving, frame = Lattice(PLANE, course=course_of(words)), MAX_FRAMES - 1
    for far in (0, 10**9):
        for row in (far, far + 1):
            for col in (-far, 1 - far):
                tile = Tile(level, row, col, frame)
                patches = window_patches(tile, PLANE, F, RADIUS_TOK)
                cone, still = moving.cone(patches), Lattice(PLANE).cone(patches)
                assert still <= cone
                assert {one.frame for one in cone - still} <= {0}
                assert len(cone - still) <= most * (level + 1)


@given(orders_and_patches(MAX_FRAMES))
def test_origins_are_the_first_frames_patches_from_which_things_came(
    case: tuple[Order, list[Patch]],
) -> None:
    order, patches = case
    for patch in patches:
        down, right = order.course.moved_px(patch.level, patch.frame, order.extent.finest)
        expected = {
            Patch(patch.level, 0, (top - down) // PATCH_PX, (left - right) // PATCH_PX)
            for top in (patch.row * PATCH_PX, (patch.row + 1) * PATCH_PX - 1)
            for left in (patch.col * PATCH_PX, (patch.col + 1) * PATCH_PX - 1)
        }
        inside = {one for one in expected if order.extent.contains(one)}
        assert set(order.origins(patch)) == (inside if patch.frame else set())


@pytest.mark.parametrize(("level", "rows", "patches"), [(0, 1, 3), (1, 2, 9), (2, 3, 18)])
@pytest.mark.parametrize("far", [0, 10**9, -(10**9)])
def test_cold_scroll_tile_stands_on_a_constant(
    level: int, rows: int, patches: int, far: int
) -> None:
    """Three columns of patches at every level: 3, 3 + 6 and 3 + 6 + 9, wherever the tile is."""
    order = Lattice(SCROLL)
    for row in range(rows):
        for col in range(far - 8, far + 8):
            assert cold(order, Tile(level, row, col)) == patches


@given(LEVELS, COORDINATES, COORDINATES)
def test_cold_plane_tile_is_drawn_in_three_waves_a_level(level: int, row: int, col: int) -> None:
    wanted = window_patches(Tile(level, row, col), PLANE, F, RADIUS_TOK)
    assert len(Lattice(PLANE).waves(wanted)) == 3 * (level + 1)


# Dependencies, cones and waves of any order.


@given(orders_and_patches())
def test_seen_are_neighbours_one_way(case: tuple[Order, list[Patch]]) -> None:
    """Of two neighbours at most one sees the other; a patch sees nothing but its neighbours."""
    order, patches = case
    for patch in patches:
        seen = order.seen(patch)
        assert set(seen) <= set(patch.neighbours)
        assert all(patch not in order.seen(one) for one in seen)
        assert all(order.extent.contains(one) for one in seen)


@given(orders_and_patches())
def test_dependencies_are_the_seen_their_parents_and_their_past(
    case: tuple[Order, list[Patch]],
) -> None:
    order, patches = case
    for patch in patches:
        near = {patch, *order.seen(patch)}
        expected = near - {patch}
        if patch.level > 0:
            expected |= {one.parent for one in near}
        if patch.frame > 0:
            expected |= {one._replace(frame=patch.frame - 1) for one in near}
            expected.update(order.origins(patch))
        found = order.dependencies(patch)
        assert len(found) == len(set(found))
        assert set(found) == expected
        assert all(order.extent.contains(one) for one in found)


@given(orders_and_patches())
def test_cone_is_the_least_closed_set(case: tuple[Order, list[Patch]]) -> None:
    order, patches = case
    cone = order.cone(patches)
    needed = set(patches).union(*(order.dependencies(one) for one in cone))
    assert cone == needed


@given(orders_and_patches(), st.data())
def test_cone_stops_at_what_is_there(case: tuple[Order, list[Patch]], data: st.DataObject) -> None:
    order, patches = case
    cold_cone = order.cone(patches)
    have = data.draw(st.sets(st.sampled_from(sorted(cold_cone))))
    cone = order.cone(patches, have)
    assert not cone & have
    for patch in cone:
        assert set(order.dependencies(patch)) <= cone | have
    # Nothing is in it but what is wanted or seen by something in it: nothing behind what is there.
    assert cone == (set(patches) | {d for one in cone for d in order.dependencies(one)}) - have
    assert order.cone(patches, cold_cone) == set()
    direct = {one for patch in patches for one in order.dependencies(patch)} - set(patches)
    assert order.cone(patches, direct) == set(patches)


@given(orders_and_patches(), st.data())
def test_waves_hold_the_cone_each_patch_after_what_it_sees(
    case: tuple[Order, list[Patch]], data: st.DataObject
) -> None:
    order, patches = case
    have = data.draw(st.sets(st.sampled_from(sorted(order.cone(patches))), max_size=5))
    waves = order.waves(patches, have)
    assert sorted(one for wave in waves for one in wave) == sorted(order.cone(patches, have))
    done = set(have)
    last: set[Patch] = set()
    for number, wave in enumerate(waves):
        for patch in wave:
            needs = set(order.dependencies(patch))
            assert needs <= done
            # As early as can be: something it needs came just before.
            assert number == 0 or needs & last
        last = set(wave)
        done |= last


def test_waves_of_nothing_are_none() -> None:
    assert Lattice(PLANE).waves([]) == []
    assert Lattice(PLANE).waves([Patch(0, 0, 0, 0)], have={Patch(0, 0, 0, 0)}) == []


# Lattice.


@given(LEVELS, COORDINATES, COORDINATES)
def test_lattice_seeds_see_none_bridges_two_seeds_fills_eight(
    level: int, row: int, col: int
) -> None:
    order = Lattice(PLANE)
    row, col = 2 * row, 2 * col
    here = Patch(level, 0, row, col)
    assert order.seen(here) == ()
    across, down = here._replace(col=col + 1), here._replace(row=row + 1)
    assert order.seen(across) == (here, here._replace(col=col + 2))
    assert order.seen(down) == (here, here._replace(row=row + 2))
    fill = Patch(level, 0, row + 1, col + 1)
    assert order.seen(fill) == fill.neighbours


@pytest.mark.parametrize("col", [-7, -2, 0, 5, 10**9])
def test_lattice_of_a_scroll_sees_nothing_beyond_its_rows(col: int) -> None:
    order = Lattice(SCROLL)
    for level, rows in ((0, 1), (1, 2), (2, 3)):
        for row in range(rows):
            for near in order.seen(Patch(level, 0, row, col)):
                assert 0 <= near.row < rows
    assert len(order.seen(Patch(2, 0, 1, 2 * col + 1))) == 8
    assert len(order.seen(Patch(1, 0, 1, 2 * col + 1))) == 5
    assert len(order.seen(Patch(0, 0, 0, 2 * col + 1))) == 2


# Raster.


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_raster_sees_what_was_read_before(by_columns: bool, up: bool, left: bool) -> None:
    """Walk a 3x3 block as one reads: its middle sees all that came before, and nothing else."""
    rows, cols = ([9, 8, 7] if up else [7, 8, 9]), ([6, 5, 4] if left else [4, 5, 6])
    if by_columns:
        walk = [Patch(2, 0, row, col) for col in cols for row in rows]
    else:
        walk = [Patch(2, 0, row, col) for row in rows for col in cols]
    order = Raster(Extent("picture", 2, 256 * 20, 256 * 20), by_columns, up, left)
    assert sorted(order.seen(Patch(2, 0, 8, 5))) == sorted(walk[:4])


@given(st.builds(Raster, st.just(PICTURE), BOOLS, BOOLS, BOOLS))
def test_raster_has_one_first_patch_and_one_last(order: Raster) -> None:
    patches = [Patch(2, 0, row, col) for row in range(3) for col in range(5)]
    first = [one for one in patches if not order.seen(one)]
    corner = Patch(2, 0, 2 if order.up else 0, 4 if order.left else 0)
    assert first == [corner]
    assert len({order.rank(one) for one in patches}) == len(patches)


# Outward.

WIDE = Extent("picture", 2, 256 * 24, 256 * 24)


def rings_apart(patch: Patch, rows: range, cols: range) -> int:
    """Chebyshev distance, in patches, from a rectangle of patches."""
    down = max(rows[0] - patch.row, patch.row - rows[-1], 0)
    right = max(cols[0] - patch.col, patch.col - cols[-1], 0)
    return max(down, right)


@given(
    st.integers(0, 2),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 30),
    st.integers(0, 30),
)
def test_outward_ring_is_the_distance_in_patches(
    level: int, top: int, left: int, height: int, width: int, row: int, col: int
) -> None:
    """For a known rectangle of whole patches of the level."""
    side = 256 * 2 ** (2 - level)
    known = Region(2, top * side, left * side, height * side, width * side)
    patch = Patch(level, 0, row, col)
    expected = rings_apart(patch, range(top, top + height), range(left, left + width))
    assert Outward(WIDE, known).rank(patch)[0] == expected


@given(
    st.integers(0, 2),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.integers(1, 1500),
    st.integers(1, 1500),
)
def test_outward_ring_grows_from_what_it_touches(
    level: int, top: int, left: int, height: int, width: int
) -> None:
    """Aligned or not: ring 0 is what the known touches, and every ring sees the one before."""
    order = Outward(WIDE, Region(2, top, left, height, width))
    side = 256 * 2 ** (2 - level)
    rows = range(top // side, (top + height - 1) // side + 1)
    cols = range(left // side, (left + width - 1) // side + 1)
    count = 24 // 2 ** (2 - level)
    for row in range(count):
        for col in range(count):
            patch = Patch(level, 0, row, col)
            ring = order.rank(patch)[0]
            assert (ring == 0) == (row in rows and col in cols)
            if ring > 0:
                assert ring - 1 in {order.rank(one)[0] for one in order.seen(patch)}


def test_outward_reads_inside_a_ring() -> None:
    order = Outward(WIDE, Region(2, 256 * 5, 256 * 5, 256, 256))
    ring = sorted(Patch(2, 0, 5, 5).neighbours, key=order.rank)
    assert ring == sorted(ring)


# Orders by name.


def test_order_named_gives_what_it_says() -> None:
    assert order_named("lattice", PLANE) == Lattice(PLANE)
    assert order_named("lattice", PICTURE) == Lattice(PICTURE)
    assert order_named("raster", PICTURE) == Raster(PICTURE)
    outward = order_named("outward", PICTURE)
    assert isinstance(outward, Outward)
    first = min((Patch(2, 0, row, col) for row in range(3) for col in range(5)), key=outward.rank)
    assert first == Patch(2, 0, 1, 2)


@pytest.mark.parametrize("name", ["", "Lattice", "spiral", "raster "])
def test_order_named_refuses_strange_names(name: str) -> None:
    with pytest.raises(InvalidRequest, match="lattice, raster or outward"):
        order_named(name, PICTURE)


@pytest.mark.parametrize("name", ["raster", "outward"])
@pytest.mark.parametrize("extent", [PLANE, SCROLL])
def test_order_named_refuses_unbounded_cones(name: str, extent: Extent) -> None:
    with pytest.raises(InvalidRequest, match=f"not a {extent.kind}"):
        order_named(name, extent)


@pytest.mark.parametrize("name", ["raster", "outward"])
def test_order_named_refuses_too_many_patches(name: str) -> None:
    """Counted at the finest level, patches at the rim included."""

    def build(height: int, width: int) -> Extent:
        return Extent("picture", 0, height, width)

    assert MAX_BOUNDED_PATCHES == 64 * 64
    order_named(name, build(64 * 256, 64 * 256))
    order_named(name, build(64 * 256 - 240, 64 * 256 - 240))
    with pytest.raises(InvalidRequest, match="4160"):
        order_named(name, build(64 * 256, 64 * 256 + 16))
    assert order_named("lattice", build(64 * 256, 65 * 256)).extent.width_px == 65 * 256
