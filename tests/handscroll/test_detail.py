"""The laws of `handscroll.detail`: what was lost of a picture is found again where it looks so."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handscroll import detail as module
from handscroll.assemble import Pixels
from handscroll.detail import (
    MOST,
    NEARLY,
    STANDS_OUT,
    STEP_PX,
    TURNS,
    UNLIKE,
    Detail,
    Floats,
    Pieces,
)
from handscroll.geometry import TILE_PX, Extent, Region, Tile
from handscroll.view import View

PLANE, SCROLL = Extent("plane", 2), Extent("scroll", 2, 704)
BLOCK_PX = 2 * STEP_PX


def noise(height: int, width: int, low: int = 0, high: int = 256, seed: int = 5) -> Pixels:
    """A picture of which no pixel is like the next."""
    return np.random.default_rng(seed).integers(low, high, (height, width, 3), dtype=np.uint8)


def plain(height: int, width: int, grey: int = 128) -> Pixels:
    """A picture in which all pixels are alike."""
    return np.full((height, width, 3), grey, np.uint8)


def detail_of(picture: Pixels, decoded: Pixels, tile: tuple[int, int] = (0, 0)) -> Detail:
    """Of one piece."""
    return Detail(Pieces(picture[None], decoded[None]), tile)


def view_of(extent: Extent, tile: Tile, margin_px: int = STEP_PX) -> View:
    """How a tile is decoded, with so much around it."""
    return View(tile, extent, 16, 4, margin_px)


def around(view: View, pixels: Pixels, region: Region) -> Pixels:
    """What a view shows of pixels that repeat without end, of which the first lies at a region's
    corner."""
    rows, cols = (
        np.arange(start - first, start - first + size) % length
        for start, first, size, length in zip(
            view.region[1:3], region[1:3], view.region[3:5], pixels.shape[:2], strict=True
        )
    )
    return pixels[np.ix_(rows, cols)]


def lost(detail: Detail, painted: Pixels, view: View) -> Floats:
    """What would have been lost of what a view shows."""
    level, top, left, height, width, _ = view.region
    inside = view.extent.inside(level, top, left, (height, width), 1)
    return detail.of(painted, inside, (view.margin_px, view.margin_px))


def view_cut(view: View, values: Floats) -> Floats:
    """The tile of what a view shows."""
    inner = slice(view.margin_px, view.margin_px + TILE_PX)
    return values[inner, inner]


@settings(max_examples=10)
@given(st.sampled_from([PLANE, SCROLL]), st.integers(0, 2), st.integers(-9, 9), st.integers(-9, 9))
def test_what_is_painted_as_it_is_decoded_finds_itself(
    extent: Extent, level: int, down: int, right: int
) -> None:
    """To the last bit, however the picture lies to tiles, which begin between tokens."""
    top = 0 if extent is SCROLL else 16 * down
    size = extent.size(level)[0] or 480
    decoded = np.kron(noise(size // 4, 120, 60, 196), np.ones((4, 4, 1), np.uint8))
    grain = noise(size, 480, 0, 120, 6).astype(np.int16) - 60
    picture, region = (decoded + grain).astype(np.uint8), Region(level, top, 16 * right, size, 480)
    view = view_of(extent, Tile(level, 0, 0), 144)
    begins = (view.region.top + 144 - region.top, view.region.left + 144 - region.left)
    detail = detail_of(picture, decoded, begins)
    painted = around(view, decoded, region)
    found = lost(detail, painted, view)
    rows, cols = (
        np.arange(size) + at for size, at in zip(painted.shape[:2], view.region[1:3], strict=True)
    )
    deep = np.ix_(
        (rows >= top + BLOCK_PX) & (rows < top + size - BLOCK_PX),
        (cols >= region.left + BLOCK_PX) & (cols < region.left + 480 - BLOCK_PX),
    )
    expected = around(view, grain, region)[deep]  # type: ignore[arg-type]
    rim = np.s_[STEP_PX:-STEP_PX, STEP_PX:-STEP_PX]
    inner = np.zeros(found.shape[:2], bool)
    inner[rim] = True
    assert inner[deep].any()
    np.testing.assert_allclose(found[deep][inner[deep]], expected[inner[deep]], atol=1e-9)


@settings(max_examples=10)
@given(st.sampled_from([PLANE, SCROLL]), st.integers(0, 2), st.sampled_from([24, 144, 208]))
def test_a_tile_is_given_the_same_however_much_is_seen_around_it(
    extent: Extent, level: int, margin_px: int
) -> None:
    decoded = noise(208, 304, 40, 216)
    detail = detail_of(noise(208, 304, seed=6), decoded)
    painted, at = noise(512, 512, 90, 160, 7), Region(level, 0, 0, 512, 512)
    for tile in (Tile(level, 0, 0), Tile(level, 0, 3)):
        found = []
        for margin in (STEP_PX, margin_px):
            view = view_of(extent, tile, margin)
            cut = np.s_[margin : margin + TILE_PX, margin : margin + TILE_PX]
            found.append(lost(detail, around(view, painted, at), view)[cut])
        assert found[0].any()
        np.testing.assert_array_equal(found[0], found[1])


def test_grain_stays_as_strong_as_it_was_and_tones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each block finds another place: mixed plainly, grain would have two thirds of it."""
    for name in ("UNLIKE", "SOFT"):  # all of it is given then
        monkeypatch.setattr(module, name, 10**9)
    decoded = np.kron(noise(44, 88, 100, 156), np.ones((16, 16, 1), np.uint8))
    grain = np.rint(np.random.default_rng(3).normal(9, 12, decoded.shape))
    detail = detail_of((decoded + grain).astype(np.uint8), decoded)
    painted = np.kron(noise(24, 24, 100, 156, 8), np.ones((16, 16, 1), np.uint8))
    view = view_of(PLANE, Tile(2, 5, 9), 64)
    found = view_cut(view, lost(detail, painted, view))
    assert found.mean() == pytest.approx(9, abs=1) and found.std() == pytest.approx(12, rel=0.05)


