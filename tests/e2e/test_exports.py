"""Exports through the whole system, and when the tiler that makes one is killed."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any
from xml.etree import ElementTree

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image
from pmtiles.reader import MemorySource, all_tiles

from handscroll.archive import tiles_in
from handscroll.assemble import Pixels
from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.film import FPS, FilmFormat, film
from handscroll.formats import QUALITY, ZOOM_TILE_PX
from handscroll.geometry import MAX_FRAMES, Region, tile_to_xyz
from handscroll.paint import Painter
from handscroll_api.tiler.v1 import export_service_pb2 as export_pb
from handscroll_api.tiler.v1.export_service_pb2_grpc import ExportServiceStub
from tests.e2e.asking import kept, new_canvas, path_of, pixels
from tests.handscroll.test_film import FILM_FORMATS, alike, shown
from tests.support.stack import PATIENCE_S, Stack, eventually
from tests.tiler_svc.test_exports import spec_of

REGION = Region(1, -70, -300, 200, 330)
FILMED = Region(0, -60, -90, 64, 96)
FRAMES = 3


def wished(canvas: Canvas, region: Region, format: str) -> dict[str, Any]:
    """What HTTP is asked for."""
    return {"canvas": canvas.id, "format": format, **region._asdict()}


def ask(stack: Stack, canvas: Canvas, region: Region, format: str) -> dict[str, Any]:
    wish = wished(canvas, region, format)
    answer = httpx.post(f"{stack.url}/exports", json=wish, timeout=PATIENCE_S)
    assert answer.status_code in (200, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def made(stack: Stack, canvas: Canvas, region: Region, format: str) -> bytes:
    """The file of an export, asked for as often as it takes."""
    ends = time.monotonic() + PATIENCE_S
    while (told := ask(stack, canvas, region, format))["state"] != "done":
        assert time.monotonic() < ends, told
        time.sleep(0.2)
    return httpx.get(f"{stack.url}{told['file']}", timeout=PATIENCE_S).content


def made_by_grpc(stack: Stack, spec: export_pb.ExportSpec, tiles: int) -> bytes:
    """The file of an export of so many tiles, from its start to its bytes."""
    with grpc.insecure_channel(stack.grpc) as channel:
        stub = ExportServiceStub(channel)
        request = export_pb.CreateExportRequest(spec=spec)
        begun = stub.CreateExport(request, timeout=PATIENCE_S).export
        assert begun.spec == spec
        asked = export_pb.GetExportRequest(export=begun.id)

        def done() -> export_pb.Export | None:
            told = stub.GetExport(asked, timeout=PATIENCE_S).export
            return told if told.state == export_pb.EXPORT_STATE_DONE else None

        told = eventually(done, "the file of an export")
        assert told.done == told.total == tiles
        wanted = export_pb.DownloadExportRequest(export=begun.id)
        pieces = stub.DownloadExport(wanted, timeout=PATIENCE_S)
        content = b"".join(piece.content for piece in pieces)
    assert len(content) == told.size_bytes
    return content


def saved(rgb: Pixels, kind: str, quality: int = QUALITY) -> Pixels:
    """What is left of pixels when Pillow has saved them as ours are saved."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind, quality=quality, subsampling=0, method=2)
    return pixels(file.getvalue())


@pytest.fixture(scope="module")
def still(session_stack: Stack) -> Canvas:
    session_stack.heal()
    return new_canvas(session_stack)


@pytest.fixture(scope="module")
def painted(model: Checkpoint, still: Canvas) -> Pixels:
    """REGION of the canvas that stands still."""
    with Painter(model, still) as painter:
        return np.concatenate(list(painter.region(REGION)))


