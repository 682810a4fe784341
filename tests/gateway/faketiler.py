"""A tiler that paints bytes: as slow as a test wants, and failing when it says so."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

from handscroll.branch import shows_branch
from handscroll.canvas import Canvas, Known, Sampling
from handscroll.errors import HandscrollError, InvalidRequest, NotFound
from handscroll.geometry import Extent, patches_of, tile_region, xyz_to_tile
from handscroll.known import digest_of
from handscroll.picture import read_picture
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1 import canvas_service_pb2_grpc as canvas_grpc
from handscroll_api.tiler.v1 import export_service_pb2 as export_pb
from handscroll_api.tiler.v1 import export_service_pb2_grpc as export_grpc
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1 import tiler_service_pb2_grpc as tiler_grpc
from svckit.keys import TileFormat, canvas_key, check_canvas_id, tile_key
from svckit.server import Servicer
from svckit.store import Store
from svckit.wire import (
    branch_from_pb,
    canvas_to_pb,
    extent_from_pb,
    extent_to_pb,
    region_from_pb,
    sampling_from_pb,
)
from tests.gateway.fakeexports import FakeExports

MODEL = "ab" * 32
BYTES = 1234
"""Of each picture, as it is kept."""
_DIGEST = re.compile("[0-9a-f]{64}")
WORLDS = {"planet": Extent("plane", 2), "scroll": Extent("scroll", 2, 704)}
_FORMATS: dict[int, TileFormat] = {0: "webp", 1: "webp", 2: "png", 3: "jpg"}


class FakeTiler(tiler_grpc.TilerServiceServicer, canvas_grpc.CanvasServiceServicer):
    """All services of a tiler.

    Attributes:
        gate: closed, nothing is painted until it is opened.
        failure: what every call raises, if anything.
        exports: its ExportService.
        asked: tiles that were asked for one by one.
        streams: views that were asked for.
        metadata: of the last call.
        waiting: calls that stand before the gate.
        cancelled: calls whose client left while they stood there.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.owned: dict[str, list[str]] = {}
        self.exports = FakeExports(store, self._begin)
        self.pictures: dict[str, tuple[int, int]] = {}
        self.given: dict[str, list[str]] = {}
        self.forget()

    def forget(self) -> None:
        """Be as if nobody had called."""
        self.failure: Exception | None = None
        self.asked: list[tiler_pb.GetTileRequest] = []
        self.streams: list[tiler_pb.StreamTilesRequest] = []
        self.metadata: dict[str, str] = {}
        self.cancelled = 0
        self.exports.forget()

    def servicers(self) -> list[Servicer]:
        """What `svckit.server.started` serves."""
        return [
            Servicer(
                tiler_pb.DESCRIPTOR.services_by_name["TilerService"],
                lambda server: tiler_grpc.add_TilerServiceServicer_to_server(self, server),
            ),
            Servicer(
                export_pb.DESCRIPTOR.services_by_name["ExportService"],
                lambda server: export_grpc.add_ExportServiceServicer_to_server(
                    self.exports, server
                ),
            ),
            Servicer(
                canvas_pb.DESCRIPTOR.services_by_name["CanvasService"],
                lambda server: canvas_grpc.add_CanvasServiceServicer_to_server(self, server),
            ),
        ]

    async def GetTile(
        self, request: tiler_pb.GetTileRequest, context: Any
    ) -> tiler_pb.GetTileResponse:
        self._begin(context)
        self.asked.append(request)
        canvas = await self._canvas(request.canvas)
        image = await self._paint(canvas, request.tile, request.frame, request.format)
        if image is None:
            raise NotFound("the tile lies outside the canvas")
        return tiler_pb.GetTileResponse(image=image)

    async def StreamTiles(
        self, request: tiler_pb.StreamTilesRequest, context: Any
    ) -> AsyncIterator[tiler_pb.StreamTilesResponse]:
        self._begin(context)
        self.streams.append(request)
        canvas = await self._canvas(request.canvas)
        tiles = [
            tiler_pb.TileAddress(z=request.first.z, x=x, y=y)
            for y in range(request.first.y, request.last.y + 1)
            for x in range(request.first.x, request.last.x + 1)
        ]
        tiles = [tile for tile in tiles if _shown(canvas, tile)]
        for number, tile in enumerate(tiles):
            await self._paint(canvas, tile, request.frame, request.format)
            yield tiler_pb.StreamTilesResponse(tile=tile, ready=number + 1, total=len(tiles))

    async def RenderRegion(
        self, request: tiler_pb.RenderRegionRequest, context: Any
    ) -> AsyncIterator[tiler_pb.RenderRegionResponse]:
        raise NotImplementedError
        yield

    async def ListWorlds(
        self, request: canvas_pb.ListWorldsRequest, context: Any
    ) -> canvas_pb.ListWorldsResponse:
        self._begin(context)
        return canvas_pb.ListWorldsResponse(
            worlds=[
                canvas_pb.World(
                    name=name,
                    extent=extent_to_pb(extent),
                    canvas=Canvas(MODEL, name, 1, extent).id,
                    model=MODEL,
                )
                for name, extent in WORLDS.items()
            ]
        )

    async def CreateCanvas(
        self, request: canvas_pb.CreateCanvasRequest, context: Any
    ) -> canvas_pb.CreateCanvasResponse:
        self._begin(context)
        if request.HasField("branch") and not request.world:
            request.world = (await self._canvas(request.branch.parent)).world
        if request.world not in WORLDS:
            raise NotFound(f"there is no world {request.world!r}")
        given = request.HasField("extent")
        canvas = Canvas(
            model=request.model or MODEL,
            world=request.world,
            seed=request.seed,
            extent=extent_from_pb(request.extent) if given else WORLDS[request.world],
            prompt=request.prompt,
            order=request.order or "lattice",
            frames=request.frames or 1,
            sampling=sampling_from_pb(request.sampling, Sampling()),
            known=self._known(request),
            regions=tuple(region_from_pb(region) for region in request.regions),
            motion=request.motion,
            branch=branch_from_pb(request.branch) if request.HasField("branch") else None,
        )
        created = await self.store.get(canvas_key(canvas.id)) is None
        await self.store.create(canvas_key(canvas.id), canvas.canonical())
        own = self.owned.setdefault(self._owner, [])
        if canvas.id not in own:
            own.append(canvas.id)
        return canvas_pb.CreateCanvasResponse(canvas=canvas_to_pb(canvas), created=created)

    def _known(self, request: canvas_pb.CreateCanvasRequest) -> Known | None:
        if not request.HasField("known"):
            return None
        told = request.known
        if not _DIGEST.fullmatch(told.picture):
            raise InvalidRequest(f"a picture must be 64 characters, not {told.picture!r:.80}")
        if told.picture not in self.pictures:
            raise NotFound(f"there is no picture {told.picture}")
        height, width = self.pictures[told.picture]
        return Known(
            told.picture,
            told.top_px,
            told.left_px,
            told.height_px or height,
            told.width_px or width,
        )

    async def UploadPicture(
        self, request: AsyncIterator[canvas_pb.UploadPictureRequest], context: Any
    ) -> canvas_pb.UploadPictureResponse:
        content = b"".join([piece.content async for piece in request])
        self._begin(context)
        pixels = read_picture(content)
        picture, (height, width) = digest_of(pixels), pixels.shape[:2]
        self.pictures[picture] = height, width
        given = self.given.setdefault(self._owner, [])
        if picture not in given:
            given.append(picture)
        return canvas_pb.UploadPictureResponse(picture=picture, height_px=height, width_px=width)

    async def ListPictures(
        self, request: canvas_pb.ListPicturesRequest, context: Any
    ) -> canvas_pb.ListPicturesResponse:
        self._begin(context)
        shown, token = self._page(request, self.given)
        response = canvas_pb.ListPicturesResponse(next_page_token=token)
        for picture in shown:
            height, width = self.pictures[picture]
            response.pictures.add(
                picture=picture, height_px=height, width_px=width, size_bytes=BYTES
            ).made_at.FromSeconds(1)
        return response

    async def DeletePicture(
        self, request: canvas_pb.DeletePictureRequest, context: Any
    ) -> canvas_pb.DeletePictureResponse:
        self._begin(context)
        if not _DIGEST.fullmatch(request.picture):
            raise InvalidRequest(f"a picture must be 64 characters, not {request.picture!r:.80}")
        given = self.given.get(self._owner, [])
        if request.picture not in given:
            raise NotFound(f"picture {request.picture} is not yours")
        given.remove(request.picture)
        return canvas_pb.DeletePictureResponse()

    async def GetUsage(
        self, request: canvas_pb.GetUsageRequest, context: Any
    ) -> canvas_pb.GetUsageResponse:
        self._begin(context)
        return canvas_pb.GetUsageResponse(
            canvases=canvas_pb.Share(held=len(self.owned.get(self._owner, [])), most=7),
            canvas_bytes=canvas_pb.Share(held=5, most=2**20),
            picture_bytes=canvas_pb.Share(held=BYTES * len(self.given.get(self._owner, []))),
            export_bytes=canvas_pb.Share(held=self.exports.held_bytes(self._owner), most=2**24),
        )

    async def GetCanvas(
        self, request: canvas_pb.GetCanvasRequest, context: Any
    ) -> canvas_pb.GetCanvasResponse:
        raise NotImplementedError

    async def ListCanvases(
        self, request: canvas_pb.ListCanvasesRequest, context: Any
    ) -> canvas_pb.ListCanvasesResponse:
        self._begin(context)
        shown, token = self._page(request, self.owned)
        page = [await self._canvas(one) for one in shown]
        return canvas_pb.ListCanvasesResponse(
            canvases=[canvas_pb.OwnCanvas(canvas=canvas_to_pb(one)) for one in page],
            next_page_token=token,
        )

    async def DeleteCanvas(
        self, request: canvas_pb.DeleteCanvasRequest, context: Any
    ) -> canvas_pb.DeleteCanvasResponse:
        self._begin(context)
        check_canvas_id(request.canvas)
        own = self.owned.get(self._owner, [])
        if request.canvas not in own:
            raise NotFound(f"canvas {request.canvas} is not yours")
        own.remove(request.canvas)
        if not any(request.canvas in others for others in self.owned.values()):
            await self.store.delete(canvas_key(request.canvas))
        return canvas_pb.DeleteCanvasResponse()

    def _page(self, request: Any, held: dict[str, list[str]]) -> tuple[list[str], str]:
        """What a page shows of the caller's own, and the token of the next."""
        if not (request.page_token.isascii() and (request.page_token or "0").isdigit()):
            raise InvalidRequest(f"page_token must be one that was given, not {request.page_token}")
        start, size = int(request.page_token or 0), request.page_size or 100
        own = held.get(self._owner, [])[::-1]
        return own[start : start + size], str(start + size) if start + size < len(own) else ""

    @property
    def _owner(self) -> str:
        """Whose canvases: a secret's, else a key's."""
        return self.metadata.get("x-owner", self.metadata.get("authorization", ""))

    def _begin(self, context: Any) -> None:
        self.metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        if self.failure is not None:
            raise self.failure

    async def _canvas(self, canvas_id: str) -> Canvas:
        content = await self.store.get(canvas_key(canvas_id))
        if content is None:
            raise NotFound(f"there is no canvas {canvas_id}")
        return Canvas.parse(content)

    async def _paint(
        self, canvas: Canvas, address: tiler_pb.TileAddress, frame: int, format: int
    ) -> bytes | None:
        """The bytes of a tile, committed; None if there is no such tile."""
        if not _shown(canvas, address):
            return None
        tile = xyz_to_tile(address.x, address.y, address.z)._replace(frame=frame)
        while canvas.branch is not None and not shows_branch(canvas, tile):
            canvas = await self._canvas(canvas.branch.parent)
        key = tile_key(canvas.id, tile, _FORMATS[format])
        found = await self.store.get(key)
        if found is None:
            self.waiting += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.waiting -= 1
            found = await self.store.create(key, hashlib.sha256(key.encode()).digest() * 30)
        return found


def _shown(canvas: Canvas, address: tiler_pb.TileAddress) -> bool:
    try:
        tile = xyz_to_tile(address.x, address.y, address.z)
    except HandscrollError:
        return False
    extent = canvas.extent
    return tile.level <= extent.finest and bool(patches_of(tile_region(tile, extent), extent))
