"""Where tiles come from: memory, else the store, else the tiler."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from cachetools import TTLCache
from prometheus_client import Counter, Gauge

from gateway.cache import Memory, Picture, picture
from gateway.tiler import CALLEE, Tiler
from handscroll.errors import NotFound, OutOfTime
from handscroll.geometry import Tile, tile_to_xyz
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from svckit import access, logs
from svckit.client import calling
from svckit.deadline import remaining_s
from svckit.jobs import Jobs
from svckit.keys import Key, TileFormat, tile_key
from svckit.specs import Specs
from svckit.store import Store

_TILES = Counter("handscroll_gateway_tiles", "Tiles found, by where", ["source"])
_WAITING = Gauge("handscroll_gateway_waiting", "Requests that wait for a tile to be painted")
_MEMORY, _STORE, _PAINTED = (_TILES.labels(source) for source in ("memory", "store", "painted"))
FORMATS: dict[TileFormat, tiler_pb.ImageFormat.ValueType] = {
    "webp": tiler_pb.IMAGE_FORMAT_WEBP,
    "png": tiler_pb.IMAGE_FORMAT_PNG,
    "jpg": tiler_pb.IMAGE_FORMAT_JPEG,
}

MAX_WAIT_S = 60.0
"""How long a client may wait for a tile."""
KEPT = 4096


class Place(NamedTuple):
    """One picture among all: a tile of a canvas, in a format."""

    canvas: str
    tile: Tile
    format: TileFormat

    @property
    def path(self) -> str:
        """The URL's path, the same for all spellings; other frames than the first are added."""
        x, y, z = tile_to_xyz(self.tile)
        frame = f"?frame={self.tile.frame}" if self.tile.frame else ""
        return f"/tiles/{self.canvas}/{z}/{x}/{y}.{self.format}{frame}"


class Pictures:
    """Finds tiles, or has them painted, and keeps them in memory."""

    def __init__(self, memory: Memory, store: Store, specs: Specs, tiler: Tiler) -> None:
        self.specs = specs
        self._memory, self._store, self._tiler = memory, store, tiler
        self._forgotten: TTLCache[str, bool] = TTLCache(KEPT, MAX_WAIT_S)
        self._jobs: Jobs[tuple[str, Place], Picture] = Jobs("ask", MAX_WAIT_S)

    async def close(self) -> None:
        """Withdraw all wishes."""
        await self._jobs.close()

    def held(self, path: str) -> Picture | None:
        """A tile that is in memory, by its URL's path."""
        found = self._memory.get(path)
        if found is not None:
            _MEMORY.inc()
        return found

    async def find(self, place: Place) -> Picture | None:
        """A tile that is there already.

        Raises:
            NotFound: no such canvas.
            StoreUnavailable: the store does not answer.
        """
        found = self.held(place.path)
        if found is None:
            body = await self._store.look(await self._key(place))
            if body:  # an empty one was cut short by a power cut, and is painted again
                _STORE.inc()
                return self._keep(place, body)
        return found

    async def paint(self, place: Place) -> Picture:
        """A tile, painted now; cancelling this withdraws the wish.

        A caller who asks for it more than once at a time is one asker to the tiler. Others are
        others: what they may do and what they have left is not the same.

        Raises:
            NotFound: no such canvas, or the tile lies outside it.
            SpecMismatch: the canvas' model is not served.
            Overloaded: too much is waiting to be painted.
            Unavailable: it did not come in time, or the tiler cannot be had.
        """
        shown, request_id = access.presented.get(), logs.request_id.get()

        async def work(_: asyncio.Event) -> Picture:
            access.presented.set(shown)
            logs.request_id.set(request_id)  # of whoever asked first
            return await self._paint(place)

        job = self._jobs.join((access.caller.get().name, place), work, urgent=True)
        wait_s = remaining_s()  # ours; the job has its own
        try:
            async with asyncio.timeout(wait_s):
                with _WAITING.track_inprogress():
                    return await job
        except TimeoutError:
            raise OutOfTime(f"not painted in the {wait_s:.1f} s that you wait") from None

    async def _paint(self, place: Place) -> Picture:
        x, y, z = tile_to_xyz(place.tile)
        request = tiler_pb.GetTileRequest(
            canvas=place.canvas,
            tile=tiler_pb.TileAddress(z=z, x=x, y=y),
            frame=place.tile.frame,
            format=FORMATS[place.format],
            priority=generator_pb.PRIORITY_VIEWPORT,
        )
        try:
            with calling(CALLEE):
                reply = await self._tiler.tiles.GetTile(request)
        except NotFound:
            self.specs.forget(place.canvas)
            raise
        _PAINTED.inc()
        return self._keep(place, reply.image)

    def forget(self, canvas_id: str) -> None:
        """Give up what memory holds of a canvas that was deleted."""
        self.specs.forget(canvas_id)
        self._forgotten[canvas_id] = True
        self._memory.forget_all(f"/tiles/{canvas_id}/")

    async def _key(self, place: Place) -> Key:
        """Where a tile is kept: with the parent, if a branch shows nothing of its own there."""
        canvas = await self.specs.get(place.canvas)
        shown = await self.specs.shown(canvas, place.tile)
        canvas_id = place.canvas if shown is canvas else shown.id
        return tile_key(canvas_id, place.tile, place.format)

    def _keep(self, place: Place, body: bytes) -> Picture:
        kept = picture(body, place.format)
        if place.canvas not in self._forgotten:  # else it was asked for before it was deleted
            self._memory.put(place.path, kept)
        return kept
