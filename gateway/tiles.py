"""``/tiles/{canvas}/{z}/{x}/{y}.{format}``: one tile."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import problems, queries
from gateway.cache import Picture
from gateway.pictures import FORMATS, MAX_WAIT_S, Pictures, Place
from gateway.waiting import departure, unless
from handscroll.errors import InvalidRequest, NotFound
from handscroll.geometry import MAX_FRAMES
from svckit.deadline import within
from svckit.keys import check_canvas_id
from svckit.specs import check_frame, shows

# Queries, such as the viewer's, for which a look into memory by path alone is enough.
USUAL = (b"", b"wait=0")
# A canvas does not grow, but it may be deleted.
OUTSIDE = "public, max-age=3600"


class Tiles:
    """Answers with a tile; bare ASGI, since this is what is asked for thousands of times a second.

    ``wait`` says how many seconds to wait for one that is not painted. Without waiting (0) nothing
    is painted either: the answer is then 202 and empty. There are never placeholders.
    """

    def __init__(self, pictures: Pictures, wait_s: float) -> None:
        self._pictures, self._wait_s = pictures, wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET or HEAD."""
        # An encoded path could spell what only memory writes after a path, such as a frame.
        usual = scope["query_string"] in USUAL and b"%" not in scope["raw_path"]
        found = self._pictures.held(scope["path"]) if usual else None
        if found is None:
            sought = await self._sought(scope, receive)
            if isinstance(sought, Response):
                await sought(scope, receive, send)
                return
            found = sought
        wanted = next((value for name, value in scope["headers"] if name == b"if-none-match"), None)
        if wanted is not None and _has(wanted, found.etag):
            await send({"type": "http.response.start", "status": 304, "headers": found.unchanged})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": found.headers})
        body = found.body if scope["method"] == "GET" else b""
        await send({"type": "http.response.body", "body": body})

    async def _sought(self, scope: Scope, receive: Receive) -> Picture | Response:
        """The tile, or what there is to say instead."""
        place, wait_s = self._asked(scope)
        with within(wait_s):
            canvas = await self._pictures.specs.get(place.canvas)
            check_frame(canvas, place.tile.frame)
            if not shows(canvas, place.tile):
                outside = NotFound(
                    f"{place.path} lies outside the canvas, so there is no such tile"
                )
                return problems.answer(outside, OUTSIDE)
            found = await self._pictures.find(place)
            if found is not None:
                return found
            if wait_s == 0:
                return Response(status_code=202, headers={"Cache-Control": "no-store"})
            return await unless(departure(receive), self._pictures.paint(place))

    def _asked(self, scope: Scope) -> tuple[Place, float]:
        """Which tile, and how long to wait for it."""
        names = scope["path_params"]
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        canvas = check_canvas_id(names["canvas"])
        tile = queries.tile(names["z"], names["x"], names["y"])
        if names["format"] not in FORMATS:
            raise InvalidRequest(
                f"the format must be one of {', '.join(FORMATS)}, not {names['format']!r:.40}"
            )
        if "frame" in query:
            frame = queries.whole("frame", query["frame"][-1], 0, MAX_FRAMES - 1)
            tile = tile._replace(frame=frame)
        wait_s = self._wait_s
        if "wait" in query:
            wait_s = queries.seconds("wait", query["wait"][-1], MAX_WAIT_S)
        return Place(canvas, tile, names["format"]), wait_s


def _has(wanted: bytes, etag: bytes) -> bool:
    """Whether If-None-Match names this ETag, compared weakly as RFC 9110 has it."""
    tags = [tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")]
    return etag in tags or tags == [b"*"]
