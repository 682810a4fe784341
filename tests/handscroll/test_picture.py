"""The laws of `handscroll.picture`: pixels as they are meant, or one sentence."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handscroll.canvas import MAX_KNOWN_PIXELS, MAX_KNOWN_PX
from handscroll.errors import InvalidRequest
from handscroll.picture import MAX_FILE_BYTES, read_picture, scaled

RGB = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """An image as a file."""
    held = io.BytesIO()
    image.save(held, format, **options)
    return held.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises much and holds nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    sized = struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(b"")
    rest = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + sized + rest


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95})]
)
def test_formats_that_are_taken(format: str, options: dict[str, Any]) -> None:
    found = read_picture(file(Image.fromarray(RGB), format, **options))
    assert found.shape == (20, 30, 3) and found.dtype == np.uint8
    if format == "JPEG":
        assert np.abs(found.mean((0, 1)) - RGB.mean((0, 1))).max() < 5
    else:
        np.testing.assert_array_equal(found, RGB)


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "CMYK", "LA", "RGBA"])
def test_all_kinds_of_colour_come_as_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray((RGB[..., 0].astype(np.uint16)) * 257)
    else:
        image = Image.fromarray(RGB).convert(mode)
    found = read_picture(file(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert found.shape == (20, 30, 3) and found.dtype == np.uint8
    if mode in ("L", "I;16", "LA"):
        grey = RGB[..., 0] if mode == "I;16" else np.asarray(Image.fromarray(RGB).convert("L"))
        np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


def test_a_jpeg_with_a_preview_is_the_picture_alone() -> None:
    """As phones make them (MPO)."""
    preview = Image.fromarray(RGB[:10, :10])
    found = read_picture(
        file(Image.fromarray(RGB), "MPO", save_all=True, append_images=[preview], quality=95)
    )
    assert found.shape == (20, 30, 3)


def test_what_is_transparent_is_white() -> None:
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, 15:] = 255
    found = read_picture(file(Image.fromarray(np.dstack((RGB, alpha)))))
    assert (found[:, :15] == 255).all()
    np.testing.assert_array_equal(found[:, 15:], RGB[:, 15:])
    palette = Image.fromarray(RGB).convert("P")
    assert (read_picture(file(palette, transparency=palette.getpixel((4, 4))))[4, 4] == 255).all()


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (0, RGB),
        (1, RGB),
        (2, RGB[:, ::-1]),
        (3, RGB[::-1, ::-1]),
        (4, RGB[::-1]),
        (5, RGB.swapaxes(0, 1)),
        (6, np.rot90(RGB, -1)),
        (7, np.rot90(RGB, -1)[:, ::-1][::-1, ::-1]),
        (8, np.rot90(RGB)),
        (9, RGB),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_pictures_stand_upright(orientation: int, turned: Any, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {
        "PNG": {},
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }
    found = read_picture(file(Image.fromarray(RGB), format, exif=exif, **options[format]))
    loss = 8 if format == "JPEG" else 0  # noise turned another way differs by 85 a pixel
    assert found.shape == turned.shape
    assert np.abs(found.astype(int) - turned).max() <= loss


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this is none"),
        (b"<svg/>", "this is none"),
        (file(Image.fromarray(RGB), "GIF"), "PNG, JPEG or WEBP file; this is none"),
        (file(Image.fromarray(RGB), "BMP"), "this is none"),
        (file(Image.fromarray(RGB), "TIFF"), "this is none"),
        (file(Image.fromarray(RGB))[:-300], "cannot be read"),
        (file(Image.fromarray(RGB), "JPEG")[:400], "cannot be read|this is none"),
        (file(Image.fromarray(RGB), "WEBP")[:100], "cannot be read|this is none"),
        (png_header(20, 30), "cannot be read"),
        (png_header(9000, 9000), "not 9000 x 9000"),
        (png_header(MAX_KNOWN_PX + 1, 1), "8192 px a side"),
        (png_header(4097, 4096), f"{MAX_KNOWN_PIXELS} in all, not 4097 x 4096"),
        (png_header(2**31 - 1, 2**31 - 1), "not 2147483647 x 2147483647|cannot be read"),
        (
            file(
                Image.fromarray(RGB),
                "WEBP",
                save_all=True,
                append_images=[Image.fromarray(255 - RGB)],
            ),
            "not an animation of 2",
        ),
        (
            file(Image.fromarray(RGB), save_all=True, append_images=[Image.fromarray(255 - RGB)]),
            "not an animation of 2",
        ),
        (bytes(MAX_FILE_BYTES + 1), f"may have {MAX_FILE_BYTES} bytes"),
    ],
)
def test_what_is_refused_is_told_why(content: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read_picture(content)


def test_a_picture_is_brought_to_a_height() -> None:
    assert scaled(RGB, 0) is RGB
    smaller = scaled(RGB, 10)
    assert smaller.shape == (10, 15, 3)
    assert np.abs(smaller.mean((0, 1)) - RGB.mean((0, 1))).max() < 3
    for height in (-1, MAX_KNOWN_PX, MAX_KNOWN_PX + 1):
        with pytest.raises(InvalidRequest, match=f"not .* x {height}"):
            scaled(RGB, height)


def tagged() -> Image.Exif:
    """What a camera writes."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "A camera", "2026:11:22 10:00:00"
    exif.get_ifd(0x8769)[0x9003] = "2026:11:22 10:00:00"
    return exif


WHOLE = [
    file(Image.fromarray(RGB)),
    file(Image.fromarray(RGB), exif=tagged()),
    file(Image.fromarray(RGB), "JPEG", exif=tagged()),
    file(Image.fromarray(RGB), "JPEG"),
    file(Image.fromarray(RGB), "WEBP"),
]


@settings(max_examples=300)
@given(st.sampled_from(WHOLE), st.data())
def test_a_broken_file_is_a_picture_or_a_sentence(content: bytes, data: st.DataObject) -> None:
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(0, len(broken)))]
    try:
        found = read_picture(bytes(broken))
    except InvalidRequest:
        return
    assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
