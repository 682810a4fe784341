"""TileJSON 3.0: a canvas as map clients want it described."""

from __future__ import annotations

from typing import Any

import mercantile

from handscroll.canvas import Canvas
from handscroll.geometry import ROOT_ZOOM, TILE_PX, Extent

# Where something ends is told through the middle of its last pixel, so that no client's rounding
# asks for the row of tiles beyond. Half a pixel is a tile of the world this many zooms further in.
_HALF_PX = (2 * TILE_PX).bit_length() - 1


def tilejson(canvas: Canvas, base: str) -> dict[str, Any]:
    """The description of a canvas.

    Args:
        canvas: which.
        base: URL that the gateway is reached at, without a slash at its end.
    """
    west, south, east, north = _bounds(canvas.extent)
    finest = ROOT_ZOOM + canvas.extent.finest
    return {
        "tilejson": "3.0.0",
        "name": f"{canvas.world} {canvas.seed}",
        "description": canvas.prompt,
        "attribution": "Painted by Handscroll",
        "scheme": "xyz",
        "tiles": [f"{base}/tiles/{canvas.id}/{{z}}/{{x}}/{{y}}.webp"],
        "minzoom": ROOT_ZOOM,
        "maxzoom": finest,
        "bounds": [west, south, east, north],
        "frames": canvas.frames,
        "center": [(west + east) / 2, (south + north) / 2, finest],
    }


def _bounds(extent: Extent) -> tuple[float, float, float, float]:
    """West, south, east and north in degrees; where there is no end, that of Web Mercator."""
    world = mercantile.bounds(0, 0, 0)
    zoom = ROOT_ZOOM + extent.finest + _HALF_PX
    middle = 2 ** (zoom - 1)
    first = mercantile.ul(middle + 1, middle + 1, zoom)
    west, south, east, north = world
    if extent.height_px is not None:
        last = mercantile.ul(middle, middle + 2 * extent.height_px - 1, zoom)
        north, south = first.lat, last.lat
    if extent.width_px is not None:
        last = mercantile.ul(middle + 2 * extent.width_px - 1, middle, zoom)
        west, east = first.lng, last.lng
    return west, south, east, north
