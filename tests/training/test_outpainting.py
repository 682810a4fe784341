"""Laws of the figures of outpainting: a seam that is put in is found on its side, no other is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from numpy.typing import NDArray

from handscroll import checkpoint
from handscroll.canvas import Canvas
from handscroll.geometry import Extent, Region
from training import outpainting, pictures, samples
from training.features import Change, Lite0
from training.joins import BAND_PX, WAYS, Joins, Way, strip
from training.outpainting import CASE_PX, Case, cases, setups
from training.pictures import Picture, Pixels
from training.quality import LOOKS
from training.samples import Studio

GIVEN = Region(2, 192, 384, 320, 640)
WHOLE = Region(2, 0, 0, 704, 1408)


class Means(Lite0):
    """Features that need no network: the mean colour of each block."""

    def __init__(self) -> None:
        pass

    def look(self, blocks: Pixels, change: Change | None = None) -> NDArray[np.float32]:
        return blocks.mean(axis=(1, 2)).astype(np.float32)


def noise(seed: int, height: int = 704, width: int = 1408) -> Pixels:
    return np.random.default_rng(seed).integers(60, 120, (height, width, 3)).astype(np.uint8)


def outside(pixels: Pixels, way: Way) -> Pixels:
    """The part of a picture beyond the given one in a direction."""
    return {
        "left": pixels[:, : GIVEN.left],
        "right": pixels[:, GIVEN.left + GIVEN.width :],
        "up": pixels[: GIVEN.top],
        "down": pixels[GIVEN.top + GIVEN.height :],
    }[way]


@pytest.mark.parametrize("torn", WAYS)
def test_seam_is_found_in_its_direction_and_in_no_other(torn: Way) -> None:
    joins = Joins(Means())
    for seed in range(3):
        pixels = noise(seed)
        outside(pixels, torn)[:] += np.uint8(60)
        joins.add(f"{seed}", pixels, WHOLE, GIVEN)
    for seams in (joins.around, joins.inside):
        found = {kind: ratio.value for kind, _, ratio in seams.ratios()}
        assert set(found) == set(WAYS)
        assert found.pop(torn) > 5
        assert found == pytest.approx(dict.fromkeys(found, 1), abs=0.1)


def test_softer_painting_has_less_than_the_given_picture_alone() -> None:
    joins = Joins(Means())
    for seed in range(3):
        pixels = noise(seed)
        right = outside(pixels, "right")
        right[:, :] = ((right + right.mean(axis=(0, 1))) / 2).astype(np.uint8)
        joins.add(f"{seed}", pixels, WHOLE, GIVEN)
    around, inside = (
        {kind: ratio.value for kind, _, ratio in seams.ratios()}["right"]
        for seams in (joins.around, joins.inside)
    )
    assert inside < 0.7
    assert around > 1.3 * inside


def test_drift_grows_with_the_distance_as_it_was_put_in() -> None:
    joins = Joins(Means())
    for seed in range(3):
        pixels = noise(seed)
        brighter = np.arange(GIVEN.left, 0, -1) // 4
        outside(pixels, "left")[:] += brighter[None, :, None].astype(np.uint8)
        joins.add(f"{seed}", pixels, WHOLE, GIVEN)
    found = {(one.way, one.distance_px): one for one in joins.drift()}
    brightness = LOOKS.index("brightness")
    for distance in (0, 128, 256):
        middle = (distance + BAND_PX / 2) / 4
        shift = found["left", distance].shifts[brightness]
        assert shift.value == pytest.approx(middle, abs=1)
        assert found["left", distance].features.value == pytest.approx(middle * 3**0.5, abs=2)
        assert abs(found["right", distance].shifts[brightness].value) < 1
    assert ("up", 128) not in found  # 192 px are painted there
    assert found["up", 0].pictures == 3


@drawn(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40), st.integers(1, 40), st.data())
def test_strips_are_the_picture_turned_so_that_one_looks_outwards(
    top: int, left: int, height: int, width: int, data: st.DataObject
) -> None:
    below, beside = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 40))
    region = Region(2, -7, 9, top + height + below, left + width + beside)
    given = Region(2, top - 7, left + 9, height, width)
    pixels = np.random.default_rng(0).integers(0, 256, (*region[3:5], 3)).astype(np.uint8)
    own = pixels[top : top + height, left : left + width]
    margins = {"left": left, "right": beside, "up": top, "down": below}
    for way in WAYS:
        found = strip(pixels, region, given, way)
        if margins[way] == 0:
            assert found is None
            continue
        assert found is not None
        sideways = way in ("left", "right")
        assert found.join == (width if sideways else height)
        assert found.pixels.shape[1] == found.join + margins[way]
        inner = found.pixels[:, : found.join]
        inner = inner[:, ::-1] if way in ("left", "up") else inner
        np.testing.assert_array_equal(inner if sideways else inner.transpose(1, 0, 2), own)
        beyond = found.pixels[0, found.join]
        place = {
            "left": (top, left - 1),
            "right": (top, left + width),
            "up": (top - 1, left),
            "down": (top + height, left),
        }[way]
        np.testing.assert_array_equal(beyond, pixels[place])


@pytest.mark.parametrize("extent", [Extent("scroll", 2, 704), Extent("plane", 2)])
def test_setups_have_something_to_paint_in_every_direction(extent: Extent) -> None:
    height, width = CASE_PX[extent.kind]
    directions = set()
    for setup in setups(extent):
        given = setup.given
        assert 0 <= given.top <= given.top + given.height <= height
        assert 0 <= given.left <= given.left + given.width <= width
        for view in setup.views:
            pixels = np.zeros((view.height, view.width, 3), np.uint8)
            directions |= {way for way in WAYS if strip(pixels, view, given, way)}
    assert directions == set(WAYS)


def test_parts_of_a_map_are_spread_over_it_and_do_not_overlap() -> None:
    whole = noise(0, 5376, 1024)
    whole[:, 0, 0] = np.arange(5376) % 256
    whole[:, 0, 1] = np.arange(5376) // 256
    strip = Picture("map", "planet", True, (whole,))
    found = cases([strip], (512, 1024), 10)
    tops = [int(one.pixels[0, 0, 0]) + 256 * int(one.pixels[0, 0, 1]) for one in found]
    assert all(one.pixels.shape == (512, 1024, 3) for one in found)
    assert min(np.diff(tops)) >= 512
    assert tops[0] < 512
    assert tops[-1] > 5376 - 1024
    assert len({one.seed for one in found}) == 10


class Continued(Studio):
    """A studio whose pictures go on as the real ones do, but brighter, and black beyond them."""

    def paint(
        self, canvas: Canvas, regions: Sequence[Region], picture: Pixels | None = None
    ) -> list[Pixels]:
        assert canvas.known is not None
        assert picture is not None
        real = noise(canvas.seed, 5376, 1408)
        found = []
        for region in regions:
            wide = np.zeros((region.height, region.width, 3), np.uint8)
            top, left = max(0, region.top), max(0, region.left)
            seen = real[top : region.top + region.height, left : region.left + region.width] + 20
            wide[top - region.top :, left - region.left :][: len(seen), : seen.shape[1]] = seen
            corner = canvas.known.top - region.top, canvas.known.left - region.left
            height, width = picture.shape[:2]
            wide[corner[0] :, corner[1] :][:height, :width] = picture
            found.append(wide)
        return found


def test_report_has_every_direction_beside_the_real_pictures(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [Picture(f"{seed}", "scroll", True, (noise(seed),)) for seed in range(3)]
    held.append(Picture("map", "planet", True, (noise(9, 5376, 1024),)))
    monkeypatch.setattr(pictures, "load", lambda folder: held)
    model = checkpoint.load(tiny)
    studio = Continued(model, tmp_path, 1)
    text = outpainting.evaluate(model, Means(), studio, tmp_path, 2, tmp_path).text()
    for world, ways in (("scroll", ("left", "right")), ("planet", WAYS)):
        for way in ways:
            assert f"| {world}, without end: seam {way} |" in text
    for way in WAYS:
        assert f"| scroll, ring by ring: seam {way} |" in text
    assert "| up, 0 px | real | 2 |" in text
    assert "| left, 1024 px | painted | 2 |" in text
    assert "| left, 0 px | real, through the tokenizer | 2 |" in text
    assert "| left, 1024 px | real |" not in text
    assert len(list(tmp_path.glob("*.webp"))) == 4


def test_sheet_shows_what_is_given_outlined_above_what_is_made() -> None:
    setup = setups(Extent("scroll", 2, 704))[1]
    case = Case("a", 0, np.full((704, 1408, 3), 200, np.uint8))
    sheet = outpainting.shown(case, setup, np.full((704, 1408, 3), 90, np.uint8))
    assert sheet.shape == (704, 704, 3)
    assert (sheet[352:] == 90).all()
    assert (sheet[0, 0] == outpainting.NOTHING_GREY).all()
    assert (sheet[176, 352] == 200).all()
    assert tuple(sheet[97, 300]) == samples.OUTLINE_RGB
