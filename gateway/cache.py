"""Tiles kept in memory, the least recently used given up first."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import NamedTuple

from prometheus_client import Gauge

from svckit.keys import TileFormat

# What Python keeps around a picture: key, headers, the dictionary's slot.
OVERHEAD_BYTES = 1200

_HELD = Gauge("handscroll_gateway_cache_bytes", "Memory that holds tiles")
_MEDIA = {"webp": b"image/webp", "png": b"image/png", "jpg": b"image/jpeg"}
# A canvas id pins model and spec, so what it shows never changes.
FOREVER = b"public, max-age=31536000, immutable"

Headers = list[tuple[bytes, bytes]]


class Picture(NamedTuple):
    """An encoded tile, ready to be sent.

    Attributes:
        body: the bytes.
        etag: names them; strong.
        headers: of an answer with a body.
        unchanged: headers of an answer that says that the client has it already.
    """

    body: bytes
    etag: bytes
    headers: Headers
    unchanged: Headers


def picture(body: bytes, format: TileFormat) -> Picture:
    """A tile's bytes with everything that is said about them."""
    etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
    unchanged = [(b"etag", etag), (b"cache-control", FOREVER)]
    content = [(b"content-type", _MEDIA[format]), (b"content-length", b"%d" % len(body))]
    return Picture(body, etag, content + unchanged, unchanged)


class Memory:
    """Pictures by path, bounded by the bytes they take.

    Attributes:
        limit_bytes: how many.
        held_bytes: how many there are.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.held_bytes = limit_bytes, 0
        self._pictures: OrderedDict[str, Picture] = OrderedDict()

    def get(self, path: str) -> Picture | None:
        """The picture at a path, if it is here."""
        found = self._pictures.get(path)
        if found is not None:
            self._pictures.move_to_end(path)
        return found

    def put(self, path: str, picture: Picture) -> None:
        """Keep a picture, unless it is larger than all the room there is."""
        self._forget(path)
        if _size(picture) > self.limit_bytes:
            return
        self._pictures[path] = picture
        self.held_bytes += _size(picture)
        while self.held_bytes > self.limit_bytes:
            self._forget(next(iter(self._pictures)))
        _HELD.set(self.held_bytes)

    def forget_all(self, prefix: str) -> None:
        """Give up every picture whose path begins like this."""
        for path in [path for path in self._pictures if path.startswith(prefix)]:
            self._forget(path)
        _HELD.set(self.held_bytes)

    def _forget(self, path: str) -> None:
        gone = self._pictures.pop(path, None)
        if gone is not None:
            self.held_bytes -= _size(gone)


def _size(picture: Picture) -> int:
    return len(picture.body) + OVERHEAD_BYTES
