"""TilerService, ExportService and CanvasService: messages in, the engine's answer out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from handscroll.canvas import Canvas, Known
from handscroll.errors import InvalidRequest
from handscroll.film import FPS, is_film
from handscroll.formats import LOSSY, QUALITY
from handscroll.geometry import Region, Tile, tile_to_xyz, xyz_to_tile
from handscroll.picture import MAX_FILE_BYTES
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1 import canvas_service_pb2_grpc as canvas_grpc
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.status.v1 import status_service_pb2 as status_pb
from handscroll_api.tiler.v1 import export_service_pb2 as export_pb
from handscroll_api.tiler.v1 import export_service_pb2_grpc as export_grpc
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1 import tiler_service_pb2_grpc as tiler_grpc
from svckit import access, report, wire
from svckit.access import Rule
from svckit.client import connect
from svckit.keyring import Role
from svckit.keys import TileFormat
from svckit.server import Servicer
from svckit.specs import Specs
from svckit.wire import Model
from tiler_svc.canvases import Canvases
from tiler_svc.engine import Engine
from tiler_svc.exports import Exports, State, Status
from tiler_svc.peers import Generator, Models, Tokenizer
from tiler_svc.pictures import Pictures
from tiler_svc.press import Export, Format, Press
from tiler_svc.settings import TilerSettings

_FORMATS: dict[int, TileFormat] = {
    tiler_pb.IMAGE_FORMAT_UNSPECIFIED: "webp",
    tiler_pb.IMAGE_FORMAT_WEBP: "webp",
    tiler_pb.IMAGE_FORMAT_PNG: "png",
    tiler_pb.IMAGE_FORMAT_JPEG: "jpg",
}
_EXPORT_FORMATS: dict[export_pb.ExportFormat.ValueType, Format] = {
    export_pb.EXPORT_FORMAT_UNSPECIFIED: "png",
    export_pb.EXPORT_FORMAT_PNG: "png",
    export_pb.EXPORT_FORMAT_JPEG: "jpg",
    export_pb.EXPORT_FORMAT_WEBP: "webp",
    export_pb.EXPORT_FORMAT_DZI: "dzi",
    export_pb.EXPORT_FORMAT_PMTILES: "pmtiles",
    export_pb.EXPORT_FORMAT_MP4: "mp4",
    export_pb.EXPORT_FORMAT_AWEBP: "awebp",
    export_pb.EXPORT_FORMAT_GIF: "gif",
}
_EXPORT_FORMAT = {name: number for number, name in _EXPORT_FORMATS.items() if number}
_EXPORT_STATE: dict[State, export_pb.ExportState.ValueType] = {
    "running": export_pb.EXPORT_STATE_RUNNING,
    "done": export_pb.EXPORT_STATE_DONE,
    "stopped": export_pb.EXPORT_STATE_STOPPED,
}

_TILER = tiler_pb.DESCRIPTOR.services_by_name["TilerService"]
_EXPORTS = export_pb.DESCRIPTOR.services_by_name["ExportService"]
_CANVASES = canvas_pb.DESCRIPTOR.services_by_name["CanvasService"]
_STATUS = status_pb.DESCRIPTOR.services_by_name["StatusService"]

RULES = {
    f"/{service.full_name}/{rpc}": rule
    for service, rpc, rule in (
        # Readers get what is painted; for more than that, see `tiler_svc.admission`.
        (_TILER, "GetTile", Rule(Role.READ)),
        (_TILER, "StreamTiles", Rule(Role.READ, stream=True)),
        (_TILER, "RenderRegion", Rule(Role.READ, stream=True)),
        (_EXPORTS, "CreateExport", Rule(Role.PAINT)),
        (_EXPORTS, "GetExport", Rule(Role.READ)),
        (_EXPORTS, "ListExports", Rule(Role.READ)),
        (_EXPORTS, "DeleteExport", Rule(Role.PAINT)),
        (_EXPORTS, "DownloadExport", Rule(Role.READ, stream=True)),
        (_CANVASES, "ListWorlds", Rule(Role.READ)),
        (_CANVASES, "CreateCanvas", Rule(Role.PAINT, makes=True)),
        (_CANVASES, "UploadPicture", Rule(Role.PAINT, makes=True)),
        (_CANVASES, "ListPictures", Rule(Role.READ)),
        (_CANVASES, "DeletePicture", Rule(Role.PAINT)),
        (_CANVASES, "GetUsage", Rule(Role.READ)),
        (_CANVASES, "GetCanvas", Rule(Role.READ)),
        (_CANVASES, "ListCanvases", Rule(Role.READ)),
        (_CANVASES, "DeleteCanvas", Rule(Role.PAINT)),
        (_STATUS, "GetStatus", Rule(Role.ADMIN)),
    )
}
"""What each RPC takes of its caller."""


class TilerServicer(tiler_grpc.TilerServiceServicer):
    """TilerService on an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def GetTile(
        self, request: tiler_pb.GetTileRequest, context: Any
    ) -> tiler_pb.GetTileResponse:
        """One tile."""
        image = await self._engine.tile(
            request.canvas,
            _tile(request.tile, request.frame),
            _format(request.format),
            _urgent(request.priority),
        )
        return tiler_pb.GetTileResponse(image=image)

    async def StreamTiles(
        self, request: tiler_pb.StreamTilesRequest, context: Any
    ) -> AsyncIterator[tiler_pb.StreamTilesResponse]:
        """A rectangle of tiles."""
        first, last = (_tile(one, request.frame) for one in (request.first, request.last))
        format = _format(request.format)
        canvas, tiles = await self._engine.rectangle(request.canvas, first, last)
        ready, urgent = 0, _urgent(request.priority)
        async with aclosing(self._engine.stream(canvas, tiles, format, urgent)) as stream:
            async for tile, image in stream:
                ready += 1
                x, y, z = tile_to_xyz(tile)
                yield tiler_pb.StreamTilesResponse(
                    tile=tiler_pb.TileAddress(x=x, y=y, z=z),
                    image=b"" if request.names_only else image,
                    ready=ready,
                    total=len(tiles),
                )

    async def RenderRegion(
        self, request: tiler_pb.RenderRegionRequest, context: Any
    ) -> AsyncIterator[tiler_pb.RenderRegionResponse]:
        """A rectangle of pixels."""
        region = Region(
            request.level,
            request.top_px,
            request.left_px,
            request.height_px,
            request.width_px,
            request.frame,
        )
        async with aclosing(self._engine.region(request.canvas, region)) as strips:
            async for top, strip in strips:
                yield tiler_pb.RenderRegionResponse(
                    top_px=top, height_px=len(strip), rgb=strip.tobytes()
                )


