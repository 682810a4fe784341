"""Tiles of a canvas in one file: a PMTiles archive (version 3), for map clients.

It holds the tiles of a region as the gateway serves them, at the same ``z/x/y``, and those that one
sees when zooming out from there to the coarsest level. Its directory stands at the front, so that
an archive is written when the sizes of all tiles are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import mercantile
from pmtiles.tile import Compression, Entry, TileType, zxy_to_tileid
from pmtiles.writer import finalize_header

from handscroll.canvas import Canvas
from handscroll.geometry import ROOT_ZOOM, Extent, Region, Tile, cell_of, tile_to_xyz, tiles_of

_E7 = 10**7


def levels_of(region: Region, extent: Extent) -> list[tuple[int, range, range]]:
    """Level, rows and columns of the tiles that a region's archive holds, the coarsest first.

    Tile pyramids nest: what lies over a tile is a tile of the level above.
    """
    bottom, right = region.top + region.height - 1, region.left + region.width - 1
    corners = (
        region._replace(height=1, width=1),
        region._replace(top=bottom, left=right, height=1, width=1),
    )
    first, last = (next(tiles_of(corner, extent)) for corner in corners)
    return [
        (
            region.level - up,
            range(cell_of(first.row, 2**up), cell_of(last.row, 2**up) + 1),
            range(cell_of(first.col, 2**up), cell_of(last.col, 2**up) + 1),
        )
        for up in range(region.level, -1, -1)
    ]


def tiles_in(region: Region, extent: Extent) -> list[Tile]:
    """The tiles of a region's archive, in its order: by zoom, and then along a Hilbert curve.

    Raises:
        InvalidRequest: the region reaches beyond the world of tiles.
    """
    tiles = [
        Tile(level, row, col, region.frame)
        for level, rows, cols in levels_of(region, extent)
        for row in rows
        for col in cols
    ]
    return sorted(tiles, key=_id)


def head_of(canvas: Canvas, region: Region, tiles: Sequence[Tile], sizes: Sequence[int]) -> bytes:
    """The archive up to its first tile; all tiles follow in their order.

    Args:
        canvas: whose tiles, as WebP.
        region: that was asked for.
        tiles: see `tiles_in`.
        sizes: of each, in bytes.
    """
    ends = list(accumulate(sizes))
    entries = [
        Entry(_id(tile), end - size, size, 1)
        for tile, size, end in zip(tiles, sizes, ends, strict=True)
    ]
    level, rows, cols = levels_of(region, canvas.extent)[-1]
    first, last = (
        mercantile.bounds(*tile_to_xyz(Tile(level, rows[at], cols[at]))) for at in (0, -1)
    )
    header = {
        "tile_type": TileType.WEBP,
        "tile_compression": Compression.NONE,
        "min_lon_e7": round(first.west * _E7),
        "max_lat_e7": round(first.north * _E7),
        "max_lon_e7": round(last.east * _E7),
        "min_lat_e7": round(last.south * _E7),
        "center_zoom": ROOT_ZOOM + level,
    }
    told = {
        "name": f"{canvas.world} {canvas.seed}",
        "description": canvas.prompt,
        "attribution": "Painted by Handscroll",
        "type": "baselayer",
    }
    parts = finalize_header(
        header, len(tiles), entries, len(tiles), told, clustered=True, tile_data_length=ends[-1]
    )
    return b"".join(parts)


def _id(tile: Tile) -> int:
    # The library folds what lies outside of the world back into it; `tile_to_xyz` refuses it.
    x, y, zoom = tile_to_xyz(tile)
    return int(zxy_to_tileid(zoom, x, y))
