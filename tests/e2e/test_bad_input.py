"""Nonsense is refused in clear words, and shakes nobody."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from PIL import Image

from handscroll.canvas import MAX_KNOWN_PIXELS, MAX_KNOWN_PX, Canvas
from handscroll.geometry import Tile
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.tiler.v1 import export_service_pb2 as export_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.export_service_pb2_grpc import ExportServiceStub
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from tests.e2e.asking import Visitor, kept, new_canvas
from tests.support.nonsense import FILES
from tests.support.stack import PATIENCE_S, Stack, eventually

NOBODY = "0" * 64
MIDDLE = 2**15
TEN_MB = 10_000_000
FAR, MANY = 2**31 - 64, 2**32 - 64
PLACE = {"top": 0, "left": 0, "height": 64, "width": 64}
PICTURE_SIDES = {"height": 64, "width": 64}
PICTURE = {"kind": "picture", "finest": 2}
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


@pytest.fixture
def nothing_left(session_stack: Stack) -> Iterator[None]:
    """The store holds what it held."""
    before = kept(session_stack)
    yield
    assert kept(session_stack) == before


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
        (f"/tiles/FILM/16/{MIDDLE}/{MIDDLE}.png?frame=4", 400, "frame must be 0 to 3, not 4"),
        (f"/tiles/CANVAS/16/{MIDDLE}/{MIDDLE}.png?frame=nan", 400, "0 to 31, not 'nan'"),
        (f"/tiles/CANVAS/16/{MIDDLE}/{MIDDLE}.png?frame=-1", 400, "0 to 31, not '-1'"),
        (f"/tiles/CANVAS/16/{MIDDLE}/{MIDDLE}.png?wait=inf", 400, "wait must be 0 to 60 seconds"),
        ("/tiles/CANVAS/16/nan/0.png", 400, "x must be a whole number 0 to 65535, not 'nan'"),
        ("/tiles/CANVAS/16/1e3/0.png", 400, "x must be a whole number 0 to 65535, not '1e3'"),
        (f"/tiles/{NOBODY}/16/{MIDDLE}/{MIDDLE}.png", 404, f"no canvas {NOBODY}"),
        ("/tiles/..%2f..%2fetc/16/0/0.png", 404, "there is nothing at"),
        ("/tiles/nobody/16/0/0.png", 400, "a canvas id must be 64 characters"),
        (f"/canvases/{NOBODY}", 404, f"no canvas {NOBODY}"),
        ("/canvases/CANVAS/events?z=16&left=0&top=0&right=16&bottom=15", 400, "256 tiles, not 272"),
        ("/canvases/CANVAS/events?z=16&left=3&top=0&right=2&bottom=0", 400, "right of right"),
        ("/canvases/CANVAS/events?z=14&left=0&top=0&right=0&bottom=0&frame=9", 400, "0 to 0"),
        (f"/exports/{NOBODY}", 404, f"no export {NOBODY}"),
        ("/exports/x/file", 400, "an export id must be 64 characters"),
        ("/exports?page_size=1001", 400, "page_size must be a whole number 0 to 1000"),
        ("/nothing", 404, "there is nothing at '/nothing'"),
    ],
)
def test_http_refuses_what_cannot_be(
    session_stack: Stack,
    canvas: Canvas,
    film: str,
    nothing_left: None,
    path: str,
    status: int,
    words: str,
) -> None:
    url = session_stack.url + path.replace("CANVAS", canvas.id).replace("FILM", film)
    assert_problem(httpx.get(url, timeout=PATIENCE_S), status, words)


@pytest.mark.parametrize(
    ("wish", "status", "words"),
    [
        (b"garbage", 400, "the body must be JSON"),
        ({"world": "moon"}, 404, "no world 'moon'; there are planet, scroll"),
        ({"world": "planet", "seed": -1}, 400, "seed must be"),
        ({"world": "planet", "prompt": "x" * 2001}, 400, "prompt may have 2000 characters"),
        ({"world": "planet", "prompt": "x" * TEN_MB}, 413, "the body may have 65536 bytes"),
        ({"world": "planet", "prompt": "x" * 10**6}, 413, "the body may have 65536 bytes"),
        ({"world": "planet", "frames": 33}, 400, "frames must be 1 to 32, not 33"),
        ({"world": "planet", "motion": "waves roll"}, 400, "motion takes a canvas of at least 2"),
        ({"world": "planet", "frames": 2, "motion": "x" * 2001}, 400, "2000 characters, not 2001"),
        ({"world": "planet", "order": "spiral"}, 400, "order must be lattice, raster or outward"),
        (
            {"world": "planet", "order": "raster"}
            | {"extent": PICTURE | {"height_px": MANY, "width_px": MANY}},
            400,
            "at most 4096 patches",
        ),
        (
            {"world": "planet", "extent": PICTURE | {"height_px": 0, "width_px": 64}},
            400,
            "height must be a positive multiple of 64 px, not 0",
        ),
        (
            {"world": "planet", "regions": [{"prompt": "", **PLACE, "height": 0}]},
            400,
            "a region's height must be 1 to",
        ),
        ({"world": "planet", "regions": [{"prompt": "", **PLACE}] * 33}, 400, "may have 32 items"),
        (
            {"world": "planet", "known": {"picture": NOBODY, "top": FAR, **PICTURE_SIDES}},
            400,
            "the known picture's top must be a multiple of 64 px and at most",
        ),
        ({"world": "planet", "known": {"picture": NOBODY}}, 404, f"no picture {NOBODY}"),
        (
            {"world": "scroll", "known": {"picture": NOBODY, "height": 768, "width": 64}},
            400,
            "covers 0 to 768 px, and the scroll only 0 to 704",
        ),
        ({"branch": {"parent": NOBODY, **PLACE}}, 404, f"no canvas {NOBODY}"),
        (
            {"branch": {"parent": "CANVAS", **PLACE, "height": 0}},
            400,
            "a branch's height must be 1 to 4096 px, not 0",
        ),
        (
            {"branch": {"parent": "CANVAS", **PLACE, "left": 32}},
            400,
            "a branch's left and width must be multiples of 64 px, not 32 and 64",
        ),
        (b'{"world": "planet", "sampling": {"guidance": NaN}}', 400, "a finite number, not nan"),
        (b'{"world": "planet", "sampling": {"top_p": 1e999}}', 400, "a finite number, not inf"),
        (b'{"world": "planet", "known": {"picture": "", "top": -Infinity}}', 400, "not -inf"),
        ({"world": "planet", "extent": {"kind": "plane", "finest": 6}}, 409, "has levels 0 to 2"),
    ],
)
def test_http_refuses_canvases_that_cannot_be(
    session_stack: Stack, canvas: Canvas, nothing_left: None, wish: Any, status: int, words: str
) -> None:
    url, headers = f"{session_stack.url}/canvases", {"Content-Type": "application/json"}
    body = wish if isinstance(wish, bytes) else json.dumps(wish).encode()
    content = body.replace(b"CANVAS", canvas.id.encode())
    answer = httpx.post(url, content=content, headers=headers, timeout=PATIENCE_S)
    assert_problem(answer, status, words)


@pytest.fixture(scope="module")
def film(session_stack: Stack, canvas: Canvas) -> str:
    """A canvas of four frames."""
    wish = {"world": "planet", "seed": 1, "frames": 4, "sampling": {"group": 64}}
    return str(httpx.post(f"{session_stack.url}/canvases", json=wish).json()["id"])


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"height": 0}, 400, "a region must not be empty; this one is 0 x 64 px"),
        ({"width": -1}, 400, "width must be"),
        ({"width": 2**16 + 1}, 400, "65536 px wide"),
        ({"height": 2**32 - 1}, 400, "outside the world"),
        ({"left": 2**62}, 400, "outside the world"),
        ({"top": -(2**63)}, 400, "outside the world"),
        ({"left": 2**63}, 400, "left must be"),
        ({"left": 1.5}, 400, "left must be"),
        ({"level": 3}, 404, "levels 0 to 2, not 3"),
        ({"frame": 4}, 400, "frame must be 0 to 3, not 4"),
        ({"frame": -1}, 400, "frame must be"),
        ({"format": "bmp"}, 400, "format must be"),
        ({"format": "gif", "fps": 0}, 400, "fps must be"),
        ({"format": "gif", "fps": 31}, 400, "fps must be"),
        ({"format": "mp4", "fps": 10**30}, 400, "fps must be"),
        ({"format": "mp4", "fps": 7.5}, 400, "fps must be"),
        ({"format": "mp4", "frame": 1}, 400, "shows all frames, not frame 1"),
        ({"format": "mp4", "height": 63}, 400, "even sides"),
        ({"format": "gif", "height": 4096, "width": 4097}, 400, "67108864 pixels in all"),
        ({"fps": 8}, 400, "png is no film"),
        ({"format": "jpg", "quality": 101}, 400, "quality must be"),
        ({"canvas": NOBODY}, 404, f"no canvas {NOBODY}"),
    ],
)
def test_http_refuses_exports_that_cannot_be(
    session_stack: Stack,
    film: str,
    nothing_left: None,
    changes: dict[str, Any],
    status: int,
    words: str,
) -> None:
    wish = {"canvas": film, "level": 2, **PLACE, **changes}
    answer = httpx.post(f"{session_stack.url}/exports", json=wish, timeout=PATIENCE_S)
    assert_problem(answer, status, words)


@pytest.mark.parametrize("name", FILES)
def test_http_refuses_files_that_are_no_pictures(
    session_stack: Stack, canvas: Canvas, nothing_left: None, name: str
) -> None:
    content, words = FILES[name]
    answer = posted(session_stack, content)
    assert_problem(answer, 413 if name == "a large file" else 400, words)


@pytest.mark.parametrize("name", FILES)
def test_grpc_refuses_files_that_are_no_pictures(
    session_stack: Stack, canvas: Canvas, nothing_left: None, name: str
) -> None:
    content, words = FILES[name]
    with pytest.raises(grpc.RpcError) as refused:
        upload(session_stack, content)
    assert_refused(refused.value, Code.INVALID_ARGUMENT, words)


@pytest.fixture(scope="module", params=["PNG", "JPEG", "WEBP"])
def bomb(request: pytest.FixtureRequest) -> bytes:
    """A picture of 81 million pixels: whole, and of one colour, so that its file is small."""
    file = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(file, request.param, method=0)
    assert len(file.getvalue()) < 2**21
    return file.getvalue()


def test_both_doors_refuse_a_small_file_of_81_million_pixels(
    session_stack: Stack, canvas: Canvas, nothing_left: None, bomb: bytes
) -> None:
    words = f"{MAX_KNOWN_PX} px a side and {MAX_KNOWN_PIXELS} in all, not 9000 x 9000"
    assert_problem(posted(session_stack, bomb), 400, words)
    with pytest.raises(grpc.RpcError) as refused:
        upload(session_stack, bomb)
    assert_refused(refused.value, Code.INVALID_ARGUMENT, words)


def posted(stack: Stack, content: bytes) -> httpx.Response:
    """What HTTP says of a file that is given as a picture."""
    headers = {"Content-Type": "image/png"}
    return httpx.post(f"{stack.url}/pictures", content=content, headers=headers, timeout=PATIENCE_S)


def upload(stack: Stack, content: bytes) -> None:
    """Give a file as a picture by gRPC."""
    pieces = (content[at : at + 2**20] for at in range(0, len(content), 2**20))
    with grpc.insecure_channel(stack.grpc) as channel:
        CanvasServiceStub(channel).UploadPicture(
            (canvas_pb.UploadPictureRequest(content=one) for one in pieces), timeout=PATIENCE_S
        )


def test_grpc_client_that_leaves_amid_an_upload_leaves_nothing(
    session_stack: Stack, canvas: Canvas, nothing_left: None
) -> None:
    """All of a picture has come from it, but it has not said so."""
    file, left = io.BytesIO(), threading.Event()
    Image.new("RGB", (2048, 2048)).save(file, "PNG")  # it takes a moment to be read

    def pieces() -> Iterator[canvas_pb.UploadPictureRequest]:
        yield canvas_pb.UploadPictureRequest(content=file.getvalue())
        left.wait(PATIENCE_S)

    def running() -> float:
        rpc = "/handscroll_api.canvas.v1.CanvasService/UploadPicture"
        return session_stack.metric("handscroll_rpc_running", "tiler", rpc=rpc)

    with grpc.insecure_channel(session_stack.grpc) as channel:
        call = CanvasServiceStub(channel).UploadPicture.future(pieces(), timeout=PATIENCE_S)
        eventually(lambda: running() == 1, "an upload under way")
        call.cancel()
        eventually(lambda: running() == 0, "its end")
        left.set()


SQUARE: dict[str, Any] = {"level": 2, "height_px": 64, "width_px": 64}
NAN, INF = float("nan"), float("inf")
CALLS: list[tuple[Any, str, Any, str]] = [
    *(
        (CanvasServiceStub, "CreateCanvas", canvas_pb.CreateCanvasRequest(world="planet", **one), w)
        for one, w in (
            ({"sampling": canvas_pb.Sampling(temperature=NAN)}, "temperature must be 0 to 4"),
            ({"sampling": canvas_pb.Sampling(guidance=INF)}, "guidance must be 0 to 20, not inf"),
            ({"sampling": canvas_pb.Sampling(top_p=-INF)}, "top_p must be 0 to 1, not -inf"),
            ({"frames": 33}, "frames must be 1 to 32, not 33"),
            ({"motion": "waves roll"}, "motion takes a canvas of at least 2 frames"),
            ({"prompt": "x" * 10**6}, "prompt may have 2000 characters, not 1000000"),
            ({"motion": "x" * 10**6, "frames": 2}, "motion may have 2000 characters, not 1000000"),
            ({"regions": [canvas_pb.PromptRegion(width_px=5)]}, "a region's height must be 1 to"),
            ({"extent": canvas_pb.Extent(kind=9)}, "extent.kind must be one of"),  # type: ignore[arg-type]
            ({"known": canvas_pb.Known(picture=NOBODY, top_px=FAR, height_px=64, width_px=64)}, ""),
        )
    ),
    *(
        (TilerServiceStub, "RenderRegion", tiler_pb.RenderRegionRequest(**SQUARE | one), words)
        for one, words in (
            ({"height_px": 0}, "a region must not be empty; this one is 0 x 64 px"),
            ({"height_px": 2**32 - 1, "width_px": 2**32 - 1}, "67108864 pixels in all"),
            ({"left_px": 2**63 - 1}, "outside the world"),
            ({"frame": 2**32 - 1}, "frame must be 0 to 3"),
        )
    ),
    *(
        (ExportServiceStub, "CreateExport", export_pb.ExportSpec(**SQUARE | one), words)
        for one, words in (
            ({"format": 99}, "format must be 0 to 8, not 99"),
            ({"format": export_pb.EXPORT_FORMAT_MP4, "fps": 31}, "fps must be 1 to 30, not 31"),
            ({"format": export_pb.EXPORT_FORMAT_MP4, "frame": 3}, "shows all frames, not frame 3"),
            ({"format": export_pb.EXPORT_FORMAT_GIF, "height_px": 2**19}, "67108864 pixels in all"),
            ({"frame": 4}, "frame must be 0 to 3, not 4"),
            ({"width_px": 0}, "a region must not be empty"),
            ({"top_px": -(2**63)}, "outside the world"),
        )
    ),
]


@pytest.mark.parametrize(("stub", "method", "request_", "words"), CALLS)
def test_grpc_refuses_what_cannot_be_made(
    session_stack: Stack,
    film: str,
    nothing_left: None,
    stub: Any,
    method: str,
    request_: Any,
    words: str,
) -> None:
    if not isinstance(request_, canvas_pb.CreateCanvasRequest):
        request_.canvas = film
    if isinstance(request_, export_pb.ExportSpec):
        request_ = export_pb.CreateExportRequest(spec=request_)
    with grpc.insecure_channel(session_stack.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            answer = getattr(stub(channel), method)(request_, timeout=PATIENCE_S)
            list(answer) if method == "RenderRegion" else answer
    assert_refused(refused.value, Code.INVALID_ARGUMENT, words)


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
    session_stack: Stack,
    canvas: Canvas,
    nothing_left: None,
    changes: dict[str, Any],
    code: Code,
    words: str,
) -> None:
    z, x, y = changes.pop("tile", (16, MIDDLE, MIDDLE))
    wish: dict[str, Any] = {"canvas": canvas.id, **changes}
    request = tiler_pb.GetTileRequest(tile=tiler_pb.TileAddress(z=z, x=x, y=y), **wish)
    with grpc.insecure_channel(session_stack.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            TilerServiceStub(channel).GetTile(request, timeout=PATIENCE_S)
    assert_refused(refused.value, code, words)


def test_grpc_refuses_a_prompt_of_ten_megabytes(
    session_stack: Stack, canvas: Canvas, nothing_left: None
) -> None:
    request = canvas_pb.CreateCanvasRequest(world="planet", prompt="x" * TEN_MB)
    with grpc.insecure_channel(session_stack.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            CanvasServiceStub(channel).CreateCanvas(request, timeout=PATIENCE_S)
    # gRPC itself refuses it, before anybody reads it.
    assert_refused(refused.value, Code.RESOURCE_EXHAUSTED, "larger than max")


def test_every_method_refuses_bytes_that_are_no_message(
    session_stack: Stack, canvas: Canvas, nothing_left: None
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
