"""Exports of a fake tiler: made at once, or whenever a test says so."""

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from handscroll.errors import InvalidRequest, NotFound
from handscroll_api.tiler.v1 import export_service_pb2 as pb
from handscroll_api.tiler.v1 import export_service_pb2_grpc as pb_grpc
from svckit.keys import canvas_key, export_key
from svckit.store import Store

TOTAL = 12


class FakeExports(pb_grpc.ExportServiceServicer):
    """ExportService, whose files are bytes that tell their places apart.

    Args:
        store: where canvases are.
        begin: is called with the context of each call.

    Attributes:
        made: the exports, by id.
        owned: ids of each owner's, the oldest first.
        state: what becomes of the next ones.
        size_bytes: of the next files.
        downloads: parts that were asked for.
        left: downloads that their client left.
        refusal: what whoever wants another is told, if anything.
    """

    def __init__(self, store: Store, begin: Callable[[Any], None]) -> None:
        self._store, self._begin = store, begin
        self.forget()

    def forget(self) -> None:
        """Be as if nobody had called."""
        self.made: dict[str, pb.Export] = {}
        self.owned: dict[str, list[str]] = {}
        self.state, self.size_bytes = pb.EXPORT_STATE_DONE, 5000
        self.downloads: list[tuple[int, int]] = []
        self.left = 0
        self.refusal: Exception | None = None

    def held_bytes(self, owner: str) -> int:
        """Of the files of an owner's."""
        return sum(self.made[name].size_bytes for name in self.owned.get(owner, []))

    @staticmethod
    def content(start: int, end: int) -> bytes:
        """What stands in a file."""
        return bytes(place * 7 % 251 for place in range(start, end))

    async def CreateExport(
        self, request: pb.CreateExportRequest, context: Any
    ) -> pb.CreateExportResponse:
        self._begin(context)
        if self.refusal is not None:
            raise self.refusal
        if await self._store.get(canvas_key(request.spec.canvas)) is None:
            raise NotFound(f"there is no canvas {request.spec.canvas}")
        if not (request.spec.height_px and request.spec.width_px):
            raise InvalidRequest("a region must not be empty")
        name = hashlib.sha256(request.spec.SerializeToString(deterministic=True)).hexdigest()
        done = self.state == pb.EXPORT_STATE_DONE
        self.made[name] = pb.Export(
            id=name,
            spec=request.spec,
            state=self.state,
            done=TOTAL if done else 3,
            total=TOTAL,
            size_bytes=self.size_bytes if done else 0,
            etag="e" * 32 if done else "",
            problem="the store is full" if self.state == pb.EXPORT_STATE_STOPPED else "",
        )
        own = self.owned.setdefault(_owner(context), [])
        if name not in own:
            own.append(name)
        return pb.CreateExportResponse(export=self.made[name])

    async def GetExport(self, request: pb.GetExportRequest, context: Any) -> pb.GetExportResponse:
        self._begin(context)
        return pb.GetExportResponse(export=self._find(request.export))

    async def ListExports(
        self, request: pb.ListExportsRequest, context: Any
    ) -> pb.ListExportsResponse:
        self._begin(context)
        if request.page_size > 1000 or request.page_token not in ("", "2"):
            raise InvalidRequest("page_size must be 0 to 1000, and page_token one that a page gave")
        own = self.owned.get(_owner(context), [])[::-1]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        response = pb.ListExportsResponse(next_page_token=str(end) if end < len(own) else "")
        for name in own[start:end]:
            response.exports.add(export=self.made[name]).made_at.FromSeconds(1_800_000_000)
        return response

    async def DeleteExport(
        self, request: pb.DeleteExportRequest, context: Any
    ) -> pb.DeleteExportResponse:
        self._begin(context)
        self._find(request.export)
        own = self.owned.get(_owner(context), [])
        if request.export not in own:
            raise NotFound(f"export {request.export} is not among your own")
        own.remove(request.export)
        del self.made[request.export]
        return pb.DeleteExportResponse()

    async def DownloadExport(
        self, request: pb.DownloadExportRequest, context: Any
    ) -> AsyncIterator[pb.DownloadExportResponse]:
        self._begin(context)
        found, start = self._find(request.export), request.offset
        self.downloads.append((start, request.length))
        end = start + request.length if request.length else found.size_bytes
        ended = False
        try:
            while start < end:
                stop = min(end, start + 1000)
                yield pb.DownloadExportResponse(content=self.content(start, stop))
                start = stop
            ended = True
        finally:
            self.left += not ended

    def _find(self, export_id: str) -> pb.Export:
        export_key(export_id)
        if export_id not in self.made:
            raise NotFound(f"there is no export {export_id}")
        return self.made[export_id]


def _owner(context: Any) -> str:
    return str(dict(context.invocation_metadata() or ()).get("x-owner", ""))
