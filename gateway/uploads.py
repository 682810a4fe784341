"""``/pictures``: those to paint canvases around; passed on as they come, listed and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import bodies, queries
from gateway.owners import newly_signed, remember, signed
from gateway.tiler import ASK_S, CALLEE, TAKE_S, Tiler
from handscroll.errors import NotFound, Overloaded
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
_FRESH = {"Cache-Control": "no-store"}


class Uploads:
    """The endpoints.

    Args:
        tiler: who takes pictures in.
        public_url: where others reach us; empty for wherever they asked.
    """

    def __init__(self, tiler: Tiler, public_url: str) -> None:
        self._tiler, self._room = tiler, asyncio.Semaphore(AT_ONCE)
        self._public_url = public_url

    async def take(self, request: Request) -> Response:
        """``POST /pictures``: keep a picture's pixels, and say what they are called."""
        if self._room.locked():
            raise _FULL(Overloaded(f"{AT_ONCE} pictures are being taken in already", RETRY_S))
        caller = access.caller.get()
        most = 0 if caller is access.ANYBODY else OF_ONE
        with caller.meter.hold(caller.name, "pictures on their way", most):
            return await self._take(request)

    async def own(self, request: Request) -> Response:
        """``GET /pictures``: the caller's own, newest first."""
        size, token = queries.page(request.query_params)
        said, reply = signed(request), canvas_pb.ListPicturesResponse()
        if said is not None:
            wish = canvas_pb.ListPicturesRequest(page_size=size, page_token=token)
            with calling(CALLEE):
                reply = await self._tiler.canvases.ListPictures(wish, timeout=ASK_S, metadata=said)
        pictures = [
            {
                "picture": one.picture,
                "height": one.height_px,
                "width": one.width_px,
                "bytes": one.size_bytes,
                "made_at": one.made_at.ToJsonString(),
            }
            for one in reply.pictures
        ]
        told = {"pictures": pictures, "next_page_token": reply.next_page_token}
        return JSONResponse(told, headers=_FRESH)

    async def delete(self, request: Request) -> Response:
        """``DELETE /pictures/{picture}``: take one from the caller's own."""
        picture, said = request.path_params["picture"], signed(request)
        if said is None:
            raise NotFound(f"picture {picture} is not yours: no owner came with the request")
        with calling(CALLEE):
            await self._tiler.canvases.DeletePicture(
                canvas_pb.DeletePictureRequest(picture=picture), timeout=ASK_S, metadata=said
            )
        return Response(status_code=204, headers=_FRESH)

    async def _take(self, request: Request) -> Response:
        said, secret = newly_signed(request)
        async with self._room:
            # Held here, so that a slow client holds no call.
            body = await bodies.whole(request, "the picture", TYPES, MAX_FILE_BYTES, BODY_S)
            with calling(CALLEE):
                reply = await self._tiler.canvases.UploadPicture(
                    _pieces(body), timeout=TAKE_S, metadata=said
                )
        told = {"picture": reply.picture, "height": reply.height_px, "width": reply.width_px}
        response = JSONResponse(told, 201, _FRESH)
        remember(response, secret, self._public_url or request.url.scheme + ":")
        return response


async def _pieces(body: bytes) -> AsyncIterator[canvas_pb.UploadPictureRequest]:
    for start in range(0, len(body), PIECE_BYTES):
        yield canvas_pb.UploadPictureRequest(content=body[start : start + PIECE_BYTES])
