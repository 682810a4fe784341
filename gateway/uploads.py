"""``POST /pictures``: a picture to paint canvases around, passed on as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import bodies
from gateway.tiler import CALLEE, TAKE_S, Tiler
from handscroll.errors import Overloaded
from handscroll.picture import MAX_FILE_BYTES
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from svckit import access
from svckit.client import calling
from svckit.refusal import Refusal

TYPES = ("image/png", "image/jpeg", "image/webp")
BODY_S = 60.0
PIECE_BYTES = 2**20
AT_ONCE = 4
"""Pictures taken in at a time, each up to 32 MiB in memory."""
OF_ONE = 1
"""How many of these may be one caller's, where callers are told apart."""
RETRY_S = 2.0
_FULL = Refusal("uploads")


class Uploads:
    """The endpoint.

    Args:
        tiler: who takes pictures in.
    """

    def __init__(self, tiler: Tiler) -> None:
        self._tiler, self._room = tiler, asyncio.Semaphore(AT_ONCE)

    async def take(self, request: Request) -> Response:
        """``POST /pictures``: keep a picture's pixels, and say what they are called."""
        if self._room.locked():
            raise _FULL(Overloaded(f"{AT_ONCE} pictures are being taken in already", RETRY_S))
        caller = access.caller.get()
        most = 0 if caller is access.ANYBODY else OF_ONE
        with caller.meter.hold(caller.name, "pictures on their way", most):
            return await self._take(request)

    async def _take(self, request: Request) -> Response:
        async with self._room:
            # Held here, so that a slow client holds no call.
            body = await bodies.whole(request, "the picture", TYPES, MAX_FILE_BYTES, BODY_S)
            with calling(CALLEE):
                reply = await self._tiler.canvases.UploadPicture(_pieces(body), timeout=TAKE_S)
        told = {"picture": reply.picture, "height": reply.height_px, "width": reply.width_px}
        return JSONResponse(told, 201, {"Cache-Control": "no-store"})


async def _pieces(body: bytes) -> AsyncIterator[canvas_pb.UploadPictureRequest]:
    for start in range(0, len(body), PIECE_BYTES):
        yield canvas_pb.UploadPictureRequest(content=body[start : start + PIECE_BYTES])
