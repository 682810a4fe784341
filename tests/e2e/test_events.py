"""Painting is asked for by listening, and ends when nobody listens."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from typing import Any

import httpx

from handscroll.geometry import Tile, tile_to_xyz, xyz_to_tile
from tests.e2e.asking import MARGIN_S, block, cone, new_canvas, path_of
from tests.support.stack import PATIENCE_S, Stack, eventually

STILL_S = 1.5
"""A counter that does not move for so long, while painters are free, has stopped."""


def events(
    stack: Stack, canvas_id: str, first: Tile, last: Tile
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """The events of a view, until it is painted or the iterator is closed."""
    (left, top, z), (right, bottom, _) = tile_to_xyz(first), tile_to_xyz(last)
    view = {"z": z, "left": left, "top": top, "right": right, "bottom": bottom}
    with httpx.stream(
        "GET", f"{stack.url}/canvases/{canvas_id}/events", params=view, timeout=PATIENCE_S
    ) as answer:
        assert answer.status_code == 200
        name = ""
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def test_a_poll_answers_at_once_and_paints_nothing_then_events_tell_what_is_there(
    stack: Stack,
) -> None:
    canvas = new_canvas(stack)
    view = block(2, 8, 8, 2, 2)
    before = stack.drawn()
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:

        def poll(tile: Tile) -> httpx.Response:
            return client.get(path_of(canvas.id, tile, "webp"), params={"wait": 0})

        for tile in view:
            began = time.monotonic()
            answer = poll(tile)
            assert (answer.status_code, answer.content) == (202, b"")
            assert answer.headers["Cache-Control"] == "no-store"
            assert time.monotonic() - began < MARGIN_S
        assert stack.drawn() == before
        told, ready, last = set(), 0, ""
        for name, said in events(stack, canvas.id, view[0], view[-1]):
            last = name
            if name == "tile":
                tile = xyz_to_tile(said["x"], said["y"], said["z"])
                answer = poll(tile)
                assert answer.status_code == 200, "what is told is there"
                assert answer.headers["Content-Type"] == "image/webp"
                told.add(tile)
            elif name == "progress":
                ready += 1
                assert said == {"ready": ready, "of": len(view)}
        assert last == "done" and told == set(view)


def test_closing_the_events_stops_the_painting(stack: Stack) -> None:
    canvas = new_canvas(stack)
    view = block(2, -8, -8, 16, 16)
    before = stack.drawn()
    listening = events(stack, canvas.id, view[0], view[-1])
    assert next(listening)[0] == "tile"
    closed_at = time.monotonic()
    listening.close()

    def stands_still() -> bool:
        seen = stack.drawn()
        time.sleep(STILL_S)
        return stack.drawn() == seen and not stack.metric("handscroll_patches_ready")

    eventually(stands_still, "an end of painting", limit_s=30)
    took_s = time.monotonic() - closed_at - STILL_S
    drawn, whole = stack.drawn() - before, len(cone(canvas, view))
    print(f"\nevents closed: still after {took_s:.1f} s, {drawn} of {whole} drawn")  # noqa: T201
    assert drawn < whole / 2
