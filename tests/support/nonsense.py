"""Files that may be taken for pictures, and what is said of each, whichever door they come by."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from handscroll.picture import MAX_FILE_BYTES

_NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (128, 192, 3), np.uint8))
_CUT, _NONE = "the picture cannot be read", "must be a PNG, JPEG or WEBP file; this is none"


def _saved(format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    _NOISE.save(file, format, **options)
    return file.getvalue()


def _claiming(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


_TURNED = [_NOISE.rotate(90)]
FILES = {
    "nothing": (b"", _NONE),
    "words": (b"<svg/>", _NONE),
    "a GIF": (_saved("GIF"), _NONE),
    "a TIFF": (_saved("TIFF"), _NONE),
    "a PNG without an area": (_claiming(0, 5), _NONE),
    "half a PNG": (_saved("PNG")[:900], _CUT),
    "half a JPEG": (_saved("JPEG")[:900], _CUT),
    "half a WebP": (_saved("WEBP")[:900], _CUT),
    "81 million pixels": (_claiming(9000, 9000), "picture"),
    "2^62 pixels": (_claiming(2**31 - 1, 2**31 - 1), "picture"),
    "an animated PNG": (_saved("PNG", save_all=True, append_images=_TURNED), "not an animation"),
    "an animated WebP": (_saved("WEBP", save_all=True, append_images=_TURNED), "not an animation"),
    "a large file": (bytes(MAX_FILE_BYTES + 1), f"{MAX_FILE_BYTES} bytes"),
}
"""Content, and words of the refusal."""
