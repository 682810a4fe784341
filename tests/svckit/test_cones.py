"""The laws of `svckit.cones`: a request stands on its own frame, and on what is missing before."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handscroll.branch import Lineage
from handscroll.canvas import MAX_FRAMES, Canvas
from handscroll.geometry import Extent, Patch, Tile, window_patches
from svckit.cones import Place, standing

pytestmark = pytest.mark.anyio

PLANE = Extent("plane", 2)
LINE = Lineage(Canvas("0" * 64, "planet", 1, PLANE, frames=MAX_FRAMES), 16)
LAST = MAX_FRAMES - 1


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


async def test_a_film_costs_a_frame_at_a_time() -> None:
    """Played in order, the last frame is as dear as the first; asked for cold, it is all frames."""
    first = await standing(LINE, window(0), Store().missing)
    assert first == LINE.cone(window(0))
    cold = await standing(LINE, window(LAST), Store().missing)
    assert cold == LINE.cone(window(LAST)) and len(cold) == MAX_FRAMES * len(first)
    store = Store(LINE.cone(window(LAST - 1)))
    played = await standing(LINE, window(LAST), store.missing)
    assert len(played) == len(first) and store.looks == len(first)


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
@given(st.lists(VIEWS, max_size=4), VIEWS, VIEWS)
def test_all_that_must_be_drawn_is_counted(
    before: list[list[Patch]], one: list[Patch], other: list[Patch]
) -> None:
    """Whatever of whichever frames was looked at before."""
    there = {place for view in before for place in LINE.cone(view)}
    found = asyncio.run(standing(LINE, {*one, *other}, Store(there).missing))
    assert found >= LINE.cone([*one, *other]) - there
