"""Numbers out of URLs and headers: one spelling each, and refusals that name what was wanted."""

from __future__ import annotations

import re

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from handscroll.errors import InvalidRequest
from handscroll.geometry import MAX_LEVEL, ROOT_ZOOM, Tile, xyz_to_tile

MAX_PAGE = 1000

_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6})?", re.ASCII)


def whole(name: str, text: str, low: int, high: int) -> int:
    """A whole number, written without sign or leading zeros, so that a tile has one URL.

    Raises:
        InvalidRequest: it is none, or out of its range.
    """
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise InvalidRequest(f"{name} must be a whole number {low} to {high}, not {text!r:.40}")
    return int(text)


def page(query: QueryParams) -> tuple[int, str]:
    """How many things a page may show, 0 for as many as usual, and where the last page ended.

    Raises:
        InvalidRequest: a page cannot have so many.
    """
    size = whole("page_size", query.get("page_size", "0"), 0, MAX_PAGE)
    return size, query.get("page_token", "")


def seconds(name: str, text: str, high: float) -> float:
    """A time in seconds, decimals allowed.

    Raises:
        InvalidRequest: it is none, or out of its range.
    """
    if not _SECONDS.fullmatch(text) or float(text) > high:
        raise InvalidRequest(f"{name} must be 0 to {high:g} seconds, not {text!r:.40}")
    return float(text)


def byte_range(text: str, size: int) -> tuple[int, int] | None:
    """The bytes that a header Range asks for, from the first up to the second.

    Args:
        text: the header; empty if none came.
        size: how many bytes there are.

    Returns:
        None where all are to be sent: to whatever is not one range, RFC 9110 lets us.

    Raises:
        HTTPException: there are no such bytes.
    """
    found = _RANGE.fullmatch(text.replace(" ", ""))
    if found is None or found[1] == found[2] == "":
        return None
    if found[1]:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    else:
        start, end = max(0, size - int(found[2])), size
    if start >= end:
        raise HTTPException(
            416,
            f"there are {size} bytes, none of them in {text!r:.60}",
            {"Content-Range": f"bytes */{size}"},
        )
    return start, end


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
