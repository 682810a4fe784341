"""The laws of `handscroll.archive`: the standard reader finds a region's tiles, and no others."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pmtiles.reader import MemorySource, Reader, all_tiles
from pmtiles.tile import zxy_to_tileid

from handscroll.archive import head_of, levels_of, tiles_in
from handscroll.canvas import Canvas
from handscroll.errors import InvalidRequest
from handscroll.geometry import (
    MAX_LEVEL,
    ROOT_ZOOM,
    TILE_PX,
    Extent,
    Region,
    Tile,
    tile_region,
    tile_to_xyz,
    tiles_of,
)

PLANE = Extent("plane", MAX_LEVEL)
SCROLL = Extent("scroll", 2, 704)
PICTURE = Extent("picture", 2, 704, 1216)


@st.composite
def places(draw: st.DrawFn) -> tuple[Region, Extent]:
    """Regions in a canvas, near its middle and near the edges of the world."""
    extent = draw(st.sampled_from([PLANE, SCROLL, PICTURE]))
    level = draw(st.integers(0, extent.finest))
    edge = 2 ** (ROOT_ZOOM + level - 1) * TILE_PX
    starts, lengths = [], []
    for size, shift in zip(extent.size(level), extent.shift_px(level), strict=True):
        length = draw(st.integers(1, min(900, size or 900)))
        low, high = (0, size - length) if size else (shift - edge, edge + shift - length)
        near = st.integers(low, high) | st.sampled_from([low, high])
        near |= st.integers(max(low, -900), min(high, 900))
        starts.append(draw(near))
        lengths.append(length)
    return Region(level, starts[0], starts[1], lengths[0], lengths[1]), extent


def canvas_of(extent: Extent) -> Canvas:
    return Canvas("ab" * 32, "planet", 7, extent, "islands")


@given(places())
@settings(max_examples=60)
def test_archive_holds_what_one_sees_when_zooming_out(case: tuple[Region, Extent]) -> None:
    region, extent = case
    tiles = tiles_in(region, extent)
    assert len(set(tiles)) == len(tiles)
    for level, rows, cols in levels_of(region, extent):
        of_level = {tile for tile in tiles if tile.level == level}
        assert of_level == {Tile(level, row, col) for row in rows for col in cols}
    finest = {tile for tile in tiles if tile.level == region.level}
    assert finest == set(tiles_of(region, extent))
    # Each tile above the finest lies over some below, and covers the whole of those it lies over.
    for tile in tiles:
        if tile.level:
            _, top, left, _, _, _ = tile_region(tile, extent)
            above = Tile(tile.level - 1, tile.row // 2, tile.col // 2)
            over = tile_region(above, extent)
            assert above in tiles
            assert over.top <= top / 2 < over.top + TILE_PX
            assert over.left <= left / 2 < over.left + TILE_PX


@given(places())
@settings(max_examples=60)
def test_reader_finds_each_tile_at_its_place(case: tuple[Region, Extent]) -> None:
    region, extent = case
    tiles = tiles_in(region, extent)
    images = {tile_to_xyz(tile): f"{tile}".encode() for tile in tiles}
    ids = [zxy_to_tileid(z, x, y) for x, y, z in images]
    assert ids == sorted(ids)  # as it says of itself, so that neighbours are read together
    head = head_of(canvas_of(extent), region, tiles, [len(one) for one in images.values()])
    content = head + b"".join(images.values())
    reader = Reader(MemorySource(content))
    for (x, y, z), image in images.items():
        assert reader.get(z, x, y) == image
    found = {(x, y, z): image for (z, x, y), image in all_tiles(MemorySource(content))}
    assert found == images
    header = reader.header()
    assert (header["min_zoom"], header["max_zoom"]) == (ROOT_ZOOM, ROOT_ZOOM + region.level)
    assert header["clustered"] and header["tile_data_offset"] == len(head)
    assert -1_800_000_000 <= header["min_lon_e7"] < header["max_lon_e7"] <= 1_800_000_000
    assert header["min_lat_e7"] < header["max_lat_e7"]
    assert reader.metadata()["description"] == "islands"


def test_archive_of_many_tiles_keeps_its_root_in_front() -> None:
    """The root directory must lie in the first 16 KiB; what has no room goes into leaves."""
    region = Region(6, -(2**20), 3 * 2**20, 200 * TILE_PX, 200 * TILE_PX)
    tiles = tiles_in(region, PLANE)
    sizes = [10_000 + hash(tile) % 9_000 for tile in tiles]
    head = head_of(canvas_of(PLANE), region, tiles, sizes)
    header = Reader(MemorySource(head)).header()
    assert header["root_offset"] + header["root_length"] <= 2**14
    assert header["leaf_directory_length"] > 0
    assert header["tile_data_length"] == sum(sizes)
    read: list[int] = []

    def reading(start: int, length: int) -> bytes:
        read.append(start)
        return (head + bytes(2**22))[start : start + length]

    reader = Reader(reading)
    for number in (0, len(tiles) // 2, len(tiles) - 1):
        x, y, z = tile_to_xyz(tiles[number])
        reader.get(z, x, y)
        assert read[-1] == len(head) + sum(sizes[:number])


def test_same_tiles_give_the_same_bytes() -> None:
    region = Region(2, -300, -300, 600, 600)
    tiles = tiles_in(region, PLANE)
    made = [head_of(canvas_of(PLANE), region, tiles, [9] * len(tiles)) for _ in range(2)]
    assert made[0] == made[1]
    header = Reader(MemorySource(made[0])).header()
    start, length = header["metadata_offset"], header["metadata_length"]
    assert json.loads(gzip.decompress(made[0][start : start + length]))["name"] == "planet 7"


@pytest.mark.parametrize("left", [-(2**22), 2**40])
def test_region_outside_of_the_world_is_refused(left: int) -> None:
    """The library would take such a tile for one at the other end of the world."""
    with pytest.raises(InvalidRequest, match="outside the world"):
        tiles_in(Region(0, 0, left, 10, 10), PLANE)
