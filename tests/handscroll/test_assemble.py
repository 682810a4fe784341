"""The laws of `handscroll.assemble`: a window is what stands there, a strip what was painted."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from handscroll.assemble import Pixels, strips, window_codes
from handscroll.context import Codes
from handscroll.geometry import (
    TILE_PX,
    Extent,
    Patch,
    Region,
    Tile,
    tile_region,
    window_patches,
)

SIDE, F, RADIUS_TOK = 16, 16, 4
PLANE = Extent("plane", 6)
SCROLL = Extent("scroll", 2, 704)
PICTURE = Extent("picture", 2, 704, 1216)
FAR = st.integers(-(10**12), 10**12)


def painted(rows: NDArray[np.int64], cols: NDArray[np.int64], level: int) -> NDArray[np.uint8]:
    """Three bytes that tell a place of a level apart from others: (rows, cols, 3)."""
    down, right = rows[:, None], cols[None, :]
    mixed = down * 7919 + right * 104729 + level * 1299709
    return np.stack([down + 0 * right, right + 0 * down, mixed % 251], -1).astype(np.uint8)


def codes_of(patch: Patch) -> Codes:
    """Codes that say which token of the canvas they are."""
    rows, cols = (np.arange(SIDE) + index * SIDE for index in (patch.row, patch.col))
    return painted(rows, cols, patch.level)


@st.composite
def tiles(draw: st.DrawFn) -> tuple[Tile, Extent]:
    """Tiles that lie in their canvas, in part at least."""
    extent = draw(st.sampled_from([PLANE, SCROLL, PICTURE]))
    level = draw(st.integers(0, extent.finest))
    row, col = (
        draw(FAR if size is None else st.integers(0, (size - 1) // TILE_PX))
        for size in extent.size(level)
    )
    return Tile(level, row, col), extent


@given(tiles())
def test_window_codes_are_those_of_their_places(case: tuple[Tile, Extent]) -> None:
    """Every token of the window inside the canvas, from its own patch and place in it."""
    tile, extent = case
    read: list[Patch] = []

    def reading(patch: Patch) -> Codes:
        read.append(patch)
        return codes_of(patch)

    codes, inside, window = window_codes(tile, extent, SIDE, RADIUS_TOK, reading)
    size = window.side_tok
    assert codes.shape == (size, size, 3) and codes.dtype == np.uint8
    np.testing.assert_array_equal(
        inside, extent.inside(tile.level, window.row_tok, window.col_tok, (size, size), F)
    )
    rows, cols = (np.arange(size) + first for first in (window.row_tok, window.col_tok))
    expected = painted(rows, cols, tile.level)
    np.testing.assert_array_equal(codes[inside], expected[inside])
    assert read == window_patches(tile, extent, F, RADIUS_TOK)


@given(tiles())
def test_window_of_a_tile_is_cut_where_the_tile_is(case: tuple[Tile, Extent]) -> None:
    tile, extent = case
    _, inside, window = window_codes(tile, extent, SIDE, RADIUS_TOK, codes_of)
    region = tile_region(tile, extent)
    assert window.row_tok * F + window.top_px == region.top
    assert window.col_tok * F + window.left_px == region.left
    # Some of the tile lies in the canvas, and the window's middle is that part.
    first = window.top_px // F, window.left_px // F
    assert inside[first]


def paint(tiles: list[Tile], extent: Extent) -> list[Pixels]:
    """Pictures of tiles that say which pixel of the canvas each is."""
    corners = [tile_region(tile, extent) for tile in tiles]
    span = np.arange(TILE_PX)
    return [painted(span + one.top, span + one.left, one.level) for one in corners]


STARTS = st.integers(-700, 700) | FAR


@settings(max_examples=40)
@given(
    st.builds(Region, st.integers(0, 6), STARTS, STARTS, st.integers(1, 700), st.integers(1, 700)),
    st.sampled_from([PLANE, SCROLL, PICTURE]),
)
def test_strips_are_the_region(region: Region, extent: Extent) -> None:
    """Each pixel of it in its place, no other, from top to bottom."""
    region = region._replace(level=min(region.level, extent.finest))
    found = list(strips(region, extent, lambda tiles: paint(tiles, extent)))
    assert all(one.shape[1:] == (region.width, 3) and len(one) > 0 for one in found)
    rows = np.arange(region.top, region.top + region.height)
    cols = np.arange(region.left, region.left + region.width)
    np.testing.assert_array_equal(np.concatenate(found), painted(rows, cols, region.level))


def test_strips_ask_for_one_row_of_tiles_at_a_time() -> None:
    """Each tile once, and none before the strips above it are taken."""
    asked: list[list[Tile]] = []

    def asking(tiles: list[Tile]) -> list[Pixels]:
        asked.append(tiles)
        return paint(tiles, PLANE)

    strips_of = strips(Region(1, -300, -300, 600, 600), PLANE, asking)
    assert asked == []
    for count in (1, 2, 3, 4):
        next(strips_of, None)
        assert len(asked) == min(count, 3)
    assert all(len({tile.row for tile in row}) == 1 for row in asked)
    flat = [tile for row in asked for tile in row]
    assert flat == sorted(set(flat))


def test_window_over_a_scrolls_edge_is_outside_there() -> None:
    """At level 0, 176 px high, 11 of the 25 rows of tokens are inside."""
    _, inside, window = window_codes(Tile(0, 0, 3), SCROLL, SIDE, RADIUS_TOK, codes_of)
    assert window.side_tok == 25
    assert sorted(set(np.nonzero(inside)[0].tolist())) == list(range(4, 15))
    assert inside[4:15].all()
