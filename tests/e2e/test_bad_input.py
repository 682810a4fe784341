"""Nonsense is refused in clear words, and shakes nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from handscroll.canvas import Canvas
from handscroll.geometry import Tile
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from tests.e2e.asking import Visitor, new_canvas
from tests.support.stack import PATIENCE_S, Stack

NOBODY = "0" * 64
MIDDLE = 2**15
TEN_MB = 10_000_000
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def canvas(session_stack: Stack) -> Iterator[Canvas]:
    """A canvas to ask nonsense about. After all that the same processes serve as before."""
    session_stack.heal()
    pids = session_stack.pids()
    canvas = new_canvas(session_stack)
    yield canvas
    assert session_stack.pids() == pids
    with Visitor(session_stack) as visitor:
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
        (f"/tiles/CANVAS/16/{MIDDLE}/{MIDDLE}.gif", 400, "the format must be one of webp, png"),
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
    session_stack: Stack, canvas: Canvas, path: str, status: int, words: str
) -> None:
    url = session_stack.url + path.replace("CANVAS", canvas.id)
    assert_problem(httpx.get(url, timeout=PATIENCE_S), status, words)


@pytest.mark.parametrize(
    ("wish", "status", "words"),
    [
        (b"garbage", 400, "the body must be JSON"),
        ({"world": "moon"}, 404, "no world 'moon'; there are planet, scroll"),
        ({"world": "planet", "seed": -1}, 400, "seed must be"),
        ({"world": "planet", "prompt": "x" * 2001}, 400, "prompt may have 2000 characters"),
        ({"world": "planet", "prompt": "x" * TEN_MB}, 413, "the body may have 65536 bytes"),
        ({"world": "planet", "extent": {"kind": "plane", "finest": 6}}, 409, "has levels 0 to 2"),
    ],
)
def test_http_refuses_canvases_that_cannot_be(
    session_stack: Stack, canvas: Canvas, wish: Any, status: int, words: str
) -> None:
    url, headers = f"{session_stack.url}/canvases", {"Content-Type": "application/json"}
    if isinstance(wish, bytes):
        answer = httpx.post(url, content=wish, headers=headers, timeout=PATIENCE_S)
    else:
        answer = httpx.post(url, json=wish, timeout=PATIENCE_S)
    assert_problem(answer, status, words)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"tile": (13, 0, 0)}, Code.INVALID_ARGUMENT, "zoom must be 14 to 20, not 13"),
        ({"tile": (16, 65536, 0)}, Code.INVALID_ARGUMENT, "x and y must be 0 to 65535 at zoom 16"),
        ({"tile": (16, 0, 2**32 - 1)}, Code.INVALID_ARGUMENT, "x and y must be 0 to 65535"),
        ({"tile": (17, 0, 0)}, Code.NOT_FOUND, "outside this plane"),
        ({"canvas": NOBODY}, Code.NOT_FOUND, f"no canvas {NOBODY}"),
        ({"canvas": "../../etc"}, Code.INVALID_ARGUMENT, "64 characters of 0 to 9 and a to f"),
        ({"format": 99}, Code.INVALID_ARGUMENT, "format must be 0 to 3, not 99"),
        ({"frame": 7}, Code.INVALID_ARGUMENT, "frame must be 0 to 0, not 7"),
    ],
)
def test_grpc_refuses_what_cannot_be(
    session_stack: Stack, canvas: Canvas, changes: dict[str, Any], code: Code, words: str
) -> None:
    z, x, y = changes.pop("tile", (16, MIDDLE, MIDDLE))
    wish: dict[str, Any] = {"canvas": canvas.id, **changes}
    request = tiler_pb.GetTileRequest(tile=tiler_pb.TileAddress(z=z, x=x, y=y), **wish)
    with grpc.insecure_channel(session_stack.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            TilerServiceStub(channel).GetTile(request, timeout=PATIENCE_S)
    assert_refused(refused.value, code, words)


def test_grpc_refuses_a_prompt_of_ten_megabytes(session_stack: Stack, canvas: Canvas) -> None:
    request = canvas_pb.CreateCanvasRequest(world="planet", prompt="x" * TEN_MB)
    with grpc.insecure_channel(session_stack.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            CanvasServiceStub(channel).CreateCanvas(request, timeout=PATIENCE_S)
    # gRPC itself refuses it, before anybody reads it.
    assert_refused(refused.value, Code.RESOURCE_EXHAUSTED, "larger than max")


def test_every_method_refuses_bytes_that_are_no_message(
    session_stack: Stack, canvas: Canvas
) -> None:
    garbage = b"\x0a\xff\xff\x03cut short"
    for target, service in services(session_stack):
        with grpc.insecure_channel(target) as channel:
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                with pytest.raises(grpc.RpcError) as refused:
                    if method.server_streaming:
                        list(channel.unary_stream(path, bytes, bytes)(garbage, timeout=PATIENCE_S))
                    else:
                        channel.unary_unary(path, bytes, bytes)(garbage, timeout=PATIENCE_S)
                words = f"these {len(garbage)} bytes are not the message of this call"
                assert_refused(refused.value, Code.INVALID_ARGUMENT, words)


def services(stack: Stack) -> Iterator[tuple[str, ServiceDescriptor]]:
    """Every service there is, and where."""
    files = {
        stack.grpc: (tiler_pb, canvas_pb),
        port_of(stack, "tokenizer_svc"): (tokenizer_pb,),
        port_of(stack, "generator_svc"): (generator_pb,),
    }
    for target, modules in files.items():
        for module in modules:
            for service in module.DESCRIPTOR.services_by_name.values():
                yield target, service


def port_of(stack: Stack, name: str) -> str:
    """Where a service that is not for everyone listens."""
    words = stack.child(name).cmdline()
    return f"127.0.0.1:{words[words.index('--port') + 1]}"


def assert_problem(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert words in answer.json()["detail"]


def assert_refused(error: grpc.RpcError, code: Code, words: str) -> None:
    assert isinstance(error, grpc.Call)
    assert (error.code(), words in (error.details() or "")) == (code, True), error
