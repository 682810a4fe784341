"""``/exports``: regions of canvases as files; made by the tiler's ExportService, relayed here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway import bodies, queries
from gateway.bodies import Strict, Uint32
from gateway.owners import newly_signed, remember, signed
from gateway.tiler import ASK_S, CALLEE, Tiler
from handscroll.errors import NotFound
from handscroll_api.tiler.v1 import export_service_pb2 as export_pb
from svckit.client import calling

CALL_BYTES = 2**26
"""Of a file that are asked of the tiler in one call, so that a slow client has time for it."""

_FORMATS = {
    "png": export_pb.EXPORT_FORMAT_PNG,
    "jpg": export_pb.EXPORT_FORMAT_JPEG,
    "webp": export_pb.EXPORT_FORMAT_WEBP,
    "dzi": export_pb.EXPORT_FORMAT_DZI,
    "pmtiles": export_pb.EXPORT_FORMAT_PMTILES,
    "mp4": export_pb.EXPORT_FORMAT_MP4,
    "awebp": export_pb.EXPORT_FORMAT_AWEBP,
    "gif": export_pb.EXPORT_FORMAT_GIF,
}
_FORMAT = {number: name for name, number in _FORMATS.items()}
_STATE = {
    export_pb.EXPORT_STATE_RUNNING: "running",
    export_pb.EXPORT_STATE_DONE: "done",
    export_pb.EXPORT_STATE_STOPPED: "stopped",
}
# Ending of the file's name, and media type.
_FILES = {
    "png": ("png", "image/png"),
    "jpg": ("jpg", "image/jpeg"),
    "webp": ("webp", "image/webp"),
    "dzi": ("zip", "application/zip"),
    "pmtiles": ("pmtiles", "application/vnd.pmtiles"),
    "mp4": ("mp4", "video/mp4"),
    "awebp": ("webp", "image/webp"),
    "gif": ("gif", "image/gif"),
}
_FRESH = {"Cache-Control": "no-store"}
_Sint64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Wish(Strict):
    """The body of ``POST /exports``."""

    canvas: str
    level: Uint32
    top: _Sint64
    left: _Sint64
    height: Uint32
    width: Uint32
    frame: Uint32 = 0
    format: Literal["png", "jpg", "webp", "dzi", "pmtiles", "mp4", "awebp", "gif"] = "png"
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    fps: Annotated[int, Field(ge=1, le=30)] | None = None
    back_and_forth: bool = False


class Exports:
    """The endpoints.

    Args:
        tiler: who makes exports.
        public_url: where others reach us; empty for wherever they asked.
    """

    def __init__(self, tiler: Tiler, public_url: str) -> None:
        self._tiler, self._public_url = tiler, public_url

    async def create(self, request: Request) -> Response:
        """``POST /exports``: have one made, or find it."""
        wish = await bodies.read(request, _Wish)
        spec = export_pb.ExportSpec(
            canvas=wish.canvas,
            level=wish.level,
            frame=wish.frame,
            top_px=wish.top,
            left_px=wish.left,
            height_px=wish.height,
            width_px=wish.width,
            format=_FORMATS[wish.format],
            quality=wish.quality or 0,
            fps=wish.fps or 0,
            back_and_forth=wish.back_and_forth,
        )
        said, secret = newly_signed(request)
        with calling(CALLEE):
            reply = await self._tiler.exports.CreateExport(
                export_pb.CreateExportRequest(spec=spec), timeout=ASK_S, metadata=said
            )
        done = reply.export.state == export_pb.EXPORT_STATE_DONE
        place = {"Location": f"/exports/{reply.export.id}"}
        response = JSONResponse(_told(reply.export), 200 if done else 202, _FRESH | place)
        remember(response, secret, self._public_url or request.url.scheme + ":")
        return response

    async def own(self, request: Request) -> Response:
        """``GET /exports``: the caller's own, newest first."""
        size, token = queries.page(request.query_params)
        said, reply = signed(request), export_pb.ListExportsResponse()
        if said is not None:
            wish = export_pb.ListExportsRequest(page_size=size, page_token=token)
            with calling(CALLEE):
                reply = await self._tiler.exports.ListExports(wish, timeout=ASK_S, metadata=said)
        exports = [
            _told(one.export) | {"made_at": one.made_at.ToJsonString()} for one in reply.exports
        ]
        told = {"exports": exports, "next_page_token": reply.next_page_token}
        return JSONResponse(told, headers=_FRESH)

    async def get(self, request: Request) -> Response:
        """``GET /exports/{export}``: how far one is."""
        return JSONResponse(_told(await self._find(request)), headers=_FRESH)

    async def delete(self, request: Request) -> Response:
        """``DELETE /exports/{export}``: take one from the caller's own."""
        with calling(CALLEE):
            await self._tiler.exports.DeleteExport(
                export_pb.DeleteExportRequest(export=request.path_params["export"]),
                timeout=ASK_S,
                metadata=signed(request) or (),
            )
        return Response(status_code=204, headers=_FRESH)

    async def file(self, request: Request) -> Response:
        """``GET /exports/{export}/file``: its file, or a part of it."""
        export = await self._find(request)
        if export.state != export_pb.EXPORT_STATE_DONE:
            raise NotFound(f"export {export.id} has no file yet: it is {_STATE[export.state]}")
        ending, media = _FILES[_FORMAT[export.spec.format]]
        etag = f'"{export.etag}"'
        headers = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-cache",
            "Content-Disposition": f'attachment; filename="handscroll-{export.id[:16]}.{ending}"',
            "Content-Type": media,
            "ETag": etag,
        }
        wanted = None
        if request.headers.get("if-range", etag) == etag:
            wanted = queries.byte_range(request.headers.get("range", ""), export.size_bytes)
        start, end = wanted or (0, export.size_bytes)
        headers["Content-Length"] = str(end - start)
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{export.size_bytes}"
        status = 206 if wanted else 200
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return StreamingResponse(self._pieces(export.id, start, end), status, headers)

    async def _find(self, request: Request) -> export_pb.Export:
        with calling(CALLEE):
            reply = await self._tiler.exports.GetExport(
                export_pb.GetExportRequest(export=request.path_params["export"]), timeout=ASK_S
            )
        return reply.export

    async def _pieces(self, export_id: str, start: int, end: int) -> AsyncIterator[bytes]:
        for offset in range(start, end, CALL_BYTES):
            call = self._tiler.exports.DownloadExport(
                export_pb.DownloadExportRequest(
                    export=export_id, offset=offset, length=min(CALL_BYTES, end - offset)
                )
            )
            try:
                with calling(CALLEE):
                    async for piece in call:
                        yield piece.content
            finally:
                call.cancel()  # does nothing to a call that has ended


def _told(export: export_pb.Export) -> dict[str, Any]:
    spec, done = export.spec, export.state == export_pb.EXPORT_STATE_DONE
    return {
        "id": export.id,
        "canvas": spec.canvas,
        "level": spec.level,
        "top": spec.top_px,
        "left": spec.left_px,
        "height": spec.height_px,
        "width": spec.width_px,
        "frame": spec.frame,
        "format": _FORMAT[spec.format],
        "quality": spec.quality or None,
        "fps": spec.fps or None,
        "back_and_forth": spec.back_and_forth,
        "state": _STATE[export.state],
        "done": export.done,
        "total": export.total,
        "bytes": export.size_bytes if done else None,
        "problem": export.problem or None,
        "file": f"/exports/{export.id}/file" if done else None,
    }
