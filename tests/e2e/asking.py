"""What the end-to-end tests have in common: asking for tiles as clients do, and what must come."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
from PIL import Image

from handscroll.assemble import Pixels
from handscroll.canvas import FORMAT, Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Patch, Tile, tile_to_xyz, window_patches, xyz_to_tile
from handscroll.order import Lattice
from handscroll.paint import Painter
from handscroll.tokenizer import RADIUS_TOK
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from svckit.keys import Prefix
from svckit.store import Store
from tests.support.stack import PATIENCE_S, Stack

MARGIN_S = 10.0
"""How much later than its deadline a request may end on a busy machine."""
PATCH_BYTES = 1024
TOKEN_PX = 16

_seeds = itertools.count(1)


def new_canvas(stack: Stack, world: str = "planet", group: int = 64, frames: int = 1) -> Canvas:
    """A canvas that nobody has looked at. Larger groups are drawn in fewer steps."""
    wish = {
        "world": world,
        "seed": next(_seeds),
        "frames": frames,
        "sampling": {"group": group},
    }
    answer = httpx.post(f"{stack.url}/canvases", json=wish, timeout=30)
    assert answer.status_code == 201, answer.text
    return canvas_of(answer.json())


def canvas_of(told: dict[str, object]) -> Canvas:
    """The spec that the gateway tells."""
    spec = {name: value for name, value in told.items() if name not in ("id", "tilejson")}
    canvas = Canvas.parse(json.dumps({"format": FORMAT, **spec}))
    assert canvas.id == told["id"]
    return canvas


def block(level: int, row: int, col: int, rows: int, cols: int) -> list[Tile]:
    """A rectangle of tiles."""
    return [Tile(level, row + down, col + right) for down in range(rows) for right in range(cols)]


def path_of(canvas_id: str, tile: Tile, format: str = "png") -> str:
    """The URL's path of a tile."""
    x, y, z = tile_to_xyz(tile)
    return f"/tiles/{canvas_id}/{z}/{x}/{y}.{format}"


def cone(canvas: Canvas, tiles: Iterable[Tile]) -> set[Patch]:
    """Every patch that must be drawn for tiles to stand."""
    under = (window_patches(tile, canvas.extent, TOKEN_PX, RADIUS_TOK) for tile in tiles)
    return Lattice(canvas.extent).cone(patch for patches in under for patch in patches)


def pixels(image: bytes) -> Pixels:
    """The pixels of a file."""
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("RGB"))


def assert_painted(model: Checkpoint, canvas: Canvas, found: dict[Tile, bytes]) -> None:
    """Tiles, as PNG, are what `Painter` paints in one process."""
    with Painter(model, canvas) as painter:
        for tile, image in found.items():
            np.testing.assert_array_equal(pixels(image), painter.tile(tile), err_msg=str(tile))


class Visitor:
    """An HTTP client that asks for tiles, and again when it is told to.

    Attributes:
        overrun_s: by how much the slowest answer came after the time that was given for it.
        answers: how many there were of each status; 0 stands for none.
    """

    def __init__(self, stack: Stack) -> None:
        self.overrun_s = -PATIENCE_S
        self.answers: Counter[int] = Counter()
        self._client = httpx.Client(base_url=stack.url)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def tile(self, canvas_id: str, tile: Tile, format: str = "png", wait_s: float = 30.0) -> bytes:
        """A tile, however often it must be asked for."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                answer = self._client.get(
                    path_of(canvas_id, tile, format),
                    params={"wait": wait_s},
                    timeout=wait_s + 2 * MARGIN_S,
                )
            except httpx.TransportError:
                status, pause_s = 0, 0.2  # the gateway is away, or went
            else:
                status, pause_s = answer.status_code, float(answer.headers.get("Retry-After", 0))
            self.answers[status] += 1
            self.overrun_s = max(self.overrun_s, time.monotonic() - began - wait_s)
            if status == 200:
                return answer.content
            assert status == 0 or (status == 503 and pause_s >= 1), answer.text
            time.sleep(pause_s)
        raise AssertionError(f"{tile} did not come; answers: {self.answers}")

    def tiles(
        self, canvas_id: str, tiles: Iterable[Tile], wait_s: float = 30.0
    ) -> dict[Tile, bytes]:
        """Tiles, all asked for at once."""
        asked = list(tiles)
        with ThreadPoolExecutor(len(asked)) as threads:
            found = threads.map(lambda tile: self.tile(canvas_id, tile, wait_s=wait_s), asked)
            return dict(zip(asked, found, strict=True))


def stream(
    stack: Stack, canvas_id: str, first: Tile, last: Tile, timeout_s: float = 60.0
) -> dict[Tile, bytes]:
    """The tiles of a rectangle from gRPC; a stream that breaks is opened again."""
    (x1, y1, z), (x2, y2, _) = tile_to_xyz(first), tile_to_xyz(last)
    request = tiler_pb.StreamTilesRequest(
        canvas=canvas_id,
        first=tiler_pb.TileAddress(z=z, x=x1, y=y1),
        last=tiler_pb.TileAddress(z=z, x=x2, y=y2),
        format=tiler_pb.IMAGE_FORMAT_PNG,
    )
    found: dict[Tile, bytes] = {}
    end = time.monotonic() + PATIENCE_S
    with grpc.insecure_channel(stack.grpc) as channel:
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                for one in TilerServiceStub(channel).StreamTiles(
                    request, timeout=timeout_s, wait_for_ready=True
                ):
                    tile = xyz_to_tile(one.tile.x, one.tile.y, one.tile.z)
                    assert found.setdefault(tile, one.image) == one.image
                assert one.ready == one.total
                return found
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                assert error.code() in passing, error
                assert time.monotonic() - began < timeout_s + MARGIN_S
                time.sleep(0.5)
    raise AssertionError(f"of the stream came {sorted(found)}")


def kept(stack: Stack) -> set[str]:
    """The names of all that a store holds."""
    folder = stack.data / "store"
    return {str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()}


def assert_store_is_whole(store: Store) -> Counter[str]:
    """Every value in a store is a whole patch, picture or spec; how many there are of each."""

    async def look() -> Counter[str]:
        seen: Counter[str] = Counter()
        for kind in ("patches", "tiles", "canvases"):
            async for key in store.keys(Prefix(f"{kind}/")):
                content = await store.get(key)
                assert content is not None
                seen[kind] += 1
                if kind == "patches":
                    assert len(content) == PATCH_BYTES, key
                elif kind == "tiles":
                    assert pixels(content).shape == (256, 256, 3), key
                else:
                    assert Canvas.parse(content).id == key.split("/")[1]
        await store.close()
        return seen

    return asyncio.run(look())
