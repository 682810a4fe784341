"""A picture file that somebody gives us, as pixels: what is refused, and how the rest is read."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from handscroll.assemble import Pixels
from handscroll.canvas import MAX_KNOWN_PIXELS, MAX_KNOWN_PX
from handscroll.errors import InvalidRequest

MAX_FILE_BYTES = 32 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP")


def read_picture(content: bytes) -> Pixels:
    """The pixels (H, W, 3) of a PNG, JPEG or WebP file, upright; what is transparent is white.

    Sizes are looked at before a pixel is decoded.

    Raises:
        InvalidRequest: another format, an animation, too large, or broken.
    """
    if len(content) > MAX_FILE_BYTES:
        raise InvalidRequest(
            f"a picture's file may have {MAX_FILE_BYTES} bytes; this one has {len(content)}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the limit
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        _check(image)
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        return np.asarray(upright.convert("RGB")).copy()
    except UnidentifiedImageError:
        raise InvalidRequest(
            f"a picture must be a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file; this is none"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"the picture cannot be read: {error}") from error


def _check(image: Image.Image) -> None:
    width, height = image.size
    if getattr(image, "n_frames", 1) > 1:
        raise InvalidRequest(f"a picture must be a still, not an animation of {image.n_frames}")  # type: ignore[attr-defined]
    if max(width, height) > MAX_KNOWN_PX or width * height > MAX_KNOWN_PIXELS:
        raise InvalidRequest(
            f"a picture may have {MAX_KNOWN_PX} px a side and {MAX_KNOWN_PIXELS} in all, "
            f"not {width} x {height}"
        )
