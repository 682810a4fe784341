"""Laws of palettes: like lies next to like, maps are mirrored, tags count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handscroll.text import TextEncoder
from handscroll.tokenizer import TokenizerConfig
from training.encode import SHIFTS, VARIANTS, described, in_sequence, mirrored, shifted, shifts
from training.pictures import Picture


def test_a_map_is_laid_out_in_four_ways_and_its_belts_stay_level() -> None:
    block = np.random.default_rng(0).normal(size=(5, 7, 4)).astype(np.float32)
    ways = [mirrored(block, way) for way in range(4)]
    assert len({one.tobytes() for one in ways}) == 4
    belts = {block.sum(axis=1).round(3).tobytes(), block[::-1].sum(axis=1).round(3).tobytes()}
    assert {one.sum(axis=1).round(3).tobytes() for one in ways} == belts


def test_coarse_levels_are_shown_at_every_place_of_the_token_grid() -> None:
    """Each shift is another one, and by as much at both levels; what is held out is not shifted."""
    f = TokenizerConfig().downsampling
    rows, cols = np.meshgrid(np.arange(272), np.arange(280), indexing="ij")
    corner = np.stack((rows, cols, rows), axis=-1).astype(np.uint8)
    levels = (corner, corner.repeat(2, 0).repeat(2, 1), corner.repeat(4, 0).repeat(4, 1))
    picture = Picture("one", "planet", False, levels)
    found = shifted(picture, SHIFTS)
    assert len(found) == SHIFTS
    places = set()
    for one in found:
        coarse, finer = one.levels
        assert coarse.shape[0] % f == coarse.shape[1] % f == 0
        np.testing.assert_array_equal(finer[::2, ::2], coarse)
        places.add((int(coarse[0, 0, 0]), int(coarse[0, 0, 1])))
    for axis in (0, 1):
        assert {place[axis] for place in places} == set(range(1, f))
    assert not shifted(replace(picture, held_out=True), SHIFTS)
    assert not shifted(replace(picture, kind="scroll"), SHIFTS)
    assert not shifted(replace(picture, levels=(corner[:271],)), SHIFTS)


def test_small_maps_are_shifted_more_often() -> None:
    grid = np.zeros((1, 1), np.int32)
    maps = [(np.zeros((rows, 100, 4), np.float32), grid) for rows in (10, 500, 3000)]
    counts = [shifts([one] * len(VARIANTS["plane"])) for one in maps]
    assert counts == [SHIFTS, 4, 0]


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
