"""Nonsense is refused in clear words, and shakes nobody."""

from __future__ import annotations

import httpx
import grpc
import pytest

from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from tests.e2e.asking import Visitor, new_canvas
from handscroll.geometry import Tile
from tests.support.stack import PATIENCE_S, Stack

NOBODY = "0" * 64
MIDDLE = 2**15
TEN_MB = 10_000_000
Code = grpc.StatusCode


@pytest.fixture(autouse=True)
def unshaken(stack: Stack) -> object:
    """Afterwards the same processes still serve."""
    pids = stack.pids()
    yield
    assert stack.pids() == pids
    canvas = new_canvas(stack, "scroll")
    with Visitor(stack) as visitor:
        assert visitor.tile(canvas.id, Tile(0, 0, 0))
    assert visitor.answers == {200: 1}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"/tiles/CANVAS/13/{MIDDLE}/{MIDDLE}.png", 400, "z must be a whole number 14 to 20"),
        ("/tiles/CANVAS/21/0/0.png", 400, "z must be a whole number 14 to 20, not '21'"),
        ("/tiles/CANVAS/16/65536/0.png", 400, "x must be a whole number 0 to 65535, not '65536'"),
        ("/tiles/CANVAS/16/0/65536.png", 400, "y must be a whole number 0 to 65535, not '65536'"),
        ("/tiles/CANVAS/16/-1/0.png", 400, "x must be a whole number 0 to 65535, not '-1'"),
        (f"/tiles/CANVAS/16/{'9' * 5000}/0.png", 400, "x must be a whole number 0 to 65535"),
        ("/tiles/CANVAS/17/0/0.png", 404, "lies outside the canvas"),
        (f"/tiles/CANVAS/16/{MIDDLE}/{MIDDLE}.gif", 400, "the format must be one of webp, png, jpg"),
        (f"/tiles/CANVAS/16/{MIDDLE}/{MIDDLE}.png?wait=61", 400, "wait must be 0 to 60 seconds"),
        (f"/tiles/CANVAS/16/{MIDDLE}/{MIDDLE}.png?frame=1", 400, "frame must be 0 to 0, not 1"),
        (f"/tiles/{NOBODY}/16/{MIDDLE}/{MIDDLE}.png", 404, f"no canvas {NOBODY}"),
        ("/tiles/..%2f..%2fetc/16/0/0.png", 404, "there is nothing at"),
        ("/tiles/nobody/16/0/0.png", 400, "a canvas id must be 64 characters"),
        (f"/canvases/{NOBODY}", 404, f"no canvas {NOBODY}"),
        ("/canvases/CANVAS/events?z=16&left=0&top=0&right=16&bottom=15", 400, "256 tiles, not 272"),
        ("/nothing", 404, "there is nothing at '/nothing'"),
    ],
)
def test_http_refuses_what_cannot_be(
    bare_canvas: str, stack: Stack, path: str, status: int, words: str
) -> None:
    answer = httpx.get(f"{stack.url}{path.replace('CANVAS', bare_canvas)}", timeout=PATIENCE_S)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert words in answer.json()["detail"]
