"""Laws of variants and palettes: what is shown anew is the same place, like lies next to like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from handscroll.geometry import PATCH_PX, Extent
from handscroll.text import TextEncoder
from handscroll.tokenizer import TokenizerConfig
from training.encode import (
    BLANK,
    ENLARGED,
    NARROWED,
    NEARER,
    RAISED,
    blank,
    described,
    further,
    in_sequence,
    laid,
    mirrored,
    nearer_variants,
    palette,
    redrawn,
    relit,
    turned,
)
from training.pack import shaded
from training.pictures import Picture, Pixels, pyramid


def test_a_map_is_laid_out_in_four_ways_and_its_belts_stay_level() -> None:
    block = np.random.default_rng(0).normal(size=(5, 7, 4)).astype(np.float32)
    ways = [mirrored(block, way) for way in range(4)]
    assert len({one.tobytes() for one in ways}) == 4
    belts = {block.sum(axis=1).round(3).tobytes(), block[::-1].sum(axis=1).round(3).tobytes()}
    assert {one.sum(axis=1).round(3).tobytes() for one in ways} == belts


def relief() -> Picture:
    """A map whose colours are its heights, at three levels, and so whatever is made of it."""
    rows, cols = np.meshgrid(np.arange(1280), np.arange(1536), indexing="ij")
    heights = np.stack([rows // 5, cols // 6, (rows + cols) // 11], axis=-1).astype(np.uint8)
    levels = pyramid(Image.fromarray(heights), 3)
    return Picture("one", "planet", False, levels, heights=levels[0][..., 2])


def test_a_map_is_shown_narrower_and_from_nearer_with_heights_that_fit() -> None:
    """All of it, the same at every level, and no variant like another."""
    picture = relief()
    found = list(further(picture, np.random.default_rng(1), 5))
    assert [len(one.levels) for one in found] == [3] * NARROWED + [2] * 5
    height, width = picture.levels[0].shape[:2]
    for number, one in enumerate(found):
        coarse = one.levels[0]
        assert one.heights is not None and one.heights.shape == coarse.shape[:2]
        assert np.abs(one.heights.astype(int) - coarse[..., 2]).max() < 4
        for axis, size in enumerate((height, width)):
            share = coarse.shape[axis] / size
            assert coarse.shape[axis] % 16 == 0
            assert (0.7 < share <= 1) if number < NARROWED else (0.99 < share <= 1.6)
            assert np.ptp(coarse[..., axis]) > 245
        for below, finer in zip(one.levels, one.levels[1:], strict=False):
            halved = np.asarray(Image.fromarray(finer).reduce(2)).astype(int)
            assert np.abs(halved - below).mean() < 2
    assert len({one.levels[0].shape for one in found}) > 6


@pytest.mark.parametrize("down", [0, 24])
def test_a_shifted_map_has_the_heights_of_what_it_shows(down: int) -> None:
    found = laid(relief(), False, down, 40)
    assert found.heights is not None
    assert np.abs(found.heights.astype(int) - found.levels[0][..., 2]).max() < 6


def test_what_has_one_level_is_shown_narrower_alone() -> None:
    picture = relief()
    alone = replace(picture, levels=picture.levels[:1])
    found = list(further(alone, np.random.default_rng(0), 5))
    assert len(found) == 5
    assert all(len(one.levels) == 1 for one in found)
    smallest = replace(alone, levels=(alone.levels[0][:PATCH_PX, :PATCH_PX],), heights=None)
    assert not list(further(smallest, np.random.default_rng(0), 9))
    lower = replace(alone, levels=(alone.levels[0][:, : PATCH_PX + 16],), heights=None)
    shapes = [one.levels[0].shape for one in further(lower, np.random.default_rng(0), 20)]
    assert 1 <= len(shapes) == len(set(shapes)) < 20


def test_small_maps_are_seen_from_nearer_more_often() -> None:
    f = TokenizerConfig().downsampling
    sizes = [np.broadcast_to(np.uint8(0), (rows * f, 100 * f, 3)) for rows in (10, 500, 3000)]
    maps = [Picture("one", "planet", False, (pixels,)) for pixels in sizes]
    assert [nearer_variants([one], f) for one in maps] == [NEARER, 4, 0]
    assert nearer_variants([*maps[:2], replace(maps[2], held_out=True)], f) == 3
    assert nearer_variants([replace(maps[2], kind="scroll")], f) == NEARER


def landscape() -> Picture:
    """Waves of many lengths."""
    rows, cols = np.meshgrid(np.arange(704), np.arange(1408), indexing="ij")
    waves = [np.sin(rows / a + cols / b) for a, b in ((40, 90), (25, 30), (70, 20))]
    pixels = (128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    return Picture("one", "scroll", False, pyramid(Image.fromarray(pixels), 3), kind="scroll")


def test_a_photograph_is_seen_in_other_light_and_from_nearer_and_is_the_same_at_every_level() -> (
    None
):
    found = list(further(landscape(), np.random.default_rng(0)))
    assert [len(one.levels) for one in found] == [3] * NARROWED + [2] * NEARER
    for one in found:
        for coarse, finer in zip(one.levels, one.levels[1:], strict=False):
            halved = np.asarray(Image.fromarray(finer).reduce(2)).astype(np.float64)
            assert np.abs(halved - coarse).mean() < 4
            assert np.abs(halved[:, ::-1] - coarse).mean() > 40
    assert len({one.levels[0].tobytes() for one in found}) == len(found)


def test_what_is_held_out_has_no_further_variants() -> None:
    rng = np.random.default_rng(0)
    for picture in (landscape(), relief()):
        assert not list(further(replace(picture, held_out=True), rng))


@given(st.integers(0, 1000))
def test_other_light_leaves_what_is_brighter_brighter(seed: int) -> None:
    greys = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3).repeat(4, axis=0)
    picture = Picture("one", "scroll", False, (greys,), kind="scroll")
    (found,) = relit(picture, np.random.default_rng(seed)).levels
    assert (np.diff(found.astype(int), axis=1) >= 0).all()
    assert np.abs(found.astype(int) - greys).max() < 32


def test_a_turned_map_is_lit_from_where_it_was() -> None:
    heights = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8))
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    lit = np.asarray(shaded(grey, heights))
    (found,) = turned(Picture("one", "planet", False, (lit,))).levels

    def apart(way: Image.Transpose, pixels: Pixels) -> float:
        again = np.asarray(shaded(grey, heights.transpose(way))).astype(np.float64)
        return float(np.abs(again - pixels).mean())

    assert apart(Image.Transpose.TRANSPOSE, found) < 3  # the blur of heights is not quite even
    assert apart(Image.Transpose.FLIP_LEFT_RIGHT, lit[:, ::-1]) > 30


@given(st.integers(0, 1000))
def test_a_redrawn_landscape_has_the_layers_of_the_picture_from_top_to_bottom(seed: int) -> None:
    """Ground stays below sky, nothing is there that was not, and most of what was there is."""
    down = np.broadcast_to(np.linspace(0, 255, 352)[:, None, None], (352, 704, 3))
    right = np.broadcast_to(np.linspace(0, 255, 704)[None, :, None], (352, 704, 3))
    for lines, axis in ((down, 0), (right, 1)):
        finer = lines.round().astype(np.uint8)
        picture = Picture("one", "scroll", False, (finer[::2, ::2], finer), kind="scroll")
        found = redrawn(picture, 0, ENLARGED["scroll"], np.random.default_rng(seed))
        found = found.astype(np.float64)
        assert found.shape == (176, 352, 3)
        assert (np.diff(found, axis=axis) >= 0).all()
        most = ENLARGED["scroll"][axis][1] * (RAISED if axis == 0 else 1)
        assert np.ptp(found) >= 0.9 * 255 / most


@given(st.integers(0, 1000))
def test_a_redrawn_map_is_all_of_it(seed: int) -> None:
    """From its first to its last line, made higher and wider."""
    rows, cols = np.meshgrid(np.linspace(0, 255, 128), np.linspace(0, 255, 256), indexing="ij")
    finer = np.stack((rows, cols, rows), axis=-1).round().astype(np.uint8)
    picture = Picture("one", "planet", False, (finer[::2, ::2], finer))
    found = redrawn(picture, 0, ENLARGED["plane"], np.random.default_rng(seed))
    for axis in (0, 1):
        least, most = ENLARGED["plane"][axis]
        size = picture.levels[0].shape[axis]
        assert least * size - 8 <= found.shape[axis] <= most * size + 8  # whole tokens
        line = found[..., axis].mean(axis=1 - axis)
        assert (np.diff(line) >= 0).all() and line[0] < 6 and line[-1] > 249


@pytest.mark.parametrize("grey", [0.1, 1.0])
def test_what_is_blank_of_a_map_is_not_laid_out_unless_all_of_it_is(grey: float) -> None:
    """The left of it is plain grey; a map that is grey all over is laid out as it is."""
    rng = np.random.default_rng(0)
    cells = rng.uniform(-1, 1, (40, 200, 4)).astype(np.float32)
    cells[:, : round(200 * grey), :3] = 0.1
    cells[..., 3] = 1.0
    blocks, _ = palette(Extent("plane", 2), [(cells, np.full((1, 1), -1, np.int32))], 16)
    shares = blank(blocks).mean(axis=(1, 2))
    assert (shares == 1).all() if grey == 1 else (shares <= BLANK).all()


def test_landscapes_that_lie_next_to_each_other_are_alike() -> None:
    """Shuffled scenes between a blue and a red one come back in their order, or from behind."""
    share = np.linspace(0, 1, 24)[:, None, None, None]
    blue, red = (np.array(colour) for colour in ((-0.5, 0.0, 0.5, 0.1), (0.5, 0.0, -0.5, 0.1)))
    scenes = ((1 - share) * blue + share * red) * np.ones((1, 6, 10, 1))
    shuffled = np.random.default_rng(1).permutation(24)
    found = shuffled[in_sequence(scenes[shuffled].astype(np.float32))]
    assert found.tolist() in (list(range(24)), list(range(23, -1, -1)))


def test_words_find_what_a_picture_is_of_and_not_all_that_is_in_it() -> None:
    dune, ocean = (
        "Crest of a large golden dune leads towards a strip of dark blue sea under blue sky",
        "White-flecked dark blue ocean, with the hazy outline of a pointed island on the horizon",
    )
    tags = {dune: "dune, sea, desert", ocean: "sea, waves, island, clear"}
    encoder = TextEncoder()
    words = encoder.embed(["Waves roll in from a wide blue sea"])[0]
    plain, tagged = (described([dune, ocean], told, encoder) @ words for told in ({}, tags))
    assert plain[0] > plain[1]
    assert tagged[0] < tagged[1]
    np.testing.assert_allclose(
        np.linalg.norm(described([dune, ocean], tags, encoder), axis=1), 1, rtol=1e-5
    )
