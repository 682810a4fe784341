"""Pictures as files: the same pixels give the same bytes.

A large picture comes in strips from top to bottom and leaves as bytes that are to be written one
after another, so that it need not be whole in memory. PNG and Deep Zoom are streamed like this;
JPEG and WebP must have all pixels before their encoders begin.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol
from zipfile import ZipFile, ZipInfo

import numpy as np
from PIL import Image

from handscroll.assemble import Pixels
from handscroll.errors import InvalidRequest
from handscroll.geometry import Extent, Tile, tile_region

StillFormat = Literal["webp", "png", "jpg"]
PictureFormat = Literal["webp", "png", "jpg", "dzi"]
LOSSY = ("webp", "jpg", "dzi")
QUALITY = 90
"""Of WebP and JPEG, unless said otherwise."""

ZOOM_TILE_PX = 256
ZOOM_NAME = "handscroll"

_MODES: dict[StillFormat, tuple[str, dict[str, Any]]] = {
    # Method 2 takes half the time of the default, and files are a few per cent larger.
    "webp": ("WEBP", {"method": 2}),
    "png": ("PNG", {"compress_level": 6}),
    "jpg": ("JPEG", {"subsampling": 0}),
}
# What the formats, or the encoders that we have of them, can hold to a side.
_LONGEST_PX = {"webp": 16_383, "png": 2**31 - 1, "jpg": 65_500, "dzi": 2**31 - 1}


def check_side(format: PictureFormat, height: int, width: int) -> None:
    """Refuse a picture that its format cannot hold.

    Raises:
        InvalidRequest: a side is too long.
    """
    longest = _LONGEST_PX[format]
    if max(height, width) > longest:
        raise InvalidRequest(
            f"a {format} picture may have {longest} px to a side, not {height} x {width} px"
        )


def encode_tile(
    rgb: Pixels, tile: Tile, extent: Extent, format: StillFormat, quality: int
) -> bytes:
    """A tile as a file; its pixels outside the canvas become transparent, or white in JPEG.

    Args:
        rgb: (TILE_PX, TILE_PX, 3).
        tile: whose they are.
        extent: of the canvas.
        format: of the file.
        quality: of WebP and JPEG, 1 to 100.
    """
    level, top, left, height, width, _ = tile_region(tile, extent)
    inside = extent.inside(level, top, left, (height, width), 1)
    whole = bool(inside.all())
    if not whole:
        rgb = np.where(inside[..., None], rgb, np.uint8(255))
    if not whole and format != "jpg":
        alpha = np.where(inside, np.uint8(255), np.uint8(0))
        rgb = np.concatenate([rgb, alpha[..., None]], axis=-1)
    return _encoded(Image.fromarray(rgb), format, quality)


class Encoder(Protocol):
    """Turns the strips of a picture into the bytes of a file."""

    def add(self, strip: Pixels) -> bytes:
        """What follows in the file, after the next rows (rows, width, 3)."""

    def end(self) -> bytes:
        """The end of the file, after all rows."""


def encoder_of(format: PictureFormat, height: int, width: int, quality: int) -> Encoder:
    """The encoder of a picture.

    Args:
        format: of the file; ``dzi`` is a Deep Zoom pyramid in a ZIP.
        height: of the picture, in pixels.
        width: the same, across.
        quality: of WebP, JPEG, and the JPEG tiles of a Deep Zoom pyramid, 1 to 100.

    Raises:
        InvalidRequest: the format cannot hold it.
    """
    check_side(format, height, width)
    if format == "png":
        return _Png(height, width)
    if format == "dzi":
        return _DeepZoom(height, width, quality)
    return _Whole(format, height, width, quality)


def encoded(encoder: Encoder, strips: Iterable[Pixels]) -> Iterator[bytes]:
    """A file in pieces, from the strips of its picture."""
    for strip in strips:
        yield encoder.add(strip)
    yield encoder.end()


class _Png:
    """PNG (ISO/IEC 15948), each row as the differences to its left (filter Sub).

    Libraries ask for rows when they want some; here rows come when they are painted.
    """

    def __init__(self, height: int, width: int) -> None:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of red, green, blue
        self._head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
        self._deflate = zlib.compressobj(6)

    def add(self, strip: Pixels) -> bytes:
        head, self._head = self._head, b""
        packed = b"".join(self._deflate.compress(_filtered(row)) for row in strip)
        return head + _chunk(b"IDAT", packed)

    def end(self) -> bytes:
        return _chunk(b"IDAT", self._deflate.flush()) + _chunk(b"IEND", b"")


def _filtered(row: Pixels) -> bytes:
    left = np.zeros_like(row)
    left[1:] = row[:-1]
    return b"\x01" + (row - left).tobytes()  # 1 is Sub


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + _crc(kind + content)


def _crc(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


class _Whole:
    """JPEG and WebP, by way of all pixels in memory: four bytes each, ten while WebP is encoded."""

    def __init__(self, format: StillFormat, height: int, width: int, quality: int) -> None:
        self._format, self._quality = format, quality
        self._image = Image.new("RGB", (width, height))
        self._top = 0

    def add(self, strip: Pixels) -> bytes:
        self._image.paste(Image.fromarray(strip), (0, self._top))
        self._top += len(strip)
        return b""

    def end(self) -> bytes:
        return _encoded(self._image, self._format, self._quality)


class _DeepZoom:
    """Deep Zoom: a pyramid of JPEG tiles without overlap, in a ZIP that compresses nothing.

    Each level is half as large as the one that it is made from, odd sides rounded up, down to a
    single pixel. The picture stays in rows of tiles: of each level one is held at a time.
    """

    def __init__(self, height: int, width: int, quality: int) -> None:
        self._zip = _Zip()
        self._height, self._quality, self._seen = height, quality, 0
        top = (max(height, width) - 1).bit_length()
        self._levels = [_Level(level) for level in range(top, -1, -1)]
        descriptor = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" Overlap="0" '
            f'TileSize="{ZOOM_TILE_PX}"><Size Width="{width}" Height="{height}"/></Image>\n'
        )
        self._zip.put(f"{ZOOM_NAME}.dzi", descriptor.encode())

    def add(self, strip: Pixels) -> bytes:
        self._seen += len(strip)
        last, rows = self._seen == self._height, strip
        for level in self._levels:
            for (row, col), tile in level.add(rows, last):
                name = f"{ZOOM_NAME}_files/{level.number}/{col}_{row}.jpg"
                self._zip.put(name, _encoded(Image.fromarray(tile), "jpg", self._quality))
            rows = level.take_halved()
            if not len(rows):
                break
        return self._zip.take()

    def end(self) -> bytes:
        self._zip.close()
        return self._zip.take()


class _Level:
    """One level of a Deep Zoom pyramid: rows come in, tiles and rows of half the size go out."""

    def __init__(self, number: int) -> None:
        self.number, self._row = number, 0
        self._rows: list[Pixels] = []
        self._halved: list[Pixels] = []

    def add(self, rows: Pixels, last: bool) -> Iterator[tuple[tuple[int, int], Pixels]]:
        """Tiles that are complete, each with its row and column."""
        self._rows.append(rows)
        if sum(map(len, self._rows)) < ZOOM_TILE_PX and not last:
            return
        held = np.concatenate(self._rows)
        while len(held) >= ZOOM_TILE_PX or (last and len(held)):
            band, held = held[:ZOOM_TILE_PX], held[ZOOM_TILE_PX:]
            lefts = range(0, band.shape[1], ZOOM_TILE_PX)
            tiles = [band[:, left : left + ZOOM_TILE_PX] for left in lefts]
            for col, tile in enumerate(tiles):
                yield (self._row, col), tile
            self._row += 1
            self._halved.append(np.concatenate([_halved(tile) for tile in tiles], axis=1))
        self._rows = [held]

    def take_halved(self) -> Pixels:
        """The rows of the next level that have come since."""
        halved, self._halved = self._halved, []
        return np.concatenate(halved) if halved else np.empty((0, 0, 3), np.uint8)


def _halved(rows: Pixels) -> Pixels:
    """Means of 2 x 2 pixels; what is odd is halved as if its last row or column came twice."""
    height, width, _ = rows.shape
    even = np.pad(rows, ((0, height % 2), (0, width % 2), (0, 0)), "edge").astype(np.uint16)
    sums = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)


class _Zip:
    """A ZIP that is taken away while it is written; the same files give the same bytes."""

    def __init__(self) -> None:
        self._pending = _Pending()
        self._zip = ZipFile(self._pending, "w")

    def put(self, name: str, content: bytes) -> None:
        entry = ZipInfo(name)  # its time is 1980, whatever the clock says
        entry.create_system = 3
        self._zip.writestr(entry, content)

    def close(self) -> None:
        self._zip.close()

    def take(self) -> bytes:
        return self._pending.take()


class _Pending:
    """The end of a file whose beginning has been taken away.

    A ZIP's writer goes back to the head of an entry when it knows how long the entry is, and never
    further, so that `take` between two entries loses nothing.
    """

    def __init__(self) -> None:
        self._held, self._taken, self._place = bytearray(), 0, 0

    def write(self, content: bytes) -> int:
        start, self._place = self._place, self._place + len(content)
        self._held[start : self._place] = content
        return len(content)

    def tell(self) -> int:
        return self._taken + self._place

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = place - self._taken
        return place

    def flush(self) -> None:
        """There is nowhere to."""

    def close(self) -> None:
        """There is nothing to."""

    def take(self) -> bytes:
        found, self._held = bytes(self._held), bytearray()
        self._taken, self._place = self._taken + len(found), 0
        return found


def _encoded(image: Image.Image, format: StillFormat, quality: int) -> bytes:
    kind, options = _MODES[format]
    file = io.BytesIO()
    image.save(file, kind, quality=quality, **options)
    return file.getvalue()
