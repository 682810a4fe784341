"""The laws of `handscroll.formats`: a file shows the pixels it was made of, in whatever strips."""

import io
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handscroll.assemble import Pixels
from handscroll.errors import InvalidRequest
from handscroll.formats import ZOOM_TILE_PX, PictureFormat, check_side, encoded, encoder_of

sides = st.integers(1, 40) | st.sampled_from([255, 256, 257, 511, 513, 700])


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Pixels, list[Pixels]]:
    """A picture, and the strips that it comes in."""
    height, width = draw(sides), draw(sides)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    # Slow colours and a little noise, as pictures have them.
    slow = rng.integers(0, 256, (2, 2, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(slow).resize((width, height))).astype(np.int16)
    whole = (smooth + rng.integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8)
    cuts = sorted(draw(st.sets(st.integers(1, height), max_size=4)) | {height})
    starts = [0, *cuts[:-1]]
    return whole, [whole[start:stop] for start, stop in zip(starts, cuts, strict=True)]


def file_of(format: PictureFormat, whole: Pixels, strips: list[Pixels], quality: int = 80) -> bytes:
    height, width, _ = whole.shape
    return b"".join(encoded(encoder_of(format, height, width, quality), strips))


def shown(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def saved(pixels: Pixels, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@given(pictures())
@settings(max_examples=40)
def test_png_shows_every_pixel_as_it_was(case: tuple[Pixels, list[Pixels]]) -> None:
    whole, strips = case
    content = file_of("png", whole, strips)
    np.testing.assert_array_equal(shown(content), whole)
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGB"


@given(pictures(), st.sampled_from([10, 80, 100]))
@settings(max_examples=20)
def test_jpeg_and_webp_are_those_of_the_whole_picture(
    case: tuple[Pixels, list[Pixels]], quality: int
) -> None:
    whole, strips = case
    assert file_of("jpg", whole, strips, quality) == saved(
        whole, "JPEG", quality=quality, subsampling=0
    )
    assert file_of("webp", whole, strips, quality) == saved(
        whole, "WEBP", quality=quality, method=2
    )


def levels(whole: Pixels) -> Iterator[Pixels]:
    """A pyramid as Deep Zoom has it, from the whole picture down to one pixel."""
    yield whole
    while max(whole.shape[:2]) > 1:
        height, width, _ = whole.shape
        wide = np.pad(whole, ((0, height % 2), (0, width % 2), (0, 0)), "edge").astype(int)
        rows, cols = wide.shape[0] // 2, wide.shape[1] // 2
        sums = wide.reshape(rows, 2, cols, 2, 3).sum((1, 3))
        whole = ((sums + 2) // 4).astype(np.uint8)
        yield whole


@given(pictures())
@settings(max_examples=30)
def test_deep_zoom_holds_all_tiles_of_all_levels(case: tuple[Pixels, list[Pixels]]) -> None:
    whole, strips = case
    pyramid = list(levels(whole))
    with zipfile.ZipFile(io.BytesIO(file_of("dzi", whole, strips))) as archive:
        assert archive.testzip() is None
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
        assert all(not one.flag_bits & 8 for one in archive.infolist())  # sizes stand in front
        told = ElementTree.fromstring(archive.read("handscroll.dzi"))
        assert (told.attrib["Format"], told.attrib["Overlap"]) == ("jpg", "0")
        assert int(told.attrib["TileSize"]) == ZOOM_TILE_PX
        (size,) = told
        height, width, _ = whole.shape
        assert (int(size.attrib["Height"]), int(size.attrib["Width"])) == (height, width)
        expected = {"handscroll.dzi"}
        for number, level in enumerate(reversed(pyramid)):
            for row, top in enumerate(range(0, level.shape[0], ZOOM_TILE_PX)):
                for col, left in enumerate(range(0, level.shape[1], ZOOM_TILE_PX)):
                    name = f"handscroll_files/{number}/{col}_{row}.jpg"
                    tile = level[top : top + ZOOM_TILE_PX, left : left + ZOOM_TILE_PX]
                    assert archive.read(name) == saved(tile, "JPEG", quality=80, subsampling=0)
                    expected.add(name)
        assert set(archive.namelist()) == expected


def entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@given(pictures(), st.sampled_from(["png", "jpg", "webp", "dzi"]))
@settings(max_examples=20)
def test_file_does_not_depend_on_the_strips(
    case: tuple[Pixels, list[Pixels]], format: PictureFormat
) -> None:
    whole, strips = case
    once, again = (file_of(format, whole, parts) for parts in ([whole], strips))
    if format == "dzi":  # its tiles are in the order in which they were complete
        assert entries(once) == entries(again)
    elif format == "png":  # it is cut into chunks where the strips end
        np.testing.assert_array_equal(shown(once), shown(again))
    else:
        assert once == again


def test_png_leaves_while_it_is_painted() -> None:
    """What was taken is not kept: the file of a large picture is never whole in memory."""
    rng = np.random.default_rng(0)
    encoder = encoder_of("png", 2048, 512, 0)
    pieces = [encoder.add(rng.integers(0, 256, (128, 512, 3), np.uint8)) for _ in range(16)]
    pieces.append(encoder.end())
    assert max(map(len, pieces)) < 2 * 128 * 512 * 3 < sum(map(len, pieces)) / 4


@pytest.mark.parametrize(
    ("format", "longest"), [("jpg", 65_500), ("webp", 16_383), ("png", 2**31 - 1)]
)
def test_side_that_a_format_cannot_hold_is_refused(format: PictureFormat, longest: int) -> None:
    check_side(format, 1, longest)
    check_side(format, longest, 1)
    for height, width in ((1, longest + 1), (longest + 1, 1)):
        with pytest.raises(InvalidRequest, match=f"{longest} px to a side, not {height} x {width}"):
            encoder_of(format, height, width, 90)


@pytest.mark.parametrize(("format", "longest"), [("jpg", 65_500), ("webp", 16_383)])
def test_longest_side_can_be_encoded(format: PictureFormat, longest: int) -> None:
    line = np.full((1, longest, 3), 77, np.uint8)
    assert shown(file_of(format, line, [line])).shape == (1, longest, 3)
