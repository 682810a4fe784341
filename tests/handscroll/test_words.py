"""The laws of `handscroll.words`: every patch hears of what it shows, in proportion."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handscroll.canvas import (
    MAX_REGION_PX,
    MAX_REGIONS,
    Branch,
    Canvas,
    PromptRegion,
    Sampling,
)
from handscroll.checkpoint import Checkpoint
from handscroll.errors import InvalidRequest
from handscroll.field import CELL_PX
from handscroll.geometry import PATCH_PX, Extent, Patch
from handscroll.paint import sampler_of
from handscroll.words import Words, layouts_of, prompts_of, shares, words_of

PLANE = Extent("plane", 2)
PLAIN = Canvas("0" * 64, "planet", 1, PLANE, prompt="plain")
CELL = 4 * CELL_PX
"""Pixels of the finest level that a cell is wide."""
VECTORS = dict(zip(["plain", "sea", "snow"], np.eye(3, 384, dtype=np.float32), strict=True))

REGIONS = st.builds(
    PromptRegion,
    st.sampled_from(["", "sea", "snow"]),
    st.integers(-3000, 3000),
    st.integers(-3000, 3000),
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.integers(0, 2000),
)
PATCHES = st.builds(Patch, st.integers(0, 2), st.just(0), st.integers(-5, 5), st.integers(-5, 5))


def ramp(place: float, softness: int) -> float:
    """0 well before an edge, 1 well after it."""
    return float(place >= 0) if softness == 0 else min(1.0, max(0.0, place / softness + 0.5))


def covered(region: PromptRegion, patch: Patch) -> float:
    """By adding up many points of a patch."""
    side, count = 256 * 2 ** (2 - patch.level), 400
    total = 1.0
    for start, begin, length in (
        (patch.row * side, region.top, region.height),
        (patch.col * side, region.left, region.width),
    ):
        points = start + (np.arange(count) + 0.5) * side / count
        soft = region.softness
        total *= sum(ramp(at - begin, soft) - ramp(at - begin - length, soft) for at in points)
    return total / count**2


@settings(max_examples=60)
@given(st.lists(REGIONS, max_size=4), PATCHES)
def test_shares_are_the_areas_and_the_later_lie_on_top(
    regions: list[PromptRegion], patch: Patch
) -> None:
    found = shares(replace(PLAIN, regions=tuple(regions)), patch)
    assert [one.prompt for one in found] == ["plain", *(region.prompt for region in regions)]
    assert sum(one.share for one in found) == pytest.approx(1)
    left = 1.0
    for region, one in zip(reversed(regions), reversed(found), strict=False):
        here = left * covered(region, patch)
        assert one.share == pytest.approx(here, abs=0.02)
        left -= here


@settings(max_examples=60)
@given(st.lists(REGIONS, max_size=3), PATCHES)
def test_a_parent_hears_what_its_children_hear(regions: list[PromptRegion], patch: Patch) -> None:
    """Of one region: shares of a patch are the means of its children's."""
    if patch.level == 2:
        return
    for region in regions:
        canvas = replace(PLAIN, regions=(region,))
        below = [shares(canvas, child)[1].share for child in patch.children]
        assert shares(canvas, patch)[1].share == pytest.approx(sum(below) / 4)


def test_words_are_mixed_in_proportion() -> None:
    region = PromptRegion("sea", 0, 64, 256, 10_000, 0)
    words = Words(replace(PLAIN, regions=(region,)), VECTORS)
    np.testing.assert_array_equal(words(Patch(2, 0, 0, 5)), VECTORS["sea"])
    np.testing.assert_array_equal(words(Patch(2, 0, 4, 0)), VECTORS["plain"])
    mixed = words(Patch(2, 0, 0, 0))
    assert mixed is not None and mixed.dtype == np.float32
    expected = 0.25 * VECTORS["plain"] + 0.75 * VECTORS["sea"]
    np.testing.assert_allclose(mixed, expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize(("width", "told"), [(127, False), (129, True), (256, True)])
def test_a_patch_of_few_words_has_none(width: int, told: bool) -> None:
    region = PromptRegion("sea", 0, 0, 256, width, 0)
    words = Words(replace(PLAIN, prompt="", regions=(region,)), VECTORS)
    assert (words(Patch(2, 0, 0, 0)) is not None) == told
    assert words(Patch(2, 0, 3, 3)) is None


def test_a_region_without_words_silences_the_prompt() -> None:
    words = Words(replace(PLAIN, regions=(PromptRegion("", 0, 0, 256, 256, 0),)), VECTORS)
    assert words(Patch(2, 0, 0, 0)) is None
    np.testing.assert_array_equal(words(Patch(2, 0, 0, 1)), VECTORS["plain"])


def test_prompts_of_a_canvas_are_all_that_must_be_embedded() -> None:
    regions = (
        PromptRegion("sea", 0, 0, 1, 1),
        PromptRegion("", 0, 0, 1, 1),
        PromptRegion("sea", 5, 0, 1, 1),
    )
    canvas = replace(PLAIN, regions=regions, sampling=Sampling(negative_prompt="snow"))
    assert prompts_of(canvas) == ["plain", "sea", "snow"]
    assert prompts_of(replace(PLAIN, prompt="")) == []


def test_the_sampler_is_told_each_patchs_own_words(model: Checkpoint) -> None:
    region = PromptRegion("sea", 0, 0, 256, 256, 0)
    canvas = Canvas(model.digest, "planet", 1, PLANE, regions=(region,))
    sampler = sampler_of(model, canvas, VECTORS)
    assert sampler.words is not None
    np.testing.assert_array_equal(sampler.words(Patch(2, 0, 0, 0)), VECTORS["sea"])
    assert sampler.words(Patch(2, 0, 9, 9)) is None
    assert sampler_of(model, replace(canvas, regions=()), {}).words is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "x" * 2001}, "a region's prompt may have 2000 characters"),
        ({"prompt": 5}, "prompt must be str"),
        ({"height": 0}, "a region's height must be 1 to"),
        ({"width": -1}, "a region's width must be 1 to"),
        ({"width": MAX_REGION_PX + 1}, "a region's width must be 1 to"),
        ({"softness": -1}, "a region's softness must be 0 to"),
        ({"top": -MAX_REGION_PX - 1}, "a region's top must be at most"),
        ({"left": 0.5}, "left must be int"),
    ],
)
def test_regions_that_are_none_are_refused(change: dict[str, Any], words: str) -> None:
    region: dict[str, Any] = {"prompt": "sea", "top": 0, "left": 0, "height": 5, "width": 5}
    with pytest.raises(InvalidRequest, match=words):
        PromptRegion(**region | change)


