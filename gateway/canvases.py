"""``/worlds`` and ``/canvases``: JSON in and out, the work done by the tiler's CanvasService."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import bodies, queries
from gateway.bodies import Sint32, Strict, Uint32
from gateway.owners import newly_signed, remember, signed
from gateway.pictures import Pictures
from gateway.tilejson import tilejson
from gateway.tiler import ASK_S, CALLEE, TAKE_S, Tiler
from handscroll.canvas import MAX_REGIONS, Canvas
from handscroll.errors import InvalidRequest, NotFound
from handscroll.geometry import Extent
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from svckit.client import calling
from svckit.wire import canvas_from_pb, extent_from_pb, extent_to_pb

_FRESH = {"Cache-Control": "no-store"}


class _Extent(Strict):
    kind: Literal["scroll", "plane", "picture"]
    finest: Uint32
    height_px: Uint32 | None = None
    width_px: Uint32 | None = None


class _Sampling(Strict):
    dtype: str | None = None
    rows: Uint32 | None = None
    group: Uint32 | None = None
    token_order: str | None = None
    temperature: float | None = Field(None, allow_inf_nan=False)
    top_k: Uint32 | None = None
    top_p: float | None = Field(None, allow_inf_nan=False)
    guidance: float | None = Field(None, allow_inf_nan=False)
    negative_prompt: str | None = None


class _Known(Strict):
    picture: str
    top: Sint32 = 0
    left: Sint32 = 0
    height: Uint32 = 0
    width: Uint32 = 0


class _Region(Strict):
    prompt: str
    top: Sint32
    left: Sint32
    height: Uint32
    width: Uint32
    softness: Uint32 | None = None


class _Branch(Strict):
    parent: str
    top: Sint32
    left: Sint32
    height: Uint32
    width: Uint32


class _Wish(Strict):
    """The body of ``POST /canvases``."""

    world: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    prompt: str = ""
    model: str = ""
    extent: _Extent | None = None
    order: str = ""
    frames: Uint32 = 0
    sampling: _Sampling | None = None
    known: _Known | None = None
    regions: Annotated[list[_Region], Field(max_length=MAX_REGIONS)] = []
    motion: str = ""
    branch: _Branch | None = None


class Canvases:
    """The endpoints.

    Args:
        tiler: who keeps canvases.
        pictures: what is held of them here.
        public_url: where others reach us; empty for wherever they asked.
    """

    def __init__(self, tiler: Tiler, pictures: Pictures, public_url: str) -> None:
        self._tiler, self._pictures = tiler, pictures
        self._public_url = public_url.rstrip("/")

    async def worlds(self, request: Request) -> Response:
        """``GET /worlds``: what can be painted."""
        with calling(CALLEE):
            reply = await self._tiler.canvases.ListWorlds(
                canvas_pb.ListWorldsRequest(), timeout=ASK_S
            )
        worlds = [
            {
                "name": world.name,
                "canvas": world.canvas,
                "extent": asdict(extent_from_pb(world.extent)),
            }
            for world in reply.worlds
        ]
        model = reply.worlds[0].model if reply.worlds else ""
        return JSONResponse({"model": model, "worlds": worlds}, headers=_FRESH)

    async def create(self, request: Request) -> Response:
        """``POST /canvases``: make a canvas, or find it."""
        wish = _asked(await bodies.read(request, _Wish))
        said, secret = newly_signed(request)
        wait_s = TAKE_S if wish.HasField("known") else ASK_S
        with calling(CALLEE):
            reply = await self._tiler.canvases.CreateCanvas(wish, timeout=wait_s, metadata=said)
        canvas = canvas_from_pb(reply.canvas)
        response = JSONResponse(
            _told(canvas),
            201 if reply.created else 200,
            _FRESH | {"Location": f"/canvases/{canvas.id}"},
        )
        remember(response, secret, self._base(request))
        return response

    async def own(self, request: Request) -> Response:
        """``GET /canvases``: the caller's own, newest first."""
        size, token = queries.page(request.query_params)
        wish = canvas_pb.ListCanvasesRequest(page_size=size, page_token=token)
        said, reply = signed(request), canvas_pb.ListCanvasesResponse()
        if said is not None:
            with calling(CALLEE):
                reply = await self._tiler.canvases.ListCanvases(wish, timeout=ASK_S, metadata=said)
        canvases = [
            _told(canvas_from_pb(one.canvas)) | {"made_at": one.made_at.ToJsonString()}
            for one in reply.canvases
        ]
        return JSONResponse(
            {"canvases": canvases, "next_page_token": reply.next_page_token}, headers=_FRESH
        )

    async def get(self, request: Request) -> Response:
        """``GET /canvases/{canvas}``: anyone's who knows the id."""
        canvas = await self._pictures.specs.get(request.path_params["canvas"])
        return JSONResponse(_told(canvas), headers=_FRESH)

    async def delete(self, request: Request) -> Response:
        """``DELETE /canvases/{canvas}``: take one from the caller's own."""
        canvas_id = request.path_params["canvas"]
        said = signed(request)
        if said is None:
            raise NotFound(f"canvas {canvas_id} is not yours: no owner came with the request")
        with calling(CALLEE):
            await self._tiler.canvases.DeleteCanvas(
                canvas_pb.DeleteCanvasRequest(canvas=canvas_id),
                timeout=ASK_S,
                metadata=said,
            )
        self._pictures.forget(canvas_id)
        return Response(status_code=204, headers=_FRESH)

    async def tilejson(self, request: Request) -> Response:
        """``GET /canvases/{canvas}/tilejson.json``: for map clients."""
        canvas = await self._pictures.specs.get(request.path_params["canvas"])
        return JSONResponse(
            tilejson(canvas, self._base(request)), headers={"Cache-Control": "no-cache"}
        )

    def _base(self, request: Request) -> str:
        """Where we are reached. The Host header has been checked by the time it gets here."""
        return self._public_url or f"{request.url.scheme}://{request.headers['host']}"


def _told(canvas: Canvas) -> dict[str, Any]:
    return {"id": canvas.id, **asdict(canvas), "tilejson": f"/canvases/{canvas.id}/tilejson.json"}


def _asked(wish: _Wish) -> canvas_pb.CreateCanvasRequest:
    """The canvas that a body asks for."""
    said = wish.model_dump(exclude_none=True)
    extent, sampling = said.pop("extent", None), said.pop("sampling", None)
    known, regions = said.pop("known", None), said.pop("regions")
    branch = said.pop("branch", None)
    if not (wish.world or branch):
        raise InvalidRequest("world is missing; only a branch has its parent's")
    return canvas_pb.CreateCanvasRequest(
        **said,
        extent=extent and extent_to_pb(Extent(**extent)),
        sampling=sampling and canvas_pb.Sampling(**sampling),
        known=known and canvas_pb.Known(**_in_pixels(known)),
        regions=[canvas_pb.PromptRegion(**_in_pixels(region)) for region in regions],
        branch=branch and canvas_pb.Branch(**_in_pixels(branch)),
    )


def _in_pixels(said: dict[str, Any]) -> dict[str, Any]:
    """The same with the names that the protos have."""
    return {
        name if name in ("prompt", "picture", "parent") else f"{name}_px": value
        for name, value in said.items()
    }
