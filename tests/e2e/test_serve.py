"""`handscroll serve`: it stops cleanly, wakes up with all it had, and says what is wrong."""

from __future__ import annotations

import re
import subprocess
import threading

import httpx

from handscroll.checkpoint import Checkpoint
from tests.e2e.asking import (
    Visitor,
    assert_painted,
    block,
    canvas_of,
    new_canvas,
    path_of,
)
from tests.e2e.test_events import events
from tests.support.stack import PATIENCE_S, SERVICES, Stack, eventually

STOPS_WITHIN_S = 25.0


def test_stopped_while_it_paints_it_ends_cleanly_and_wakes_up_with_all_it_had(
    stack: Stack, model: Checkpoint
) -> None:
    canvas, wide = new_canvas(stack), new_canvas(stack, group=16)
    with Visitor(stack) as visitor:
        had = visitor.tiles(canvas.id, block(2, 3, 3, 2, 2))
    before = stack.drawn()
    view = block(2, 0, 0, 16, 16)
    said: list[str] = []
    listener = threading.Thread(
        target=lambda: said.extend(name for name, _ in events(stack, wide.id, view[0], view[-1]))
    )
    listener.start()
    eventually(lambda: stack.drawn() > before, "painting")
    stack.stop()
    listener.join(PATIENCE_S)
    print(f"\nstopped while painting in {stack.stopped_s:.1f} s")  # noqa: T201
    assert said[-1] == "problem", "who listens is told that it ends"
    assert stack.stopped_s < STOPS_WITHIN_S
    for name in SERVICES:
        log = (stack.data / "logs" / f"{name}.log").read_text()
        assert re.search("draining|shutdown complete", log), f"{name} was not let end"

    stack.start()
    again = httpx.post(
        f"{stack.url}/canvases",
        json={"world": canvas.world, "seed": canvas.seed, "sampling": {"group": 64}},
        timeout=PATIENCE_S,
    )
    assert (again.status_code, canvas_of(again.json())) == (200, canvas), "made once, for ever"
    with Visitor(stack) as visitor:
        assert visitor.tiles(canvas.id, list(had)) == had
        for tile in had:
            seen = httpx.get(stack.url + path_of(canvas.id, tile), params={"wait": 0})
            assert (seen.status_code, seen.content) == (200, had[tile])
        assert stack.drawn() == 0, "nothing is drawn again"
        # Other pictures of the same patches are decoded again, not drawn.
        assert visitor.tile(canvas.id, next(iter(had)), format="jpg")
        assert stack.drawn() == 0
    assert_painted(model, canvas, had)


def test_a_second_one_at_the_same_port_is_refused_in_a_line(stack: Stack) -> None:
    pids = stack.pids()
    done = subprocess.run(stack.command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    port = stack.url.rpartition(":")[2]
    assert done.stderr == (
        f"handscroll: cannot listen on 127.0.0.1:{port} (Address already in use); name another "
        "with --port\n"
    )
    assert stack.pids() == pids
