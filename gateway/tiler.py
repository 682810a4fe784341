"""Calls to tiler_svc."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc_health.v1 import health_pb2, health_pb2_grpc

from handscroll.errors import Unavailable
from handscroll_api.canvas.v1 import canvas_service_pb2_grpc as canvas_rpc
from handscroll_api.tiler.v1 import tiler_service_pb2_grpc as tiler_rpc
from svckit.client import calling, connect

CALLEE = "the tiler"
ASK_S = 10.0
"""How long calls that paint nothing may take; a tiler that restarts is waited for that long."""
CHECK_S = 2.0


class Tiler:
    """The tiler's services; usable while `connected`.

    Attributes:
        tiles: TilerService.
        canvases: CanvasService.
    """

    tiles: tiler_rpc.TilerServiceAsyncStub
    canvases: canvas_rpc.CanvasServiceAsyncStub

    def __init__(self, address: str) -> None:
        self.address = address

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Hold a channel; it needs nobody to answer yet."""
        async with connect(self.address) as channel:
            self.tiles = tiler_rpc.TilerServiceStub(channel)
            self.canvases = canvas_rpc.CanvasServiceStub(channel)
            self._health = health_pb2_grpc.HealthStub(channel)
            yield

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
