"""``/canvases/{canvas}/events``: server-sent events, one for each tile of a view that is ready."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
from prometheus_client import Gauge
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from gateway import problems, queries
from gateway.pictures import Pictures, Place
from gateway.tiler import CALLEE, Tiler
from gateway.waiting import Ended, unless
from handscroll.errors import InvalidRequest, Unavailable
from handscroll.geometry import MAX_FRAMES, xyz_to_tile
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from svckit.client import calling
from svckit.deadline import within
from svckit.specs import check_frame

MAX_TILES = 256
PING_S = 15
# How long a tile may take that was painted once and is gone.
AGAIN_S = 30.0
# A client that takes nothing for so long is not listening.
SEND_S = 30.0
# How long a stream may take to say goodbye when the gateway stops.
GOODBYE_S = 2.0

_OPEN = Gauge("handscroll_gateway_streams", "Event streams open")


class Events:
    """The endpoint: ``tile`` and ``progress`` for each tile, then ``done``, or else ``problem``."""

    def __init__(self, tiler: Tiler, pictures: Pictures) -> None:
        self._tiler, self._pictures = tiler, pictures

    async def stream(self, request: Request) -> Response:
        """Open a stream; what is wrong with the request is told before it starts."""
        view = _asked(request)
        check_frame(await self._pictures.specs.get(view.canvas), view.frame)
        stopping = anyio.Event()
        return EventSourceResponse(
            self._relay(view, stopping),
            ping=PING_S,
            sep="\n",
            send_timeout=SEND_S,
            shutdown_event=stopping,
            shutdown_grace_period=GOODBYE_S,
        )

    async def _relay(
        self, view: tiler_pb.StreamTilesRequest, stopping: anyio.Event
    ) -> AsyncIterator[ServerSentEvent]:
        """The events of a stream. Leaving this, however it happens, cancels the tiler's work."""
        # A tiler that is away is told of at once: the client shows it and opens another stream.
        call = self._tiler.tiles.StreamTiles(view, wait_for_ready=False)
        arrivals = aiter(call)
        _OPEN.inc()
        try:
            while True:
                with calling(CALLEE):
                    one = await unless(stopping.wait(), anext(arrivals, None))
                if one is None:
                    yield _event("done", {})
                    return
                # The tile is promised to be there for whoever reads this.
                place = _place(view, one.tile)
                if await self._pictures.find(place) is None:
                    with within(AGAIN_S):
                        await self._pictures.paint(place)
                yield _event("tile", {"z": one.tile.z, "x": one.tile.x, "y": one.tile.y})
                yield _event("progress", {"ready": one.ready, "of": one.total})
        except Ended:
            stopped = Unavailable("this gateway is stopping: open the stream again")
            yield _event("problem", problems.problem(stopped))
        except Exception as error:
            yield _event("problem", problems.problem(error))
        finally:
            call.cancel()
            _OPEN.dec()


def _event(name: str, content: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(content), event=name, sep="\n")


def _place(view: tiler_pb.StreamTilesRequest, tile: tiler_pb.TileAddress) -> Place:
    found = xyz_to_tile(tile.x, tile.y, tile.z)
    return Place(view.canvas, found._replace(frame=view.frame), "webp")


def _asked(request: Request) -> tiler_pb.StreamTilesRequest:
    """What a request wants to watch."""
    query = request.query_params

    def text(name: str) -> str:
        if name not in query:
            raise InvalidRequest(f"{name} is missing; z, left, top, right and bottom must be given")
        return query[name]

    zoom = queries.zoom(text("z"))
    last = 2**zoom - 1
    left, top, right, bottom = (
        queries.whole(name, text(name), 0, last) for name in ("left", "top", "right", "bottom")
    )
    if left > right or top > bottom:
        raise InvalidRequest(
            f"left must not be right of right, nor top below bottom: left {left}, right {right}, "
            f"top {top}, bottom {bottom}"
        )
    count = (right - left + 1) * (bottom - top + 1)
    if count > MAX_TILES:
        raise InvalidRequest(f"a view may have {MAX_TILES} tiles, not {count}")
    ahead = queries.whole("ahead", query.get("ahead", "0"), 0, 1)
    return tiler_pb.StreamTilesRequest(
        canvas=request.path_params["canvas"],
        first=tiler_pb.TileAddress(z=zoom, x=left, y=top),
        last=tiler_pb.TileAddress(z=zoom, x=right, y=bottom),
        frame=queries.whole("frame", query.get("frame", "0"), 0, MAX_FRAMES - 1),
        format=tiler_pb.IMAGE_FORMAT_WEBP,
        priority=generator_pb.PRIORITY_PREFETCH if ahead else generator_pb.PRIORITY_VIEWPORT,
        names_only=True,
    )