class ExportServicer(export_grpc.ExportServiceServicer):
    """ExportService on the exports of a store."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports

    async def CreateExport(
        self, request: export_pb.CreateExportRequest, context: Any
    ) -> export_pb.CreateExportResponse:
        """Have an export made, or find it."""
        most_bytes = access.caller.get().budgets.own_export_bytes
        status = await self._exports.create(_export(request.spec), _owner(context), most_bytes)
        return export_pb.CreateExportResponse(export=_export_to_pb(status))

    async def GetExport(
        self, request: export_pb.GetExportRequest, context: Any
    ) -> export_pb.GetExportResponse:
        """How an export is."""
        status = await self._exports.get(request.export)
        return export_pb.GetExportResponse(export=_export_to_pb(status))

    async def ListExports(
        self, request: export_pb.ListExportsRequest, context: Any
    ) -> export_pb.ListExportsResponse:
        """A page of the caller's own exports."""
        page, token = await self._exports.own(
            _named_owner(context), request.page_size, request.page_token
        )
        response = export_pb.ListExportsResponse(next_page_token=token)
        for one in page:
            own = response.exports.add(export=_export_to_pb(one.status))
            own.made_at.FromDatetime(one.made_at)
        return response

    async def DeleteExport(
        self, request: export_pb.DeleteExportRequest, context: Any
    ) -> export_pb.DeleteExportResponse:
        """Take an export from the caller's own."""
        await self._exports.delete(request.export, _owner(context))
        return export_pb.DeleteExportResponse()

    async def DownloadExport(
        self, request: export_pb.DownloadExportRequest, context: Any
    ) -> AsyncIterator[export_pb.DownloadExportResponse]:
        """A part of its file."""
        async with aclosing(
            self._exports.read(request.export, request.offset, request.length)
        ) as pieces:
            async for piece in pieces:
                yield export_pb.DownloadExportResponse(content=piece)


