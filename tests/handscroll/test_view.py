"""The laws of `handscroll.view`: a film stands where little changes, whatever is seen around."""

import numpy as np
import pytest

from handscroll.assemble import Pixels
from handscroll.context import Codes
from handscroll.detail import Detail, Floats
from handscroll.geometry import STANDS, TILE_PX, Extent, Mask, Moved, Patch, Tile, tile_region
from handscroll.view import AROUND_PX, STILL, Painted, View

PLANE = Extent("plane", 2)
SCROLL = Extent("scroll", 2, 704)
TILE = Tile(2, 3, -4, 5)


def noise(side_px: int, most: int, seed: int) -> Pixels:
    """Grey levels below a bound."""
    return np.random.default_rng(seed).integers(0, most, (side_px, side_px, 3), np.uint8)


def painted(now: Pixels, first: Pixels) -> Painted:
    """What comes of two pictures of as much as there is around the tile."""
    view = View(TILE, PLANE, 16, 4, (len(now) - TILE_PX) // 2)
    assert view.looks == ((TILE, STANDS), (TILE._replace(frame=0), STANDS))
    return view.painted([now, first])


def test_a_region_is_the_tile_and_its_margin() -> None:
    region, tile = View(TILE, PLANE, 16, 4, 56).region, tile_region(TILE, PLANE)
    assert (region.top, region.left) == (tile.top - 56, tile.left - 56)
    assert (region.height, region.width, region.frame) == (368, 368, 5)
    for margin_px, side_tok in ((0, 25), (1, 27), (16, 27), (17, 29), (56, 33)):
        view = View(TILE._replace(frame=0), PLANE, 16, 4, margin_px)
        [tokens] = view.tokens(lambda patch: np.zeros((16, 16, 4), np.uint8))
        assert tokens.codes.shape == (side_tok, side_tok, 4)
        rows, cols = tokens.crop
        for at in (rows, cols):
            assert at.stop - at.start == TILE_PX + 2 * margin_px
            assert at.start >= 4 * 16 and at.stop + 4 * 16 <= side_tok * 16


def test_frame_0_is_as_it_is() -> None:
    view, pixels = View(TILE._replace(frame=0), PLANE, 16, 4), noise(TILE_PX, 256, 0)
    found = view.painted([pixels])
    (first,) = found.firsts
    assert found.pixels is pixels and first.pixels is pixels and first.moved_px == STANDS
    assert not first.change.any() and (first.share == 1).all()


def test_what_changes_little_is_held_still_and_what_changes_much_is_not() -> None:
    first = noise(TILE_PX, 100, 1)
    for change, held in ((1, 1), (2, 2), (STILL, 0), (100, 0)):
        now = first + np.uint8(change)
        found = painted(now, first)
        np.testing.assert_allclose(found.firsts[0].change, change)
        if held:
            np.testing.assert_array_equal(found.pixels, first)
        else:
            np.testing.assert_array_equal(found.pixels, now)
    half = painted(first + np.uint8(STILL // 2), first)
    np.testing.assert_array_equal(half.pixels, first + STILL // 4)


def test_what_moves_moves_alone() -> None:
    """Pixels further than AROUND_PX from it do not see it."""
    first = noise(TILE_PX, 100, 2)
    now = first.copy()
    now[100:140, 60:90] += 80
    found = painted(now, first)
    np.testing.assert_array_equal(found.pixels[100:140, 60:90], now[100:140, 60:90])
    change = found.firsts[0].change.copy()
    reach = AROUND_PX
    assert (change[100 - reach : 140 + reach, 60 - reach : 90 + reach] > 0).all()
    change[100 - reach : 140 + reach, 60 - reach : 90 + reach] = 0
    assert not change.any()


@pytest.mark.parametrize("margin_px", [AROUND_PX, 56])
def test_a_tile_is_the_same_however_much_is_seen_around_it(margin_px: int) -> None:
    now, first = noise(TILE_PX + 400, 60, 3), noise(TILE_PX + 400, 60, 4)
    inner = slice(200 - margin_px, 200 + TILE_PX + margin_px)
    wide, narrow = painted(now, first), painted(now[inner, inner], first[inner, inner])
    np.testing.assert_array_equal(narrow.view.cut(narrow.pixels), wide.view.cut(wide.pixels))
    within = slice(margin_px, margin_px + TILE_PX)
    changes = [one.firsts[0].change for one in (narrow, wide)]
    np.testing.assert_array_equal(changes[0][within, within], changes[1][200:-200, 200:-200])


def test_what_has_come_is_held_to_what_it_was() -> None:
    """Of two things that it may be, it is what it is more like."""
    view = View(TILE, PLANE, 16, 4, 56, (16, -32))
    first = TILE._replace(frame=0)
    assert view.looks == ((TILE, STANDS), (first, STANDS), (first, (16, -32)))
    stood, came = noise(368, 100, 5), noise(368, 100, 6)
    for now, like in ((stood, 0), (came, 1)):
        found = view.painted([now + np.uint8(1), stood, came])
        shares = [one.share for one in found.firsts]
        assert shares[like].min() > 0.9
        np.testing.assert_allclose(shares[0] + shares[1], 1, rtol=1e-6)
        np.testing.assert_array_equal(found.pixels, now)
    alike = view.painted([stood, stood, stood])
    assert (alike.firsts[0].share == 1).all(), "what shows nothing that moves, stands"


def test_what_has_come_is_decoded_where_it_came_from() -> None:
    view = View(TILE, PLANE, 16, 4, 0, (16, -32))
    asked: list[Patch] = []

    def read(patch: Patch) -> Codes:
        asked.append(patch)
        rows, cols = np.indices((16, 16))
        places = (patch.frame, patch.row * 16 + rows + 100, patch.col * 16 + cols + 100, 0 * rows)
        return np.stack(np.broadcast_arrays(*places), -1).astype(np.uint8)

    _, stood, came = view.tokens(read)
    expected = stood.codes.astype(int) + (0, -1, 2, 0)
    np.testing.assert_array_equal(came.codes, expected)
    assert set(asked) == set(view.patches())


@pytest.mark.parametrize("moved_px", [(0, 2000), (0, -2000), (2000, 0), (-2000, 0)])
def test_nothing_comes_from_beyond_the_end_of_a_picture(moved_px: Moved) -> None:
    tile, picture = Tile(2, 1, 2, 31), Extent("picture", 2, 704, 1408)
    view = View(tile, picture, 16, 4, 56, moved_px)
    assert view.looks == View(tile, picture, 16, 4, 56).looks
    assert len(view.tokens(lambda patch: np.zeros((16, 16, 4), np.uint8))) == 2


class Ramp(Detail):
    """Of what is as bright as 100 has been lost nothing, and elsewhere as much as it differs."""

    def __init__(self) -> None:
        self.corners: list[tuple[int, int]] = []
        self.inside: list[Mask] = []

    def of(self, painted: Pixels, inside: Mask, corner_px: tuple[int, int]) -> Floats:
        """And notes from where blocks are counted, and what lies in the canvas."""
        assert inside.shape == painted.shape[:2]
        self.corners.append(corner_px)
        self.inside.append(inside)
        return painted.astype(np.float64) - 100


def test_what_is_held_still_keeps_what_was_lost_of_it() -> None:
    """Grain neither counts as change, nor does it change where nothing else does."""
    view, detail = View(TILE, PLANE, 16, 4, 16, (16, -32)), Ramp()
    first = noise(TILE_PX + 32, 90, 7)
    came = noise(TILE_PX + 32, 90, 8)
    found = view.painted([first + np.uint8(1), first, came], detail)
    np.testing.assert_array_equal(found.pixels, first)
    np.testing.assert_allclose(found.lost, first - 100.0, atol=0.2)
    np.testing.assert_array_equal(found.firsts[1].lost, came - 100.0)
    assert detail.corners == [(16, 16), (16, 16), (32, -16)], "what came is cut as it was there"
    np.testing.assert_array_equal(
        found.shown(), np.clip(np.rint(found.pixels + found.lost), 0, 255)
    )


def test_what_came_to_the_end_of_a_canvas_was_farther_in_it() -> None:
    """What lies in the canvas is asked of the place that it came from."""
    view, detail = View(Tile(2, 2, 0, 1), SCROLL, 16, 4, 16, (96, 0)), Ramp()
    view.painted([noise(TILE_PX + 32, 90, seed) for seed in range(3)], detail)
    stands, _, came = (inside.any(axis=1) for inside in detail.inside)
    end = 704 - (2 * TILE_PX - 16)
    np.testing.assert_array_equal(stands, np.arange(TILE_PX + 32) < end)
    np.testing.assert_array_equal(came, np.arange(TILE_PX + 32) < end + 96)
