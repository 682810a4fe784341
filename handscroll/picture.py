"""Pictures that somebody gives us: what is refused, how the rest is read, and how it is kept."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from handscroll.assemble import Pixels
from handscroll.canvas import MAX_KNOWN_PIXELS, MAX_KNOWN_PX
from handscroll.errors import InvalidRequest

MAX_FILE_BYTES = 32 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by its EXIF orientation."""


def read_picture(
    content: bytes | bytearray, most_px: int = MAX_KNOWN_PX, most_pixels: int = MAX_KNOWN_PIXELS
) -> Pixels:
    """The pixels (H, W, 3) of a PNG, JPEG or WebP file, upright; what is transparent is white.

    Sizes are looked at before a pixel is decoded.

    Args:
        content: of the file.
        most_px: how long a side may be.
        most_pixels: how many there may be in all.

    Raises:
        InvalidRequest: another format, an animation, too large, or broken.
    """
    if len(content) > MAX_FILE_BYTES:
        raise InvalidRequest(
            f"a picture's file may have {MAX_FILE_BYTES} bytes; this one has {len(content)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a broken tag is no news, and the size is ours to limit
        return _read(content, most_px, most_pixels)


def _read(content: bytes | bytearray, most_px: int, most_pixels: int) -> Pixels:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        _check(image, most_px, most_pixels)
        upright = _upright(image)
        if upright.mode.startswith("I"):  # 16 bits of grey, which would be cut off at 255
            grey = np.asarray(upright).astype(np.int64) >> 8
            upright = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
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


def _upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF says; what is wrong in there is left alone."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever its tags may be, the pixels are still a picture
        turn = None
    return image if turn is None else image.transpose(turn)


def _check(image: Image.Image, most_px: int, most_pixels: int) -> None:
    width, height = image.size
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format in ("PNG", "WEBP"):  # a JPEG's others are previews and depths
        raise InvalidRequest(f"a picture must be a still, not an animation of {frames}")
    if max(width, height) > most_px or width * height > most_pixels:
        raise InvalidRequest(
            f"a picture may have {most_px} px a side and {most_pixels} in all, "
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