class CanvasServicer(canvas_grpc.CanvasServiceServicer):
    """CanvasService on the canvases of a store."""

    def __init__(
        self, canvases: Canvases, models: Models, pictures: Pictures, exports: Exports
    ) -> None:
        self._canvases, self._models = canvases, models
        self._pictures, self._exports = pictures, exports

    async def ListWorlds(
        self, request: canvas_pb.ListWorldsRequest, context: Any
    ) -> canvas_pb.ListWorldsResponse:
        """All worlds."""
        return canvas_pb.ListWorldsResponse(
            worlds=[
                canvas_pb.World(
                    name=world.name,
                    extent=wire.extent_to_pb(world.extent),
                    canvas=world.canvas_id,
                    model=world.model,
                )
                for world in await self._canvases.worlds()
            ]
        )

    async def CreateCanvas(
        self, request: canvas_pb.CreateCanvasRequest, context: Any
    ) -> canvas_pb.CreateCanvasResponse:
        """Make a canvas, or find it."""
        owner = _owner(context)
        if request.HasField("branch"):
            parent = await self._canvases.get(request.branch.parent)
            request = _completed(request, parent)
        model = await self._models.of_world(request.world, request.model)
        canvas = _canvas(request, model, await self._known(request))
        budgets = access.caller.get().budgets
        canvas, created = await self._canvases.create(
            canvas, model, owner, budgets.own_canvases, budgets.own_canvas_bytes
        )
        return canvas_pb.CreateCanvasResponse(canvas=wire.canvas_to_pb(canvas), created=created)

    async def _known(self, request: canvas_pb.CreateCanvasRequest) -> Known | None:
        """The picture that a request asks to paint around, in its own size if it says none."""
        if not request.HasField("known"):
            return None
        told = request.known
        if told.height_px or told.width_px:
            return wire.known_from_pb(told)
        return await self._pictures.placed(told.picture, told.top_px, told.left_px)

    async def UploadPicture(
        self, request: AsyncIterator[canvas_pb.UploadPictureRequest], context: Any
    ) -> canvas_pb.UploadPictureResponse:
        """Take a picture in."""
        owner, content = _owner(context), bytearray()
        most_bytes = access.caller.get().budgets.own_picture_bytes
        async with self._pictures.room():
            async for piece in request:
                content += piece.content
                if len(content) > MAX_FILE_BYTES:
                    raise InvalidRequest(f"a picture's file may have {MAX_FILE_BYTES} bytes")
            picture, height, width = await self._pictures.take(content, owner, most_bytes)
        return canvas_pb.UploadPictureResponse(picture=picture, height_px=height, width_px=width)

    async def ListPictures(
        self, request: canvas_pb.ListPicturesRequest, context: Any
    ) -> canvas_pb.ListPicturesResponse:
        """A page of the caller's own pictures."""
        page, token = await self._pictures.own(
            _named_owner(context), request.page_size, request.page_token
        )
        response = canvas_pb.ListPicturesResponse(next_page_token=token)
        for one in page:
            told = response.pictures.add(
                picture=one.name,
                height_px=one.height,
                width_px=one.width,
                size_bytes=one.size_bytes,
            )
            told.made_at.FromDatetime(one.made_at)
        return response

    async def DeletePicture(
        self, request: canvas_pb.DeletePictureRequest, context: Any
    ) -> canvas_pb.DeletePictureResponse:
        """Take a picture from the caller's own."""
        admin = access.caller.get().role >= Role.ADMIN
        await self._pictures.delete(request.picture, _named_owner(context), admin)
        return canvas_pb.DeletePictureResponse()

    async def GetUsage(
        self, request: canvas_pb.GetUsageRequest, context: Any
    ) -> canvas_pb.GetUsageResponse:
        """What the caller holds, and may hold."""
        owner, budgets = _named_owner(context), access.caller.get().budgets
        return canvas_pb.GetUsageResponse(
            canvases=canvas_pb.Share(
                held=await self._canvases.count(owner), most=budgets.own_canvases
            ),
            canvas_bytes=canvas_pb.Share(
                held=await self._canvases.held_bytes(owner), most=budgets.own_canvas_bytes
            ),
            picture_bytes=canvas_pb.Share(
                held=await self._pictures.held_bytes(owner), most=budgets.own_picture_bytes
            ),
            export_bytes=canvas_pb.Share(
                held=await self._exports.held_bytes(owner), most=budgets.own_export_bytes
            ),
        )

    async def GetCanvas(
        self, request: canvas_pb.GetCanvasRequest, context: Any
    ) -> canvas_pb.GetCanvasResponse:
        """Find a canvas."""
        canvas = await self._canvases.get(request.canvas)
        return canvas_pb.GetCanvasResponse(canvas=wire.canvas_to_pb(canvas))

    async def ListCanvases(
        self, request: canvas_pb.ListCanvasesRequest, context: Any
    ) -> canvas_pb.ListCanvasesResponse:
        """A page of the caller's own canvases."""
        page, token = await self._canvases.own(
            _named_owner(context), request.page_size, request.page_token
        )
        response = canvas_pb.ListCanvasesResponse(next_page_token=token)
        for canvas, made_at in page:
            own = response.canvases.add(canvas=wire.canvas_to_pb(canvas))
            own.made_at.FromDatetime(made_at)
        return response

    async def DeleteCanvas(
        self, request: canvas_pb.DeleteCanvasRequest, context: Any
    ) -> canvas_pb.DeleteCanvasResponse:
        """Take a canvas from the caller's own."""
        admin = access.caller.get().role >= Role.ADMIN
        await self._canvases.delete(request.canvas, _named_owner(context), admin)
        return canvas_pb.DeleteCanvasResponse()


