"""Calls to tiler_svc."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc_health.v1 import health_pb2, health_pb2_grpc

from handscroll.errors import Unavailable
from handscroll_api.canvas.v1 import canvas_service_pb2_grpc as canvas_rpc
from handscroll_api.status.v1 import status_service_pb2 as status_pb
from handscroll_api.tiler.v1 import export_service_pb2_grpc as export_rpc
from handscroll_api.tiler.v1 import tiler_service_pb2_grpc as tiler_rpc
from svckit import report
from svckit.client import calling, connect
from svckit.tls import TlsSettings

CALLEE = "the tiler"
ASK_S = 10.0
"""How long calls that paint nothing may take; a tiler that restarts is waited for that long."""
TAKE_S = 60.0
"""How long a picture may take to be taken in, or encoded at every level."""
CHECK_S = 2.0


class Tiler:
    """The tiler's services; usable while `connected`.

    Attributes:
        tiles: TilerService.
        exports: ExportService.
        canvases: CanvasService.
    """

    tiles: tiler_rpc.TilerServiceAsyncStub
    exports: export_rpc.ExportServiceAsyncStub
    canvases: canvas_rpc.CanvasServiceAsyncStub

    def __init__(self, address: str, tls: TlsSettings) -> None:
        self.address, self._tls = address, tls

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Hold a channel; it needs nobody to answer yet."""
        async with connect(self.address, self._tls) as channel:
            self._channel = channel
            self.tiles = tiler_rpc.TilerServiceStub(channel)
            self.exports = export_rpc.ExportServiceStub(channel)
            self.canvases = canvas_rpc.CanvasServiceStub(channel)
            self._health = health_pb2_grpc.HealthStub(channel)
            yield

    async def status(self) -> list[status_pb.Process]:
        """How it is, and those that it asks."""
        return await report.of_peer("tiler", self._channel, hops=2)

    async def ready(self) -> None:
        """Ask whether it serves.

        Raises:
            Unavailable: it does not, or nobody answers.
        """
        with calling(CALLEE):
            found = await self._health.Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), timeout=CHECK_S, wait_for_ready=False
            )
        if found.status != health_pb2.HealthCheckResponse.SERVING:
            said = health_pb2.HealthCheckResponse.ServingStatus.Name(found.status)
            raise Unavailable(f"{CALLEE} says that it is {said}, not SERVING")
