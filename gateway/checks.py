"""``/healthz``, ``/readyz``, ``/status``, ``/metrics``, ``/openapi.json``: for those who run us."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import yaml
from google.protobuf.json_format import MessageToDict
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.tiler import CHECK_S, Tiler
from handscroll.errors import StoreUnavailable
from handscroll_api.status.v1 import status_service_pb2 as status_pb
from svckit import report
from svckit.store import Store

_FRESH = {"Cache-Control": "no-store"}


class Checks:
    """The endpoints."""

    def __init__(self, tiler: Tiler, store: Store) -> None:
        self._tiler, self._store = tiler, store
        contract = (Path(__file__).parent / "openapi.yaml").read_text()
        self._openapi = json.dumps(yaml.safe_load(contract)).encode()

    async def alive(self, request: Request) -> Response:
        """``GET /healthz``: the process is alive, whatever else is not."""
        return JSONResponse({"status": "alive"}, headers=_FRESH)

    async def ready(self, request: Request) -> Response:
        """``GET /readyz``: the store and the tiler answer; else the problem says who does not."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self._store.ready()
        except TimeoutError:
            raise StoreUnavailable(f"the store did not answer within {CHECK_S:g} s") from None
        await self._tiler.ready()
        return JSONResponse({"status": "ready"}, headers=_FRESH)

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``: for Prometheus."""
        return Response(generate_latest(), headers=_FRESH | {"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self, request: Request) -> Response:
        """``GET /status``: how each process is, for whoever is on call."""
        store_ms = None

        async def look(process: status_pb.Process) -> None:
            nonlocal store_ms
            began = time.perf_counter()
            await self._store.ready()
            store_ms = round(1000 * (time.perf_counter() - began), 1)

        mine, others = await asyncio.gather(report.own("gateway", look), self._tiler.status())
        processes = [
            MessageToDict(
                one, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            for one in (mine, *others)
        ]
        told = {
            "well": not any(one["problem"] for one in processes),
            "store_ms": store_ms,
            "processes": processes,
        }
        return JSONResponse(told, headers=_FRESH)

    async def openapi(self, request: Request) -> Response:
        """``GET /openapi.json``: this interface, described."""
        return Response(
            self._openapi,
            headers={"Cache-Control": "no-cache", "Content-Type": "application/json"},
        )
