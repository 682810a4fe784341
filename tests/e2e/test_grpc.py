"""gRPC as a client in any language would use it: what HTTP serves, and what `Painter` paints."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Region, Tile, tile_to_xyz
from handscroll.paint import Painter
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from svckit.wire import canvas_from_pb
from tests.e2e.asking import block, new_canvas, path_of, stream
from tests.support.stack import PATIENCE_S, Stack

SERVICES = [
    "handscroll_api.tiler.v1.TilerService",
    "handscroll_api.tiler.v1.ExportService",
    "handscroll_api.canvas.v1.CanvasService",
]


@pytest.fixture
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(stack.grpc) as channel:
        yield channel


def test_canvases_are_the_same_by_grpc_and_http(stack: Stack, channel: grpc.Channel) -> None:
    stub = CanvasServiceStub(channel)
    listed = stub.ListWorlds(canvas_pb.ListWorldsRequest(), timeout=PATIENCE_S).worlds
    told = httpx.get(f"{stack.url}/worlds", timeout=PATIENCE_S).json()["worlds"]
    assert [(one.name, one.canvas) for one in listed] == [
        (one["name"], one["canvas"]) for one in told
    ]
    canvas = new_canvas(stack)
    request = canvas_pb.CreateCanvasRequest(
        world=canvas.world, seed=canvas.seed, sampling=canvas_pb.Sampling(group=64)
    )
    again = stub.CreateCanvas(request, timeout=PATIENCE_S)
    assert (again.canvas.id, again.created) == (canvas.id, False)
    got = stub.GetCanvas(canvas_pb.GetCanvasRequest(canvas=canvas.id), timeout=PATIENCE_S)
    assert canvas_from_pb(got.canvas) == canvas


@pytest.mark.parametrize("world", ["planet", "scroll"])
def test_tiles_and_regions_are_the_same_by_grpc_and_http_and_painter(
    stack: Stack, channel: grpc.Channel, model: Checkpoint, world: str
) -> None:
    canvas = new_canvas(stack, world)
    stub = TilerServiceStub(channel)
    view = block(2, 1, -2, 2, 2)
    found = stream(stack, canvas.id, view[0], view[-1])
    assert set(found) == set(view)
    with Painter(model, canvas) as painter, httpx.Client(base_url=stack.url) as client:
        for tile in view:
            x, y, z = tile_to_xyz(tile)
            request = tiler_pb.GetTileRequest(
                canvas=canvas.id,
                tile=tiler_pb.TileAddress(z=z, x=x, y=y),
                format=tiler_pb.IMAGE_FORMAT_PNG,
            )
            assert stub.GetTile(request, timeout=PATIENCE_S).image == found[tile]
            by_http = client.get(path_of(canvas.id, tile), timeout=PATIENCE_S)
            assert by_http.content == found[tile]
        region = Region(2, 300, -200, 333, 444)
        rows = [
            (one.top_px, one.height_px, np.frombuffer(one.rgb, np.uint8))
            for one in stub.RenderRegion(
                tiler_pb.RenderRegionRequest(
                    canvas=canvas.id,
                    level=region.level,
                    top_px=region.top,
                    left_px=region.left,
                    height_px=region.height,
                    width_px=region.width,
                ),
                timeout=PATIENCE_S,
            )
        ]
        assert [top for top, _, _ in rows] == [
            sum(height for _, height, _ in rows[:number]) for number in range(len(rows))
        ]
        picture = np.concatenate([rgb.reshape(-1, region.width, 3) for _, _, rgb in rows])
        np.testing.assert_array_equal(picture, np.concatenate(list(painter.region(region))))
        one = Tile(2, 1, -2)
        shown = client.get(path_of(canvas.id, one, "webp")).headers["Content-Type"]
        assert shown == "image/webp"


def test_health_and_reflection_answer(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", *SERVICES):
        request = health_pb2.HealthCheckRequest(service=name)
        answer = health.Check(request, timeout=PATIENCE_S)  # type: ignore[attr-defined]
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {*SERVICES, "grpc.health.v1.Health"} <= set(database.get_services())
    found = database.FindFileContainingSymbol(SERVICES[0])
    assert "StreamTiles" in [method.name for method in found.service[0].method]
