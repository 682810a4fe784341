"""Laws of palettes: like lies next to like, maps are turned, tags count."""

from __future__ import annotations

import numpy as np

from handscroll.text import TextEncoder
from training.encode import described, in_sequence, turned


def test_there_are_eight_ways_to_turn_a_square_and_four_to_turn_a_block() -> None:
    rng = np.random.default_rng(0)
    square, block = (rng.normal(size=(5, width, 4)).astype(np.float32) for width in (5, 7))
    assert len({turned(square, way).tobytes() for way in range(8)}) == 8
    ways = [turned(block, way) for way in range(8)]
    assert {one.shape for one in ways} == {block.shape}
    assert len({one.tobytes() for one in ways}) == 4
    for one in ways:
        np.testing.assert_allclose(one.sum(axis=(0, 1)), block.sum(axis=(0, 1)), rtol=1e-4)


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
