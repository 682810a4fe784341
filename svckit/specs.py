"""What canvases are: their specs, read from the store."""

from __future__ import annotations

from cachetools import TTLCache

from handscroll.branch import MAX_BRANCHES, shows_branch
from handscroll.canvas import Canvas
from handscroll.errors import InvalidRequest, NotFound, SpecMismatch
from handscroll.geometry import Tile, patches_of, tile_region
from svckit.keys import canvas_key
from svckit.store import Store

KEPT = 4096
# A spec never changes, but one that is deleted elsewhere should soon be gone here.
FRESH_S = 10.0


class Specs:
    """Canvases by id, kept for seconds."""

    def __init__(self, store: Store, fresh_s: float = FRESH_S) -> None:
        self._store = store
        self._kept: TTLCache[str, Canvas] = TTLCache(KEPT, fresh_s)

    async def get(self, canvas_id: str) -> Canvas:
        """The canvas of an id.

        Raises:
            InvalidRequest: not an id.
            NotFound: no such canvas.
            SpecMismatch: what is stored there is another spec, or one we cannot read.
            StoreUnavailable: the store does not answer.
        """
        key = canvas_key(canvas_id)
        canvas = self._kept.get(canvas_id)
        if canvas is not None:
            return canvas
        content = await self._store.get(key)
        if content is None:
            raise NotFound(f"there is no canvas {canvas_id}")
        try:
            canvas = Canvas.parse(content)
        except InvalidRequest as error:
            raise SpecMismatch(f"the spec stored for canvas {canvas_id}: {error}") from error
        if canvas.id != canvas_id:
            raise SpecMismatch(f"the spec stored for canvas {canvas_id} is that of {canvas.id}")
        self._kept[canvas_id] = canvas
        return canvas

    async def line(self, canvas: Canvas) -> list[Canvas]:
        """A canvas, what it was branched from, and so on.

        Raises:
            NotFound: one of them was deleted.
            InvalidRequest: they are more than may be.
            SpecMismatch, StoreUnavailable: see `get`.
        """
        found = [canvas]
        while found[-1].branch is not None:
            if len(found) > MAX_BRANCHES:
                raise InvalidRequest(f"a chain of branches may be {MAX_BRANCHES} long")
            found.append(await self.get(found[-1].branch.parent))
        return found

    async def shown(self, canvas: Canvas, tile: Tile) -> Canvas:
        """The canvas that a tile of a canvas is one of: itself, or what it was branched from.

        Raises:
            NotFound, SpecMismatch, StoreUnavailable: see `get`.
        """
        while canvas.branch is not None and not shows_branch(canvas, tile):
            canvas = await self.get(canvas.branch.parent)
        return canvas

    def forget(self, canvas_id: str) -> None:
        """Read it again next time."""
        self._kept.pop(canvas_id, None)


def check_frame(canvas: Canvas, frame: int) -> None:
    """Refuse a frame that a canvas has not.

    Raises:
        InvalidRequest: there are fewer.
    """
    if frame >= canvas.frames:
        raise InvalidRequest(f"frame must be 0 to {canvas.frames - 1}, not {frame}")


def shows(canvas: Canvas, tile: Tile) -> bool:
    """Whether a tile shows anything of the canvas."""
    extent = canvas.extent
    return tile.level <= extent.finest and bool(patches_of(tile_region(tile, extent), extent))