def test_the_less_like_the_picture_the_less_is_given() -> None:
    decoded = plain(256, 256, 100)
    detail = detail_of(decoded + np.uint8(10), decoded)
    view = view_of(PLANE, Tile(2, 3, 3))
    given = [
        lost(detail, plain(288, 288, 100 + unlike), view)[STEP_PX:-STEP_PX, STEP_PX:-STEP_PX]
        for unlike in (0, UNLIKE // 4, UNLIKE // 2, UNLIKE, 2 * UNLIKE)
    ]
    for one, expected in zip(given, (10, 8.4375, 5, 0, 0), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-9)


def test_what_is_softer_is_given_less() -> None:
    """A smooth sky takes no waves from a sea of its colour."""
    decoded = np.kron(noise(32, 32, 90, 111), np.ones((8, 8, 1), np.uint8))
    grain = np.rint(np.random.default_rng(2).normal(0, 12, decoded.shape))
    detail = detail_of((decoded + grain).astype(np.uint8), decoded)
    view = view_of(PLANE, Tile(2, 3, 3))
    smooth, rough = (
        view_cut(view, lost(detail, painted, view)).std()
        for painted in (plain(288, 288, 100), np.tile(decoded, (2, 2, 1))[:288, :288])
    )
    assert rough > 9 and smooth < rough / 3


def test_beyond_the_canvas_nothing_counts() -> None:
    """What is decoded there is nothing that is painted, and a tile at the end is given detail."""
    decoded = noise(704, 480, 100, 156)
    detail = detail_of(decoded + np.uint8(8), decoded)
    view = view_of(SCROLL, Tile(2, 2, 0), 144)  # 64 px of it lie below the canvas
    painted = noise(544, 544, 100, 156, 9)
    rows = np.arange(544) + view.region.top
    found = []
    for below in (0, 255):
        painted[rows >= 704] = below
        found.append(lost(detail, painted, view))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0][rows >= 704] == 0).all()
    assert (found[0][(rows >= 512) & (rows < 704), 144:400].mean(axis=(1, 2)) > 0.5).all()


@pytest.mark.parametrize("size", [16, 31, 32, 48])
def test_of_the_smallest_picture_there_is_little_or_nothing(size: int) -> None:
    decoded = plain(size, 64)
    detail = detail_of(decoded + np.uint8(9), decoded)
    found = lost(detail, plain(288, 288), view_of(PLANE, Tile(0, 0, 0)))
    assert found.any() == (size >= BLOCK_PX) and found.max() <= 9 + 1e-9


def test_what_one_block_takes_those_beside_it_do_not() -> None:
    decoded = noise(256, 256)
    detail = detail_of(noise(256, 256, seed=6), decoded)
    view = view_of(PLANE, Tile(2, 3, 3))
    taken = {}
    for turn, examples in detail._examples.items():
        taken[turn] = set(map(tuple, examples.place_E3.tolist()))
    assert set(taken) == set(product(range(TURNS), repeat=2))
    assert sum(map(len, taken.values())) == len(set.union(*taken.values()))
    values = np.zeros((18, 18, 192), np.float32)
    places, _ = detail._like(values, (-1, -1))
    beside = [
        (places[:-1] == places[1:]).all(axis=2),
        (places[:, :-1] == places[:, 1:]).all(axis=2),
    ]
    assert not any(one.any() for one in beside) and view.margin_px == STEP_PX


