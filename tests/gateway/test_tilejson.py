"""TileJSON, and that its bounds name the tiles there are."""

import math

import mercantile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tilejson import tilejson
from handscroll.canvas import Canvas
from handscroll.geometry import ROOT_ZOOM, Extent, Tile, tile_to_xyz
from svckit.specs import shows
from tests.gateway.conftest import Stack


def test_tilejson_describes_the_canvas(stack: Stack) -> None:
    canvas = stack.canvas("scroll", prompt="<b>mist</b>")
    answer = stack.get(f"/canvases/{canvas.id}/tilejson.json")
    told = answer.json()
    assert told["tilejson"] == "3.0.0"
    assert told["tiles"] == [f"{stack.url}/tiles/{canvas.id}/{{z}}/{{x}}/{{y}}.webp"]
    assert (told["minzoom"], told["maxzoom"], told["scheme"]) == (14, 16, "xyz")
    assert told["description"] == "<b>mist</b>"
    west, south, east, north = told["bounds"]
    assert (west, east) == (-180, 180)
    assert -1e-4 < north <= 0 and south < north
    longitude, latitude, zoom = told["center"]
    assert west <= longitude <= east and south < latitude < north and 14 <= zoom <= 16


def test_plane_is_the_whole_world() -> None:
    told = tilejson(Canvas("m", "w", 1, Extent("plane", 3)), "")
    assert told["bounds"] == list(mercantile.bounds(0, 0, 0))


@st.composite
def bounded(draw: st.DrawFn) -> Canvas:
    """A scroll or a picture."""
    finest = draw(st.integers(0, 6))
    height, width = (16 * 2**finest * draw(st.integers(1, 80)) for _ in range(2))
    scroll = draw(st.booleans())
    extent = Extent("scroll" if scroll else "picture", finest, height, None if scroll else width)
    return Canvas("m", "w", 1, extent)


def _rows_and_columns(canvas: Canvas, level: int) -> tuple[set[int], set[int]]:
    height, width = canvas.extent.size(level)
    sizes = [math.ceil(size / 256) if size else 1 for size in (height, width)]
    x, y, _ = tile_to_xyz(Tile(level, 0, 0))
    return set(range(y, y + sizes[0])), set(range(x, x + sizes[1]))


@given(canvas=bounded())
def test_bounds_cover_the_tiles_that_show_something(canvas: Canvas) -> None:
    west, south, east, north = tilejson(canvas, "")["bounds"]
    for level in range(canvas.extent.finest + 1):
        zoom = ROOT_ZOOM + level
        first = mercantile.tile(west, north, zoom)
        last = mercantile.tile(east, south, zoom)
        rows, columns = _rows_and_columns(canvas, level)
        assert set(range(first.y, last.y + 1)) == rows
        if canvas.extent.width_px is not None:
            assert set(range(first.x, last.x + 1)) == columns
        corners = [Tile(level, row, 0) for row in (-1, 0, len(rows) - 1, len(rows))]
        assert [shows(canvas, tile) for tile in corners] == [False, True, True, False]


@pytest.mark.parametrize("canvas", [Canvas("m", "w", 1, Extent("plane", 2))])
def test_beyond_the_finest_level_nothing_shows(canvas: Canvas) -> None:
    assert shows(canvas, Tile(2, 10**5, -(10**5)))
    assert not shows(canvas, Tile(3, 0, 0))
