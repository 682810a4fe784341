"""One picture for all: the same bytes for everyone, and every patch drawn once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Tile
from tests.e2e.asking import (
    MARGIN_S,
    Visitor,
    assert_painted,
    block,
    cone,
    new_canvas,
)
from tests.support.stack import Stack, eventually


def test_four_who_pan_apart_get_the_same_bytes_and_each_patch_is_drawn_once(
    stack: Stack, model: Checkpoint
) -> None:
    canvas = new_canvas(stack)
    before = stack.drawn()

    def pan(down: int, right: int) -> dict[Tile, bytes]:
        found: dict[Tile, bytes] = {}
        with Visitor(stack) as visitor:
            for step in range(3):
                view = block(2, 40 + step * down, -7 + step * right, 2, 2)
                found |= visitor.tiles(canvas.id, view)
        assert visitor.overrun_s < MARGIN_S
        return found

    with ThreadPoolExecutor(4) as people:
        walks = list(people.map(pan, (0, 0, 1, -1), (1, -1, 0, 0)))
    seen: dict[Tile, bytes] = {}
    for walk in walks:
        for tile, image in walk.items():
            assert seen.setdefault(tile, image) == image
    assert len(seen) == 4 + 4 * 4, "four share where they begin, and each sees four tiles alone"
    # A patch is counted a moment after whoever waited for it has been told.
    expected = len(cone(canvas, seen))
    eventually(lambda: stack.drawn() - before >= expected, f"{expected} patches")
    assert stack.drawn() - before == expected
    assert_painted(model, canvas, seen)


def test_a_tile_far_out_costs_its_cone_and_no_more(stack: Stack, model: Checkpoint) -> None:
    canvas = new_canvas(stack)
    before, tile = stack.drawn(), Tile(2, -30_000, 29_999)
    with Visitor(stack) as visitor:
        found = {tile: visitor.tile(canvas.id, tile)}
        again = visitor.tile(canvas.id, tile, format="webp")
    assert len(again) < len(found[tile])
    eventually(lambda: stack.drawn() - before >= 27, "27 patches")
    assert stack.drawn() - before == len(cone(canvas, found)) == 27
    assert_painted(model, canvas, found)
