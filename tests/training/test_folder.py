"""Laws of `training.folder`: whatever their sizes, pictures are brought to fill their world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from handscroll.errors import InvalidRequest
from handscroll.geometry import PATCH_PX, Extent
from training import encode
from training.folder import MOST_GIVEN_PX, MOST_PX, WorldKind, extents, fitted, least, look
from training.pictures import FEW, Picture, load, pyramid

KINDS: tuple[WorldKind, ...] = ("scroll", "plane")


def put(folder: Path, name: str, width: int, height: int) -> None:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (width, height), "teal").save(folder / name)


def levels(folder: Path, kind: WorldKind) -> tuple[int, list[str]]:
    """The finest level of a folder's world, and what was told."""
    told: list[str] = []
    return look(folder, kind, told.append).extent.finest, told


@pytest.mark.parametrize(
    ("kind", "width", "height", "finest"),
    [
        ("plane", 1024, 1024, 2),
        ("plane", 3000, 900, 1),
        ("plane", 512, 512, 1),
        ("plane", 300, 260, 0),
        ("scroll", 1440, 720, 2),
        ("scroll", 1280, 960, 2),
        ("scroll", 600, 400, 1),
        ("scroll", 256, 176, 0),
    ],
)
def test_a_world_has_the_levels_that_its_pictures_hold(
    tmp_path: Path, kind: WorldKind, width: int, height: int, finest: int
) -> None:
    for number in range(3):
        put(tmp_path, f"{number}.png", width, height)
    assert levels(tmp_path, kind) == (finest, [])
    extent = {picture.extent for picture in load(tmp_path, "mine", kind)}
    assert extent == {extents(kind)[2 - finest]}


def test_a_few_small_pictures_are_enlarged_or_left_out_by_name(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f"large{number}.png", 1100, 1100)
    put(tmp_path, "small.jpg", 600, 700)
    put(tmp_path, "tiny.webp", 100, 80)
    (tmp_path / "torn.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    assert levels(tmp_path, "plane") == (
        2,
        [
            "left out torn.jpg: a picture must be a PNG, JPEG or WEBP file; this is none",
            "enlarged small.jpg, 600 x 700 px, 1.7 times",
            "left out tiny.webp: 100 x 80 px would have to be enlarged 12.8 times",
        ],
    )
    found = {one.name: one.levels[-1].shape[:2] for one in load(tmp_path, "mine")}
    assert found == dict.fromkeys(("large0", "large1", "large2"), (1088, 1088)) | {
        "small": (1152, 1024)
    }


def test_a_picture_larger_than_may_be_decoded_is_left_out_by_name(tmp_path: Path) -> None:
    put(tmp_path, "one.png", 300, 300)
    put(tmp_path, "long.png", MOST_GIVEN_PX + 1, 1)
    (told,) = levels(tmp_path, "plane")[1]
    assert told.startswith("left out long.png: ") and str(MOST_GIVEN_PX) in told


def test_an_upright_picture_is_cut_by_a_scroll_and_that_is_told(tmp_path: Path) -> None:
    put(tmp_path, "tall.png", 1100, 1500)
    finest, told = levels(tmp_path, "scroll")
    assert (finest, told) == (
        2,
        ["cut tall.png, 1100 x 1500 px, to the middle 50% of its height: a scroll is wide"],
    )


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no folder"):
        look(tmp_path / "nothing", "scroll", print)
    with pytest.raises(InvalidRequest, match=r"no pictures \(.jpeg, .jpg, .png, .webp\) in"):
        look(tmp_path, "scroll", print)
    put(tmp_path, "tiny.png", 30, 30)
    with pytest.raises(InvalidRequest, match="none of the 1 pictures .* a scroll takes 256 x 176"):
        look(tmp_path, "scroll", print)


def test_captions_are_read_by_file_and_their_mistakes_are_told(tmp_path: Path) -> None:
    put(tmp_path, "sea.png", 300, 300)
    put(tmp_path, "sea.jpg", 300, 300)
    captions = tmp_path / "captions.csv"
    captions.write_text('file,caption\nsea.jpg,"grey sea, no wind"\nhill.png,a hill\n')
    assert levels(tmp_path, "plane")[1] == [
        "captions.csv has a caption for hill.png, and there is no such picture"
    ]
    assert [one.caption for one in load(tmp_path, "mine")] == ["grey sea, no wind", ""]
    captions.write_text("sea.jpg,grey sea\n")
    with pytest.raises(InvalidRequest, match="must begin with the line file,caption"):
        look(tmp_path, "plane", print)
    captions.write_text(f"file,caption\nsea.jpg,{'sea ' * 600}\n")
    with pytest.raises(InvalidRequest, match="may have 2000 characters, that of sea.jpg has 2399"):
        look(tmp_path, "plane", print)


def test_of_few_pictures_none_is_held_out_and_of_many_a_tenth(tmp_path: Path) -> None:
    for number in range(FEW):
        put(tmp_path, f"mountain{number}.png", 256, 256)
    everything = load(tmp_path, "mine")
    assert {"mountain3", "mountain15"} <= {one.name for one in everything if one.held_out}
    (tmp_path / "mountain0.png").unlink()
    assert not any(one.held_out for one in load(tmp_path, "mine"))


@given(
    st.sampled_from([(kind, extent) for kind in KINDS for extent in extents(kind)]),
    st.integers(150, 2400),
    st.integers(150, 2400),
)
def test_every_variant_of_a_fitted_picture_has_room_for_a_patch_at_level_0(
    world: tuple[WorldKind, Extent], height: int, width: int
) -> None:
    kind, extent = world
    image = fitted(np.zeros((height, width, 3), np.uint8), extent)
    tall, wide = least(extent)
    assert image.height >= tall and image.width >= wide
    assert extent.height_px in (None, image.height)
    assert extent.height_px or min(image.size) <= max(MOST_PX, PATCH_PX << extent.finest)
    picture = Picture("it", "mine", False, pyramid(image, extent.finest + 1), kind=kind)
    assert picture.extent == extent
    for variant in encode.variants(picture):
        assert len(variant.levels) == extent.finest + 1
        for level, pixels in enumerate(variant.levels):
            assert all(size % 16 == 0 for size in pixels.shape[:2])
            assert pixels.shape[1] >= PATCH_PX << level
            assert pixels.shape[0] >= (extent.size(level)[0] or PATCH_PX << level)
