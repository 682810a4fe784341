"""``/healthz``, ``/readyz``, ``/metrics``, ``/openapi.json``: for those who run or program us."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import yaml
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.tiler import CHECK_S, Tiler
from handscroll.errors import StoreUnavailable
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

    async def openapi(self, request: Request) -> Response:
        """``GET /openapi.json``: this interface, described."""
        return Response(
            self._openapi,
            headers={"Cache-Control": "no-cache", "Content-Type": "application/json"},
        )
