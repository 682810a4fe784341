"""``GET /usage``: what a caller holds, and may hold."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.owners import signed
from gateway.tiler import ASK_S, CALLEE, Tiler
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from svckit import access
from svckit.client import calling


class Usage:
    """The endpoint.

    Args:
        tiler: who knows.
    """

    def __init__(self, tiler: Tiler) -> None:
        self._tiler = tiler

    async def get(self, request: Request) -> Response:
        """``GET /usage``: of canvases, what is painted in them, pictures and exports.

        Whoever has no name holds nothing.
        """
        said, budgets = signed(request), access.caller.get().budgets
        if said is None:
            reply = canvas_pb.GetUsageResponse(
                canvases=canvas_pb.Share(most=budgets.own_canvases),
                canvas_bytes=canvas_pb.Share(most=budgets.own_canvas_bytes),
                picture_bytes=canvas_pb.Share(most=budgets.own_picture_bytes),
                export_bytes=canvas_pb.Share(most=budgets.own_export_bytes),
            )
        else:
            with calling(CALLEE):
                reply = await self._tiler.canvases.GetUsage(
                    canvas_pb.GetUsageRequest(), timeout=ASK_S, metadata=said
                )
        told = {
            "canvases": _told(reply.canvases),
            "canvas_bytes": _told(reply.canvas_bytes),
            "picture_bytes": _told(reply.picture_bytes),
            "export_bytes": _told(reply.export_bytes),
        }
        return JSONResponse(told, headers={"Cache-Control": "no-store"})


def _told(share: canvas_pb.Share) -> dict[str, Any]:
    return {"held": share.held, "most": share.most or None}