def test_a_canvas_has_so_many_regions_and_no_more() -> None:
    region = PromptRegion("sea", 0, 0, 1, 1)
    replace(PLAIN, regions=(region,) * MAX_REGIONS)
    with pytest.raises(InvalidRequest, match="may have 32 regions, not 33"):
        replace(PLAIN, regions=(region,) * (MAX_REGIONS + 1))
    with pytest.raises(InvalidRequest, match="may have 8000 characters, not 10000"):
        replace(PLAIN, regions=(replace(region, prompt="x" * 2000),) * 5)
    with pytest.raises(InvalidRequest, match="tuple of PromptRegion"):
        replace(PLAIN, regions=[region])  # type: ignore[arg-type]


def test_what_moves_is_said_of_every_frame_but_the_first() -> None:
    region = PromptRegion("sea", 0, 0, 1000, 1000, 0)
    still = replace(PLAIN, frames=3, regions=(region,))
    moving = replace(still, motion="waves roll")
    first = Patch(2, 0, 0, 0)
    assert shares(moving, first) == shares(still, first)
    later = first._replace(frame=2)
    said = [one.prompt for one in shares(moving, later)]
    assert said == ["plain, waves roll", "sea, waves roll"]
    assert [one.share for one in shares(moving, later)] == [
        one.share for one in shares(still, later)
    ]
    assert set(prompts_of(moving)) == {"plain", "sea", *said}


def test_what_moves_may_be_all_that_is_said() -> None:
    silent = replace(PLAIN, prompt="", frames=2, motion="waves roll")
    assert prompts_of(silent) == ["waves roll"]
    words = Words(silent, {"waves roll": VECTORS["sea"]})
    assert words(Patch(0, 0, 0, 0)) is None
    np.testing.assert_array_equal(words(Patch(0, 1, 0, 0)), VECTORS["sea"])


def test_a_layout_is_looked_for_by_the_prompt_less_half_of_the_negative_one() -> None:
    """Where something is said, and at any guidance; the decoder hears the prompt as it is."""
    region = PromptRegion("sea", 0, 0, 1000, 1000, 0)
    canvas = replace(PLAIN, prompt="", regions=(region,))
    unwanted = replace(canvas, sampling=replace(canvas.sampling, negative_prompt="plain"))
    everywhere, sea = layouts_of(unwanted, VECTORS)
    assert everywhere.sought_W is None and sea.sought_W is not None
    np.testing.assert_array_equal(sea.sought_W, VECTORS["sea"] - 0.5 * VECTORS["plain"])
    plain, heard = layouts_of(canvas, VECTORS)[1].sought_W, words_of(unwanted, VECTORS)
    assert plain is not None and heard is not None
    np.testing.assert_array_equal(plain, VECTORS["sea"])
    np.testing.assert_array_equal(heard(Patch(0, 0, 0, 0)), VECTORS["sea"])


def test_a_branch_is_laid_out_around_the_middle_of_its_rectangle() -> None:
    (whole,) = layouts_of(PLAIN, VECTORS)
    assert whole.middle == (0, 0)
    branch = Branch("1" * 64, top=1024, left=-2048, height=512, width=256)
    (again,) = layouts_of(replace(PLAIN, prompt="snow", branch=branch), VECTORS)
    assert again.middle == (1280 // CELL, -1920 // CELL)
    np.testing.assert_array_equal(again.sought_W, VECTORS["snow"])


@settings(max_examples=60)
@given(REGIONS, st.integers(-40, 40), st.integers(-40, 40))
def test_a_region_covers_as_much_of_its_field_as_of_its_patches(
    region: PromptRegion, row: int, col: int
) -> None:
    """A patch at level 0."""
    canvas = replace(PLAIN, regions=(region,))
    _, layout = layouts_of(canvas, VECTORS)
    assert (layout.sought_W is None) == (region.prompt == "")
    many = PATCH_PX // CELL_PX
    rows, cols = (np.arange(many * at, many * (at + 1)) for at in (row, col))
    down, right = layout.down(rows), layout.right(cols)
    assert down.shape == right.shape == (many,)
    patch = shares(canvas, Patch(0, 0, row, col))[1]
    assert down.mean() * right.mean() == pytest.approx(patch.share)
    for side, edge in zip(layout.sides, (0, region.width), strict=True):
        assert side * CELL <= region.left + edge < (side + 1) * CELL
    at = region.top + region.height / 2, region.left + region.width / 2
    for cell, px in zip(layout.middle, at, strict=True):
        assert cell * CELL <= px <= (cell + 1) * CELL