@pytest.mark.parametrize(("format", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_export_is_what_a_painter_paints(
    stack: Stack, still: Canvas, painted: Pixels, format: str, kind: str
) -> None:
    content = made(stack, still, REGION, format)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == (kind, (REGION.width, REGION.height))
    np.testing.assert_array_equal(pixels(content), saved(painted, kind))


def test_deep_zoom_is_what_a_painter_paints(stack: Stack, still: Canvas, painted: Pixels) -> None:
    with zipfile.ZipFile(io.BytesIO(made(stack, still, REGION, "dzi"))) as archive:
        (size,) = ElementTree.fromstring(archive.read("handscroll.dzi"))
        told = int(size.attrib["Height"]), int(size.attrib["Width"])
        assert told == (REGION.height, REGION.width)
        for col, left in enumerate(range(0, REGION.width, ZOOM_TILE_PX)):
            found = pixels(archive.read(f"handscroll_files/9/{col}_0.jpg"))
            expected = saved(painted[:, left : left + ZOOM_TILE_PX], "JPEG")
            np.testing.assert_array_equal(found, expected)


def test_export_by_grpc_is_what_a_painter_paints(
    stack: Stack, still: Canvas, painted: Pixels
) -> None:
    """No other test asks for this quality, so it is made here."""
    spec = spec_of(still, REGION, format=export_pb.EXPORT_FORMAT_JPEG, quality=70)
    content = made_by_grpc(stack, spec, tiles=2)
    np.testing.assert_array_equal(pixels(content), saved(painted, "JPEG", 70))


@pytest.fixture(scope="module")
def moving(session_stack: Stack) -> Canvas:
    session_stack.heal()
    return new_canvas(session_stack, frames=FRAMES)


@pytest.fixture(scope="module")
def frames(model: Checkpoint, moving: Canvas) -> list[Pixels]:
    """FILMED in all frames of the canvas that moves."""
    with Painter(model, moving) as painter:
        return [
            np.concatenate(list(painter.region(FILMED._replace(frame=frame))))
            for frame in range(FRAMES)
        ]


@pytest.mark.parametrize("format", FILM_FORMATS)
def test_film_shows_the_frames_that_a_painter_paints(
    stack: Stack, moving: Canvas, frames: list[Pixels], format: FilmFormat
) -> None:
    content = made(stack, moving, FILMED, format)
    assert [one.shape for one in shown(format, content)] == [(64, 96, 3)] * FRAMES
    assert alike(format, content, film(format, frames, FPS, back_and_forth=False))
    assert not alike(format, content, film(format, frames[::-1], FPS, back_and_forth=False))


def test_film_by_grpc_is_played_as_it_was_wished(
    stack: Stack, moving: Canvas, frames: list[Pixels]
) -> None:
    how = {"format": export_pb.EXPORT_FORMAT_AWEBP, "fps": 12, "back_and_forth": True}
    content = made_by_grpc(stack, spec_of(moving, FILMED, **how), tiles=FRAMES)
    assert content == film("awebp", frames, 12, back_and_forth=True)


def test_export_that_is_cancelled_by_http_is_made_no_further(stack: Stack) -> None:
    """Whoever has it made holds it, by a cookie."""
    canvas = new_canvas(stack, frames=MAX_FRAMES)
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
        export = client.post("/exports", json=wished(canvas, FILMED, "gif")).json()["id"]

        def progress() -> float:
            told = client.get(f"/exports/{export}").json()
            return float(told["done"] / told["total"])

        cancel(stack, export, progress, lambda: client.delete(f"/exports/{export}"))
        assert client.get(f"/exports/{export}").status_code == 404


def test_export_that_is_cancelled_by_grpc_is_made_no_further(stack: Stack) -> None:
    canvas = new_canvas(stack, frames=MAX_FRAMES)
    spec = spec_of(canvas, FILMED, format=export_pb.EXPORT_FORMAT_GIF)
    with grpc.insecure_channel(stack.grpc) as channel:
        stub = ExportServiceStub(channel)
        request = export_pb.CreateExportRequest(spec=spec)
        export = stub.CreateExport(request, timeout=PATIENCE_S).export.id
        asked = export_pb.GetExportRequest(export=export)

        def progress() -> float:
            told = stub.GetExport(asked, timeout=PATIENCE_S).export
            return told.done / told.total

        named = export_pb.DeleteExportRequest(export=export)
        cancel(stack, export, progress, lambda: stub.DeleteExport(named, timeout=PATIENCE_S))
        with pytest.raises(grpc.RpcError) as refused:
            stub.GetExport(asked, timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def cancel(
    stack: Stack, export: str, progress: Callable[[], float], delete: Callable[[], object]
) -> None:
    """Delete an export that is under way: nobody makes it then, and nothing is left of it."""
    running = partial(stack.metric, "handscroll_exports_running", "tiler")
    eventually(lambda: 0 < progress() < 1, "an export under way")
    assert running() == 1
    delete()
    assert running() == 0
    assert not [name for name in kept(stack) if export in name]


def test_archive_holds_the_tiles_that_the_gateway_serves(stack: Stack) -> None:
    canvas, region = new_canvas(stack, "scroll"), Region(1, 100, -90, 200, 60)
    content = made(stack, canvas, region, "pmtiles")
    found = {(x, y, z): image for (z, x, y), image in all_tiles(MemorySource(content))}
    tiles = tiles_in(region, canvas.extent)
    assert set(found) == {tile_to_xyz(tile) for tile in tiles}
    for tile in tiles:
        served = httpx.get(f"{stack.url}{path_of(canvas.id, tile, 'webp')}", timeout=PATIENCE_S)
        assert served.content == found[tile_to_xyz(tile)]


def test_export_whose_tiler_is_killed_is_gone_on_with(stack: Stack, model: Checkpoint) -> None:
    """At first it counts as running, since whoever makes it might only be slow."""
    canvas, region = new_canvas(stack), Region(0, 0, 0, 20, 70 * 256)
    begun = ask(stack, canvas, region, "png")
    stack.child("tiler_svc").kill()
    stack.heal()
    orphan = httpx.get(f"{stack.url}/exports/{begun['id']}", timeout=PATIENCE_S).json()
    assert orphan["state"] == "running" and orphan["file"] is None
    found = pixels(made(stack, canvas, region, "png"))
    part = region._replace(left=65 * 256, width=512)
    with Painter(model, canvas) as painter:
        expected = np.concatenate(list(painter.region(part)))
    np.testing.assert_array_equal(found[:, 65 * 256 : 67 * 256], expected)
