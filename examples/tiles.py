"""Make a canvas and fetch tiles of it by gRPC; ``handscroll serve`` must run."""

import grpc

from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub

channel = grpc.insecure_channel("127.0.0.1:7001")
canvases, tiler = CanvasServiceStub(channel), TilerServiceStub(channel)

spec = canvas_pb.CreateCanvasRequest(world="scroll", seed=3, prompt="autumn forest by a lake")
canvas = canvases.CreateCanvas(spec, timeout=60).canvas
view = tiler_pb.StreamTilesRequest(
    canvas=canvas.id,
    first=tiler_pb.TileAddress(z=16, x=2**15, y=2**15),  # level 2, column 0, row 0
    last=tiler_pb.TileAddress(z=16, x=2**15 + 3, y=2**15 + 2),
    format=tiler_pb.IMAGE_FORMAT_PNG,
)
for answer in tiler.StreamTiles(view, timeout=300):  # each as it becomes ready
    name = f"{answer.tile.z}-{answer.tile.x}-{answer.tile.y}.png"
    with open(name, "wb") as file:
        file.write(answer.image)
    print(f"{answer.ready} of {answer.total}: {name}")
