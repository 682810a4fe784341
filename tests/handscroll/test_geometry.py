"""The laws of `handscroll.geometry`: signed grids, exact covers, nested pyramids, free margins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handscroll.errors import InvalidRequest
from handscroll.geometry import (
    MAX_LEVEL,
    PATCH_PX,
    ROOT_ZOOM,
    TILE_PX,
    Extent,
    Patch,
    Region,
    Tile,
    cell_of,
    cells_of,
    patches_of,
    tile_region,
    tile_to_xyz,
    tile_window,
    tiles_of,
    window_patches,
    xyz_to_tile,
)

F = 16
RADIUS_TOK = 4

PLANE = Extent("plane", MAX_LEVEL)
SCROLL = Extent("scroll", 2, 704)
PICTURE = Extent("picture", 2, 704, 1216)

COORDINATES = st.integers(-(10**12), 10**12)
LEVELS = st.integers(0, MAX_LEVEL)
PATCHES = st.builds(Patch, LEVELS, st.integers(0, 31), COORDINATES, COORDINATES)
TILES = st.builds(Tile, LEVELS, COORDINATES, COORDINATES, st.integers(0, 31))
# Near pixel 0, where signs change, and far away.
STARTS = st.integers(-600, 600) | COORDINATES
REGIONS = st.builds(
    Region,
    st.integers(0, 2),
    STARTS,
    STARTS,
    st.integers(1, 600),
    st.integers(1, 600),
    frame=st.integers(0, 2),
)
EVEN = Extent("picture", 2, 1024, 2048)
"""Whole patches at every level: no patch lies partly outside."""
EXTENTS = st.sampled_from([PLANE, SCROLL, PICTURE, EVEN])


@given(COORDINATES, st.integers(1, 10**6))
def test_cell_of_floors_towards_minus_infinity(place: int, size: int) -> None:
    cell = cell_of(place, size)
    assert cell * size <= place < (cell + 1) * size
    assert cell_of(np.array([place, -place]), size).tolist() == [cell, cell_of(-place, size)]


@given(COORDINATES, st.integers(1, 3000), st.integers(1, 1000))
def test_cells_of_are_those_that_places_fall_into(start: int, count: int, size: int) -> None:
    found = {cell_of(place, size) for place in range(start, start + count)}
    assert list(cells_of(start, start + count, size)) == sorted(found)


@given(PATCHES)
def test_parent_and_children_are_inverse(patch: Patch) -> None:
    assert {child.parent for child in patch.children} == {patch}
    assert patch.children.count(Patch(patch.level + 1, patch.frame, 2 * patch.row, 2 * patch.col))
    if patch.level > 0:
        assert patch in patch.parent.children


@given(PATCHES)
def test_children_cover_their_parent(patch: Patch) -> None:
    """Once, in raster order, at twice the resolution."""
    size = 2 * PATCH_PX
    under = Region(patch.level + 1, size * patch.row, size * patch.col, size, size, patch.frame)
    assert list(patch.children) == patches_of(under, Extent("plane", MAX_LEVEL + 1))


@pytest.mark.parametrize(
    ("index", "parent"), [(-3, -2), (-2, -1), (-1, -1), (0, 0), (1, 0), (2, 1)]
)
def test_parent_floors_towards_minus_infinity(index: int, parent: int) -> None:
    assert Patch(1, 0, index, 7).parent.row == parent
    assert Patch(1, 0, 7, index).parent.col == parent


@given(PATCHES)
def test_neighbours_are_the_eight_around(patch: Patch) -> None:
    near = patch.neighbours
    assert len(set(near)) == 8 and list(near) == sorted(near)
    for one in near:
        assert one[:2] == patch[:2]
        assert max(abs(one.row - patch.row), abs(one.col - patch.col)) == 1
        assert patch in one.neighbours


@given(st.integers(0, 5), EXTENTS)
def test_size_doubles_with_the_level(level: int, extent: Extent) -> None:
    if level < extent.finest:
        for coarse, fine in zip(extent.size(level), extent.size(level + 1), strict=True):
            assert coarse == fine is None or (coarse is not None and 2 * coarse == fine)
    assert extent.size(extent.finest) == (extent.height_px, extent.width_px)


@given(
    EXTENTS,
    st.integers(0, 2),
    st.integers(-50, 90) | COORDINATES,
    st.integers(-50, 90) | COORDINATES,
)
def test_inside_is_token_by_token(extent: Extent, level: int, row: int, col: int) -> None:
    """A token is in the canvas if all of its pixels are; bounds are multiples of tokens."""
    mask = extent.inside(level, row, col, (5, 7), F)
    height, width = extent.size(level)
    for down in range(5):
        for right in range(7):
            top, left = (row + down) * F, (col + right) * F
            expected = (height is None or (top >= 0 and top + F <= height)) and (
                width is None or (left >= 0 and left + F <= width)
            )
            assert mask[down, right] == expected


@given(EXTENTS, st.integers(0, 2), st.integers(-3, 8), st.integers(-3, 8))
def test_contains_a_patch_of_which_any_token_is_inside(
    extent: Extent, level: int, row: int, col: int
) -> None:
    side = PATCH_PX // F
    some = extent.inside(level, row * side, col * side, (side, side), F).any()
    assert extent.contains(Patch(level, 0, row, col)) == some


@pytest.mark.parametrize("extent", [PLANE, SCROLL, PICTURE])
def test_contains_no_level_that_the_canvas_has_not(extent: Extent) -> None:
    held = [level for level in range(-2, 9) if extent.contains(Patch(level, 0, 0, 0))]
    assert held == list(range(extent.finest + 1))


def overlap(region: Region, top: int, left: int, size: int) -> tuple[slice, slice]:
    """The part of a region that a square covers, as rows and columns of the region."""
    rows = slice(max(0, top - region.top), max(0, min(region.height, top + size - region.top)))
    cols = slice(max(0, left - region.left), max(0, min(region.width, left + size - region.left)))
    return rows, cols


@given(REGIONS, EXTENTS)
def test_tiles_of_covers_a_region_exactly(region: Region, extent: Extent) -> None:
    """Every pixel lies in one tile, no tile is needless, and they come row by row."""
    covered = np.zeros((region.height, region.width), int)
    tiles = list(tiles_of(region, extent))
    for tile in tiles:
        square = tile_region(tile, extent)
        part = covered[overlap(region, square.top, square.left, TILE_PX)]
        assert part.size > 0
        part += 1
    assert (covered == 1).all()
    assert tiles == sorted(tiles)


@given(REGIONS, EXTENTS)
def test_patches_of_covers_what_lies_in_the_canvas_exactly(region: Region, extent: Extent) -> None:
    covered = np.zeros((region.height, region.width), int)
    patches = patches_of(region, extent)
    for patch in patches:
        part = covered[overlap(region, PATCH_PX * patch.row, PATCH_PX * patch.col, PATCH_PX)]
        assert part.size > 0
        part += 1
    pixels = extent.inside(
        region.level, region.top, region.left, (region.height, region.width), f=1
    )
    assert (covered[pixels] == 1).all() and covered.max(initial=0) <= 1
    assert patches == sorted(patches)
    assert all(extent.contains(patch) for patch in patches)


@given(REGIONS, EXTENTS, st.integers(0, 300))
def test_patches_of_margin_widens_the_region(
    region: Region, extent: Extent, margin_px: int
) -> None:
    wider = region._replace(
        top=region.top - margin_px,
        left=region.left - margin_px,
        height=region.height + 2 * margin_px,
        width=region.width + 2 * margin_px,
    )
    assert patches_of(region, extent, margin_px) == patches_of(wider, extent)


@given(TILES, st.sampled_from([PLANE, SCROLL, Extent("picture", 6, 1024, 2048)]))
def test_tile_pyramids_nest(tile: Tile, extent: Extent) -> None:
    """A tile covers just what four tiles of the next level cover."""
    level, top, left, height, width, frame = tile_region(tile, extent)
    under = Region(level + 1, 2 * top, 2 * left, 2 * height, 2 * width, frame)
    assert list(tiles_of(under, extent)) == [
        Tile(tile.level + 1, 2 * tile.row + down, 2 * tile.col + right, frame)
        for down in (0, 1)
        for right in (0, 1)
    ]


@pytest.mark.parametrize("level", range(MAX_LEVEL + 1))
def test_tiles_are_shifted_along_endless_axes_only(level: int) -> None:
    shift = 85 * 2**level
    regions = [tile_region(Tile(level, 0, 0), one) for one in (PLANE, SCROLL, PICTURE)]
    assert [(one.top, one.left) for one in regions] == [(shift, shift), (0, shift), (0, 0)]


@given(TILES)
def test_plane_tile_and_its_margin_lie_in_four_patches(tile: Tile) -> None:
    patches = window_patches(tile, PLANE, F, RADIUS_TOK)
    first = patches[0]
    assert patches == [
        first._replace(row=first.row + down, col=first.col + right)
        for down in (0, 1)
        for right in (0, 1)
    ]


@given(TILES, EXTENTS, st.sampled_from([(8, 4), (16, 4), (16, 0), (32, 2)]))
def test_window_holds_the_tile_and_its_margin(
    tile: Tile, extent: Extent, shape: tuple[int, int]
) -> None:
    """``radius_tok`` whole tokens stand beside the tokens that the tile touches, on every side."""
    f, radius_tok = shape
    window, region = tile_window(tile, extent, f, radius_tok), tile_region(tile, extent)
    for first, inner, start in (
        (window.row_tok, window.top_px, region.top),
        (window.col_tok, window.left_px, region.left),
    ):
        assert first * f + inner == start
        assert inner // f == radius_tok
        assert (inner + TILE_PX - 1) // f + radius_tok < window.side_tok
    assert window.side_tok == tile_window(Tile(0, 0, 0), PLANE, f, radius_tok).side_tok


@given(TILES, st.sampled_from([SCROLL, PICTURE]), st.integers(0, 2), st.integers(0, 2))
def test_window_patches_hold_every_token_of_the_window(
    tile: Tile, extent: Extent, level: int, row: int
) -> None:
    tile = tile._replace(level=level, row=row, col=tile.col % 7)
    window = tile_window(tile, extent, F, RADIUS_TOK)
    side, size = PATCH_PX // F, window.side_tok
    inside = extent.inside(level, window.row_tok, window.col_tok, (size, size), F)
    held = {
        Patch(level, tile.frame, (window.row_tok + down) // side, (window.col_tok + right) // side)
        for down, right in zip(*np.nonzero(inside), strict=True)
    }
    patches = window_patches(tile, extent, F, RADIUS_TOK)
    assert held <= set(patches)
    assert all(extent.contains(patch) for patch in patches)


def test_xyz_of_the_first_tile() -> None:
    assert tile_to_xyz(Tile(0, 0, 0)) == (8192, 8192, 14)
    assert tile_to_xyz(Tile(2, -1, 3)) == (2**15 + 3, 2**15 - 1, 16)


@given(st.data(), LEVELS)
def test_xyz_round_trip(data: st.DataObject, level: int) -> None:
    zoom = ROOT_ZOOM + level
    numbers = st.integers(0, 2**zoom - 1)
    x, y = data.draw(numbers), data.draw(numbers)
    tile = xyz_to_tile(x, y, zoom)
    assert tile.level == level
    assert tile_to_xyz(tile) == (x, y, zoom)


@given(st.data(), st.integers(0, MAX_LEVEL - 1))
def test_xyz_pyramids_nest(data: st.DataObject, level: int) -> None:
    """As Web-Mercator's do, so that a map viewer's overzoom shows the right place."""
    half = 2 ** (ROOT_ZOOM + level - 1)
    row, col = (data.draw(st.integers(-half, half - 1)) for _ in range(2))
    x, y, z = tile_to_xyz(Tile(level, row, col))
    for down in (0, 1):
        for right in (0, 1):
            child = Tile(level + 1, 2 * row + down, 2 * col + right)
            assert tile_to_xyz(child) == (2 * x + right, 2 * y + down, z + 1)


@pytest.mark.parametrize("level", range(MAX_LEVEL + 1))
def test_xyz_refuses_what_lies_outside_the_world(level: int) -> None:
    zoom, half = ROOT_ZOOM + level, 2 ** (ROOT_ZOOM + level - 1)
    assert xyz_to_tile(0, 2**zoom - 1, zoom) == Tile(level, half - 1, -half)
    for x, y in ((-1, 0), (0, -1), (2**zoom, 0), (0, 2**zoom)):
        with pytest.raises(InvalidRequest, match=f"0 to {2**zoom - 1}"):
            xyz_to_tile(x, y, zoom)
    for row, col in ((half, 0), (0, half), (-half - 1, 0), (0, -half - 1)):
        with pytest.raises(InvalidRequest, match="outside the world"):
            tile_to_xyz(Tile(level, row, col))


def test_xyz_refuses_zooms_and_levels_that_are_not_served() -> None:
    for zoom in (ROOT_ZOOM - 1, ROOT_ZOOM + MAX_LEVEL + 1, 0, -3):
        with pytest.raises(InvalidRequest, match="zoom"):
            xyz_to_tile(0, 0, zoom)
    for level in (-1, MAX_LEVEL + 1):
        with pytest.raises(InvalidRequest, match="level"):
            tile_to_xyz(Tile(level, 0, 0))