@pytest.mark.parametrize("shape", [(1, 2048, 2048), (400, 96, 96)])
def test_of_large_or_many_pictures_there_are_no_more_examples(shape: tuple[int, ...]) -> None:
    pieces = np.full((*shape, 3), 128, np.uint8)
    detail = Detail(Pieces(pieces, pieces))
    count = sum(len(one.half_E) for one in detail._examples.values())
    assert MOST / 5 < count <= MOST


def test_each_of_many_pieces_is_found() -> None:
    decoded = np.stack([plain(96, 96, grey) for grey in (40, 120, 200)])
    grain = np.array([5, 50, -7]).reshape(3, 1, 1, 1)
    detail = Detail(Pieces((decoded + grain).astype(np.uint8), decoded))
    view = view_of(PLANE, Tile(2, 3, 3))
    for grey, expected in ((40, 5), (120, 50), (200, -7)):
        found = view_cut(view, lost(detail, plain(288, 288, grey), view))
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_grain_is_given_and_things_are_not() -> None:
    """Of islets in the grain of a sea there is nothing but grain elsewhere."""
    decoded = plain(256, 256, 80)
    grain = np.where(np.indices((256, 256)).sum(0) % 2, 4, -4)[..., None].repeat(3, 2)
    grain[8::64, 8::64] = 150
    detail = detail_of((decoded + grain).astype(np.uint8), decoded)
    view = view_of(PLANE, Tile(2, 3, 3))
    found = view_cut(view, lost(detail, plain(288, 288, 80), view))
    assert 3 < np.abs(found).mean() and np.abs(found).max() <= 2 * (4 * STANDS_OUT + 1)


def test_of_places_that_look_alike_a_quiet_one_is_chosen() -> None:
    """Of a sky in half of which twigs are lost, none come again; of more of it they do."""
    decoded, sign = plain(256, 256, 100), np.indices((256, 256)).sum(0) % 2 * 2 - 1
    view = view_of(PLANE, Tile(2, 3, 3))
    for clear_px, expected in ((128, 3), (0, 30)):
        strong = np.where(np.arange(256) < clear_px, 3, 30)
        picture = (decoded + (sign * strong)[..., None]).astype(np.uint8)
        found = view_cut(view, lost(detail_of(picture, decoded), plain(288, 288, 100), view))
        assert 0.8 * expected < np.abs(found).mean() and np.abs(found).max() <= 2 * expected


def test_what_looks_less_like_it_is_not_chosen_for_being_quiet() -> None:
    """What is darker by more than NEARLY grey levels is no choice."""
    decoded = np.concatenate([plain(256, 128, 100 - NEARLY - 2), plain(256, 128, 100)], axis=1)
    grain = np.repeat([0, 9], 128)[:, None]
    detail = detail_of((decoded + grain).astype(np.uint8), decoded)
    found = lost(detail, plain(288, 288, 100), view := view_of(PLANE, Tile(2, 3, 3)))
    np.testing.assert_allclose(view_cut(view, found), 9, atol=1e-9)


def test_sums_are_exact_whatever_is_compared() -> None:
    """Of the blackest and whitest blocks, added up in any order."""
    decoded = np.concatenate([plain(256, 256, grey) for grey in (0, 255)])
    detail = detail_of(decoded, decoded)
    for examples in detail._examples.values():
        values = examples.values_EV.astype(np.float32)
        assert values.min() == -128 and values.max() == 127 and (values == values.round()).all()
        exact = values.astype(np.int64) @ values.astype(np.int64).T
        assert np.abs(exact).max() < 2**24
        np.testing.assert_array_equal(values @ values.T, exact)
        np.testing.assert_array_equal(2 * examples.half_E, exact.diagonal())


@pytest.mark.parametrize("size", [(64, 64), (48, 400), (80, 400), (3072, 4096)])
def test_no_block_goes_without(size: tuple[int, int]) -> None:
    """Not of a picture with few examples, nor of a large one, in which they lie far apart."""
    decoded = plain(*size)
    detail = detail_of(decoded + np.uint8(10), decoded)
    view = view_of(PLANE, Tile(2, 3, 3))
    found = view_cut(view, lost(detail, plain(288, 288), view))
    np.testing.assert_allclose(found, 10, atol=1e-9)