@asynccontextmanager
async def build(settings: TilerSettings) -> AsyncIterator[Sequence[Servicer]]:
    """All services, on the store and the peers that the settings name.

    Raises:
        UnsafeStore: its create is not atomic.
        StoreUnavailable: it does not answer.
    """
    async with (
        settings.store.opened() as store,
        connect(settings.generator, settings.tls) as to_generator,
        connect(settings.tokenizer, settings.tls) as to_tokenizer,
    ):
        generator, tokenizer = Generator(to_generator), Tokenizer(to_tokenizer)
        specs, models = Specs(store), Models(generator)
        pictures = Pictures(store, tokenizer)
        canvases = Canvases(store, specs, models, tokenizer, pictures, settings.first_seeds)
        engine = Engine(
            store,
            specs,
            models,
            generator,
            tokenizer,
            pictures,
            settings.decodes,
            settings.quality,
        )
        exports = Exports(
            store, specs, models, Press(engine), settings.exports, settings.export_pixels
        )
        try:
            yield [
                report.servicer(
                    "tiler",
                    lambda process: store.ready(),
                    {"generator": to_generator, "tokenizer": to_tokenizer},
                ),
                Servicer(
                    tiler_pb.DESCRIPTOR.services_by_name["TilerService"],
                    partial(tiler_grpc.add_TilerServiceServicer_to_server, TilerServicer(engine)),
                ),
                Servicer(
                    export_pb.DESCRIPTOR.services_by_name["ExportService"],
                    partial(
                        export_grpc.add_ExportServiceServicer_to_server, ExportServicer(exports)
                    ),
                ),
                Servicer(
                    canvas_pb.DESCRIPTOR.services_by_name["CanvasService"],
                    partial(
                        canvas_grpc.add_CanvasServiceServicer_to_server,
                        CanvasServicer(canvases, models, pictures, exports),
                    ),
                ),
            ]
        finally:
            await canvases.close()
            await exports.close()
            await engine.close()
            await pictures.close()


