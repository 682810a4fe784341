"""Any process may be killed at any moment: whoever waits gets the right picture all the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Tile
from tests.e2e.asking import (
    MARGIN_S,
    Visitor,
    assert_painted,
    assert_store_is_whole,
    block,
    new_canvas,
    stream,
)
from tests.support.stack import Stack, SteadySeaweed, eventually

WITHIN_S = 90.0
"""How soon after a fault a place that nobody has seen must be painted, on a busy machine."""

T = TypeVar("T")

FAULTS: dict[str, Callable[[Stack], list[psutil.Process]]] = {
    "no fault": lambda stack: [],
    "painter": lambda stack: stack.painters()[:1],
    "ray": lambda stack: [stack.child("ray")],
    "gateway": lambda stack: [stack.child("gateway")],
    "tiler_svc": lambda stack: [stack.child("tiler_svc")],
    "tokenizer_svc": lambda stack: [stack.child("tokenizer_svc")],
    "generator_svc": lambda stack: [stack.child("generator_svc")],
}
"""What is killed."""


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_is_killed_every_tile_comes_and_is_right(
    stack: Stack, model: Checkpoint, name: str
) -> None:
    pids = stack.pids()

    def kill() -> None:
        for victim in FAULTS[name](stack):
            victim.kill()

    answers = look_through(stack, model, name, kill)
    if name == "no fault":
        assert stack.pids() == pids and set(answers) == {200}
    else:
        assert stack.pids() != pids
    seen = assert_store_is_whole(stack.open_store())
    assert seen["patches"] and seen["tiles"] and seen["canvases"]


def test_when_the_store_dies_every_tile_comes_and_is_right(
    s3_stack: tuple[Stack, SteadySeaweed], model: Checkpoint
) -> None:
    stack, server = s3_stack

    def restart() -> None:
        server.kill()
        time.sleep(1.0)
        server.resume()

    pids = stack.pids()
    look_through(stack, model, "S3 server", restart)
    assert stack.pids() == pids, "services outlive their store"
    seen = assert_store_is_whole(stack.open_store())
    assert seen["patches"] and seen["tiles"] and seen["canvases"]


@pytest.fixture(scope="module")
def s3_stack(
    tmp_path_factory: pytest.TempPathFactory, tiny: Path
) -> Iterator[tuple[Stack, SteadySeaweed]]:
    """A stack on an S3 server that can be killed."""
    folder = tmp_path_factory.mktemp("s3-stack")
    server = SteadySeaweed(folder / "seaweed")
    server.start()
    stack = Stack(folder / "stack", tiny, f"{server.s3.url}/e2e", server.s3.settings)
    try:
        stack.start()
        yield stack, server
        stack.stop()
    finally:
        stack.kill()
        server.kill()


def look_through(
    stack: Stack, model: Checkpoint, name: str, fault: Callable[[], None]
) -> dict[int, int]:
    """Cause a fault while two clients wait for a cold viewport, and see that all ends well.

    Returns:
        How many answers of each status the HTTP clients got; 0 stands for none.
    """
    canvas = new_canvas(stack)
    view, new_place = block(2, 5, 5, 3, 4), Tile(0, -40, -40)
    before, began = stack.drawn(), time.monotonic()
    with Visitor(stack) as visitor, ThreadPoolExecutor(3) as clients:
        by_http = clients.submit(timed, lambda: visitor.tiles(canvas.id, view))
        by_grpc = clients.submit(timed, lambda: stream(stack, canvas.id, view[0], view[-1]))
        eventually(lambda: stack.drawn() > before, "the first patches", pause_s=0.01)
        assert not by_http.done() and not by_grpc.done()
        fault()
        at_fault = time.monotonic()
        later = clients.submit(timed, lambda: visitor.tiles(canvas.id, [new_place]))
        (of_http, http_at), (of_grpc, grpc_at), (of_later, later_at) = (
            one.result() for one in (by_http, by_grpc, later)
        )
    stack.heal()
    whole_at = time.monotonic()
    print(  # noqa: T201
        f"\n{name:>14}: viewport in {http_at - began:.1f} s by HTTP, {grpc_at - began:.1f} s by "
        f"gRPC; a new place {later_at - at_fault:.1f} s after the fault, all processes "
        f"{whole_at - at_fault:.1f} s; answers {dict(visitor.answers)}"
    )
    assert of_http == of_grpc
    assert_painted(model, canvas, of_http | of_later)
    assert visitor.overrun_s < MARGIN_S, "a request outlived its deadline"
    assert later_at - at_fault < WITHIN_S
    assert not stack.mistakes()
    return visitor.answers


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What work comes to, and when it came."""
    return work(), time.monotonic()
