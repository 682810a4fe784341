"""The laws of `svckit.cones`: a request stands on its own frame, and on what is missing before."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handscroll.branch import Lineage
from handscroll.canvas import Branch, Canvas
from handscroll.geometry import MAX_FRAMES, Extent, Patch, Tile, window_patches
from svckit.cones import Place, standing

pytestmark = pytest.mark.anyio

PLANE = Extent("plane", 2)
FILM = Canvas("0" * 64, "planet", 1, PLANE, frames=MAX_FRAMES)
LINE = Lineage(FILM, 16)
BRANCH = Lineage(replace(FILM, seed=2, branch=Branch(FILM.id, 192, 256, 320, 384)), 16, LINE)
LAST = MAX_FRAMES - 1
BOTH = pytest.mark.parametrize("line", [LINE, BRANCH], ids=["film", "branch"])


class Store:
    """Patches that are committed, and how many were looked for."""

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self.places, self.looks = set(places), 0

    async def missing(self, places: Iterable[Place]) -> list[Place]:
        wanted = list(places)
        self.looks += len(wanted)
        return [place for place in wanted if place not in self.places]


def window(frame: int, rows: int = 3, cols: int = 4) -> list[Patch]:
    tiles = [Tile(2, row, col, frame) for row in range(rows) for col in range(cols)]
    found = (window_patches(tile, PLANE, 16, 4) for tile in tiles)
    return list(dict.fromkeys(patch for patches in found for patch in patches))


@BOTH
async def test_a_film_costs_a_frame_at_a_time(line: Lineage) -> None:
    """Played in order, the last frame is as dear as the first; asked for cold, it is all frames."""
    first = await standing(line, window(0), Store().missing)
    assert first == line.cone(window(0))
    cold = await standing(line, window(LAST), Store().missing)
    assert cold == line.cone(window(LAST)) and len(cold) == MAX_FRAMES * len(first)
    store = Store(line.cone(window(LAST - 1)))
    played = await standing(line, window(LAST), store.missing)
    assert len(played) == len(first)
    assert store.looks == 2 * len(first)  # of each, the frame before and the first


async def test_what_moves_brings_little_of_the_first_frame_with_it() -> None:
    """Of a film that is played, only what comes into sight there."""
    line = Lineage(replace(FILM, motion="the camera moves left"), 16)
    there = line.cone(window(LAST - 1))
    played = await standing(line, window(LAST), Store(there).missing)
    assert played == line.cone(window(LAST)) - there
    first = await standing(line, window(0), Store().missing)
    assert len(first) <= len(played) <= len(first) + 12


async def test_a_branch_is_charged_for_what_of_its_parent_is_missing() -> None:
    """A place may be in both; the parent's is behind what is around the branch's."""
    first = BRANCH.cone(window(0))
    gone = {(canvas, patch) for canvas, patch in first if canvas == FILM.id}
    both = {patch for _, patch in gone} & {patch for _, patch in first - gone}
    assert both
    found = await standing(BRANCH, window(1), Store(first - gone).missing)
    own = {(canvas, patch._replace(frame=1)) for canvas, patch in first}
    assert found == own | gone


async def test_a_still_is_looked_for_nowhere() -> None:
    store = Store()
    await standing(LINE, window(0), store.missing)
    assert store.looks == 0


VIEWS = st.builds(
    window_patches,
    st.builds(Tile, st.just(2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)),
    st.just(PLANE),
    st.just(16),
    st.just(4),
)


@settings(max_examples=25)
@given(st.lists(VIEWS, max_size=4), VIEWS, VIEWS, st.sampled_from([LINE, BRANCH]))
def test_all_that_must_be_drawn_is_counted(
    before: list[list[Patch]], one: list[Patch], other: list[Patch], line: Lineage
) -> None:
    """Whatever of whichever frames was looked at before, of the parent's too."""
    there = {place for view in before[1:] for place in line.cone(view)}
    there |= {place for view in before[:1] for place in LINE.cone(view)}
    found = asyncio.run(standing(line, {*one, *other}, Store(there).missing))
    assert line.cone([*one, *other]) - there <= found <= line.cone([*one, *other])