def _tile(address: tiler_pb.TileAddress, frame: int) -> Tile:
    return xyz_to_tile(address.x, address.y, address.z)._replace(frame=frame)


def _format(number: int) -> TileFormat:
    if number not in _FORMATS:
        raise InvalidRequest(f"format must be 0 to {max(_FORMATS)}, not {number}")
    return _FORMATS[number]


def _export(spec: export_pb.ExportSpec) -> Export:
    """What an export is asked to show; what is not said is as usual."""
    if spec.format not in _EXPORT_FORMATS:
        raise InvalidRequest(f"format must be 0 to {max(_EXPORT_FORMATS)}, not {spec.format}")
    format = _EXPORT_FORMATS[spec.format]
    quality = spec.quality or (QUALITY if format in LOSSY else 0)
    region = Region(
        spec.level, spec.top_px, spec.left_px, spec.height_px, spec.width_px, spec.frame
    )
    fps = spec.fps or (FPS if is_film(format) else 0)
    return Export(spec.canvas, region, format, quality, fps, spec.back_and_forth)


def _export_to_pb(status: Status) -> export_pb.Export:
    export, region = status.export, status.export.region
    return export_pb.Export(
        id=export.id,
        spec=export_pb.ExportSpec(
            canvas=export.canvas,
            level=region.level,
            frame=region.frame,
            top_px=region.top,
            left_px=region.left,
            height_px=region.height,
            width_px=region.width,
            format=_EXPORT_FORMAT[export.format],
            quality=export.quality,
            fps=export.fps,
            back_and_forth=export.back_and_forth,
        ),
        state=_EXPORT_STATE[status.state],
        done=status.done,
        total=status.total,
        size_bytes=status.size_bytes,
        etag=status.run,
        problem=status.problem,
    )


def _urgent(priority: int) -> bool:
    return priority != generator_pb.PRIORITY_PREFETCH


def _completed(
    request: canvas_pb.CreateCanvasRequest, parent: Canvas
) -> canvas_pb.CreateCanvasRequest:
    """What a branch does not say is as in its parent; what it shows, it says."""
    told = wire.canvas_to_pb(parent)
    completed = canvas_pb.CreateCanvasRequest(
        world=parent.world,
        model=parent.model,
        extent=None if request.HasField("extent") else told.extent,
        order=parent.order,
        frames=parent.frames,
        sampling=told.sampling,
        motion=parent.motion,
    )
    completed.MergeFrom(request)
    return completed


def _canvas(request: canvas_pb.CreateCanvasRequest, model: Model, known: Known | None) -> Canvas:
    """The spec that a request asks for; what it does not say is as the model has it."""
    extent = model.worlds[request.world]
    if request.extent.kind:
        extent = wire.extent_from_pb(request.extent)
    elif request.extent != canvas_pb.Extent():
        raise InvalidRequest("extent.kind must be said where its size or finest level is")
    return Canvas(
        model.digest,
        request.world,
        request.seed,
        extent,
        request.prompt,
        request.order or "lattice",
        request.frames or 1,
        wire.sampling_from_pb(request.sampling, model.sampling),
        known,
        tuple(wire.region_from_pb(region) for region in request.regions),
        request.motion,
        wire.branch_from_pb(request.branch) if request.HasField("branch") else None,
    )


def _owner(context: Any) -> str | None:
    """The caller, if it says who it is: by its key, else by the metadata "x-owner"."""
    if owner := access.caller.get().owner:
        return owner
    said = [value for name, value in context.invocation_metadata() if name == "x-owner"]
    if not said:
        return None
    owner = str(said[0])
    visible = all("!" <= character <= "~" for character in owner)
    if len(said) > 1 or not (16 <= len(owner) <= 128 and visible):
        # Without the value: it is a secret, and this text may be logged.
        raise InvalidRequest("x-owner must be 16 to 128 visible ASCII characters, given once")
    return owner


def _named_owner(context: Any) -> str:
    owner = _owner(context)
    if owner is None:
        raise InvalidRequest('this needs a key or the metadata "x-owner", to say who you are')
    return owner
