"""Event streams."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from handscroll.canvas import Canvas
from handscroll.errors import Overloaded
from handscroll.geometry import Tile, tile_to_xyz
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from tests.gateway.conftest import Launch, Stack, metric, path, soon

Event = tuple[str, dict[str, Any]]


def view(canvas: Canvas, first: Tile, last: Tile, tail: str = "") -> str:
    """The URL of a stream."""
    (left, top, z), (right, bottom, _) = tile_to_xyz(first), tile_to_xyz(last)
    return (
        f"/canvases/{canvas.id}/events?z={z}&left={left}&top={top}&right={right}&bottom={bottom}"
        f"{tail}"
    )


def events(answer: httpx.Response) -> Iterator[Event]:
    """The events of a stream, as they come."""
    name = ""
    for line in answer.iter_lines():
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


def all_events(stack: Stack, url: str) -> list[Event]:
    """A stream to its end."""
    with stack.client() as client, client.stream("GET", url) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        return list(events(answer))


def test_poll_then_event_then_tile(stack: Stack) -> None:
    canvas = stack.canvas()
    tiles = [Tile(0, 0, 0), Tile(0, 0, 1), Tile(0, 1, 0), Tile(0, 1, 1)]
    seen = []
    with stack.client() as client, stack.client() as other:
        assert client.get(path(canvas, tiles[0]) + "?wait=0").status_code == 202
        with client.stream("GET", view(canvas, tiles[0], tiles[3])) as answer:
            for name, content in events(answer):
                seen.append(name)
                if name == "tile":
                    x, y, z = content["x"], content["y"], content["z"]
                    url = f"/tiles/{canvas.id}/{z}/{x}/{y}.webp?wait=0"
                    assert other.get(url).status_code == 200
                elif name == "progress":
                    assert content == {"ready": seen.count("progress"), "of": 4}
    assert seen == ["tile", "progress"] * 4 + ["done"]
    assert stack.tiler.streams[0].names_only
    assert stack.tiler.streams[0].priority == generator_pb.PRIORITY_VIEWPORT


def test_tiles_outside_are_left_out(stack: Stack) -> None:
    canvas = stack.canvas("scroll")
    told = all_events(stack, view(canvas, Tile(1, -1, 7), Tile(1, 3, 7)))
    assert [name for name, _ in told] == ["tile", "progress"] * 2 + ["done"]
    assert told[-1] == ("done", {})
    assert all_events(stack, view(canvas, Tile(1, 5, 7), Tile(1, 5, 7))) == [("done", {})]


def test_ahead_is_less_urgent_and_frame_is_passed_on(stack: Stack) -> None:
    canvas = stack.canvas(frames=2)
    all_events(stack, view(canvas, Tile(0, 0, 0), Tile(0, 0, 0), "&ahead=1&frame=1"))
    assert stack.tiler.streams[0].priority == generator_pb.PRIORITY_PREFETCH
    assert stack.tiler.streams[0].frame == 1
    assert stack.get(path(canvas, Tile(0, 0, 0)) + "?wait=0&frame=1").status_code == 200


def test_named_tile_that_is_nowhere_is_painted(launch: Launch) -> None:
    # A tiler names what it has committed, but the store may have let go of it.
    stack = launch()
    canvas = stack.canvas()
    stack.keep(canvas, Tile(0, 0, 0), b"here")
    stack.tiler.store.create = _lost  # type: ignore[method-assign]
    told = all_events(stack, view(canvas, Tile(0, 0, 0), Tile(0, 0, 1)))
    assert [name for name, _ in told] == ["tile", "progress"] * 2 + ["done"]
    assert len(stack.tiler.asked) == 1
    assert stack.get(path(canvas, Tile(0, 0, 1)) + "?wait=0").status_code == 200


async def _lost(key: str, value: bytes) -> bytes:
    return value


def test_leaving_cancels_the_stream(stack: Stack) -> None:
    canvas = stack.canvas()
    stack.keep(canvas, Tile(0, 0, 0), b"here")
    with stack.closed_gate():
        with stack.client() as client:
            with client.stream("GET", view(canvas, Tile(0, 0, 0), Tile(0, 0, 1))) as answer:
                told = events(answer)
                assert next(told)[0] == "tile"
                assert metric(stack, "handscroll_gateway_streams") == 1
                soon(lambda: stack.tiler.waiting == 1, "the tiler is at the second tile")
        soon(lambda: stack.tiler.cancelled == 1, "the tiler hears that nobody watches")
        soon(lambda: metric(stack, "handscroll_gateway_streams") == 0, "the stream is closed")


def test_overload_is_a_problem_event(stack: Stack) -> None:
    stack.tiler.failure = Overloaded("512 patches are waiting", 2.5)
    ((name, content),) = all_events(stack, view(stack.canvas(), Tile(0, 0, 0), Tile(0, 0, 1)))
    assert name == "problem"
    assert content["request_id"]
    assert (
        content
        | {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "512 patches are waiting",
            "retry_after": 3,
        }
        == content
    )


def test_unforeseen_failure_is_a_problem_event(stack: Stack) -> None:
    stack.tiler.failure = ZeroDivisionError("secret")
    ((name, content),) = all_events(stack, view(stack.canvas(), Tile(0, 0, 0), Tile(0, 0, 1)))
    assert name == "problem"
    assert "secret" not in json.dumps(content)


def test_no_tiler_is_told_at_once(launch: Launch) -> None:
    stack = launch()
    canvas = stack.canvas()
    stack.stop_tiler()
    ((name, content),) = all_events(stack, view(canvas, Tile(0, 0, 0), Tile(0, 0, 1)))
    assert (name, content["status"], content["retry_after"]) == ("problem", 503, 1)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "z is missing"),
        ("z=14&left=0&top=0&right=1", "bottom is missing"),
        ("z=13&left=0&top=0&right=1&bottom=1", "not '13'"),
        ("z=14&left=0&top=0&right=16384&bottom=0", "right must be a whole number 0 to 16383"),
        ("z=14&left=2&top=0&right=1&bottom=1", "left must not be"),
        ("z=14&left=0&top=0&right=256&bottom=0", "256 tiles, not 257"),
        ("z=14&left=0&top=0&right=0&bottom=0&ahead=yes", "0 to 1, not 'yes'"),
        ("z=14&left=0&top=0&right=0&bottom=0&frame=1", "0 to 0, not 1"),
    ],
)
def test_impossible_view_is_400_before_the_stream(stack: Stack, query: str, words: str) -> None:
    answer = stack.get(f"/canvases/{stack.canvas().id}/events?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"]


def test_unknown_canvas_is_404_before_the_stream(stack: Stack) -> None:
    query = "z=14&left=0&top=0&right=0&bottom=0"
    assert stack.get(f"/canvases/{'0' * 64}/events?{query}").status_code == 404


def test_head_opens_no_stream(stack: Stack) -> None:
    with stack.client() as client:
        assert client.head(view(stack.canvas(), Tile(0, 0, 0), Tile(0, 0, 1))).status_code == 200
    assert not stack.tiler.streams


def test_silence_is_broken_by_comments(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.events.PING_S", 0.05)
    with stack.closed_gate(), stack.client() as client:
        with client.stream("GET", view(stack.canvas(), Tile(0, 0, 0), Tile(0, 0, 0))) as answer:
            assert next(answer.iter_lines()).startswith(":")
