"""Numbers out of URLs: one spelling each, and refusals that name what came and what was wanted."""

from __future__ import annotations

import re

from handscroll.errors import InvalidRequest
from handscroll.geometry import MAX_LEVEL, ROOT_ZOOM, Tile, xyz_to_tile

_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6})?", re.ASCII)


def whole(name: str, text: str, low: int, high: int) -> int:
    """A whole number, written without sign or leading zeros, so that a tile has one URL.

    Raises:
        InvalidRequest: it is none, or out of its range.
    """
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise InvalidRequest(f"{name} must be a whole number {low} to {high}, not {text!r:.40}")
    return int(text)


def seconds(name: str, text: str, high: float) -> float:
    """A time in seconds, decimals allowed.

    Raises:
        InvalidRequest: it is none, or out of its range.
    """
    if not _SECONDS.fullmatch(text) or float(text) > high:
        raise InvalidRequest(f"{name} must be 0 to {high:g} seconds, not {text!r:.40}")
    return float(text)


def zoom(text: str) -> int:
    """A zoom that can hold tiles.

    Raises:
        InvalidRequest: there are none at such a zoom.
    """
    return whole("z", text, ROOT_ZOOM, ROOT_ZOOM + MAX_LEVEL)


def tile(z: str, x: str, y: str) -> Tile:
    """The tile that three pieces of a path name. The world has an edge: x does not wrap.

    Raises:
        InvalidRequest: no tile has such a name.
    """
    level = zoom(z)
    last = 2**level - 1
    return xyz_to_tile(whole("x", x, 0, last), whole("y", y, 0, last), level)
