"""Pictures that somebody gives us: what is refused, how the rest is read, and how it is kept."""

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


def scaled(pixels: Pixels, height: int) -> Pixels:
    """A picture (H, W, 3) brought to a height, its proportions kept; 0 leaves it as it is.

    Raises:
        InvalidRequest: it would be too large, or there would be nothing of it.
    """
    if not height:
        return pixels
    width = max(1, round(pixels.shape[1] * height / pixels.shape[0]))
    if not 0 < height <= MAX_KNOWN_PX or width > MAX_KNOWN_PX:
        raise InvalidRequest(
            f"a picture may have 1 to {MAX_KNOWN_PX} px a side, not {width} x {height}"
        )
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).copy()


def _check(image: Image.Image) -> None:
    width, height = image.size
    if getattr(image, "n_frames", 1) > 1:
        raise InvalidRequest(f"a picture must be a still, not an animation of {image.n_frames}")  # type: ignore[attr-defined]
    if max(width, height) > MAX_KNOWN_PX or width * height > MAX_KNOWN_PIXELS:
        raise InvalidRequest(
            f"a picture may have {MAX_KNOWN_PX} px a side and {MAX_KNOWN_PIXELS} in all, "
            f"not {width} x {height}"
        )


def to_png(pixels: Pixels) -> bytes:
    """Pixels (H, W, 3) as a file that loses nothing."""
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG", compress_level=3)
    return held.getvalue()


def from_png(content: bytes) -> Pixels:
    """The pixels (H, W, 3) of a file that `to_png` made."""
    return np.asarray(Image.open(io.BytesIO(content), formats=("PNG",))).copy()


def size_of(content: bytes) -> tuple[int, int]:
    """Height and width of a picture in a file that `to_png` made."""
    width, height = Image.open(io.BytesIO(content), formats=("PNG",)).size
    return height, width
