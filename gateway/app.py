"""The gateway put together: settings in, an ASGI application or a server out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles

from gateway.cache import Memory
from gateway.canvases import Canvases
from gateway.checks import Checks
from gateway.door import guard
from gateway.edge import Edge, trust
from gateway.events import Events
from gateway.exports import Exports
from gateway.pictures import Pictures
from gateway.protocol import Bounded
from gateway.sessions import Sessions
from gateway.settings import GatewaySettings
from gateway.tiler import Tiler
from gateway.tiles import Tiles
from gateway.traced import Traced
from gateway.uploads import Uploads
from gateway.usage import Usage
from handscroll.errors import InvalidRequest
from svckit import trace
from svckit.access import Access
from svckit.specs import Specs

STATIC = Path(__file__).parent / "static"


class _Viewer(StaticFiles):
    """The viewer's files; browsers ask each time whether they have changed."""

    async def page(self, request: Request) -> Response:
        """``GET /``."""
        return await self.get_response("index.html", request.scope)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(settings: GatewaySettings) -> Edge:
    """The gateway. Nothing has to answer yet: what needs the tiler fails until it does.

    Raises:
        InvalidRequest: others can reach it, and nothing says what they may.
    """
    access = Access(settings.access, settings.host)
    store, tiler = settings.store.open(), Tiler(settings.tiler, settings.tls)
    pictures = Pictures(Memory(settings.cache_bytes), store, Specs(store), tiler)
    canvases = Canvases(tiler, pictures, settings.public_url)
    exports = Exports(tiler, settings.public_url)
    uploads = Uploads(tiler, settings.public_url)
    checks = Checks(tiler, store)
    sessions = Sessions(access, settings.public_url)
    viewer = _Viewer(directory=STATIC)
    routes = [
        Route(
            "/tiles/{canvas}/{z}/{x}/{y}.{format}",
            Tiles(pictures, settings.wait_s),
            methods=["GET"],
        ),
        Route("/worlds", canvases.worlds),
        Route("/canvases", canvases.own),
        Route("/canvases", canvases.create, methods=["POST"]),
        Route("/canvases/{canvas}", canvases.get),
        Route("/canvases/{canvas}", canvases.delete, methods=["DELETE"]),
        Route("/canvases/{canvas}/tilejson.json", canvases.tilejson),
        Route("/canvases/{canvas}/events", Events(tiler, pictures).stream),
        Route("/pictures", uploads.own),
        Route("/pictures", uploads.take, methods=["POST"]),
        Route("/pictures/{picture}", uploads.delete, methods=["DELETE"]),
        Route("/usage", Usage(tiler).get),
        Route("/exports", exports.own),
        Route("/exports", exports.create, methods=["POST"]),
        Route("/exports/{export}", exports.get),
        Route("/exports/{export}", exports.delete, methods=["DELETE"]),
        Route("/exports/{export}/file", exports.file),
        Route("/session", sessions.open, methods=["POST"]),
        Route("/session", sessions.close, methods=["DELETE"]),
        Route("/openapi.json", checks.openapi),
        Route("/metrics", checks.metrics),
        Route("/status", checks.status),
        Route("/healthz", checks.alive),
        Route("/readyz", checks.ready),
        Route("/", viewer.page),
    ]
    for route in routes:
        guard(route, access, settings.proxies)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        try:
            async with tiler.connected():
                yield
        finally:
            await pictures.close()
            await store.close()
            # A signal ends this process at once when uvicorn has stopped, spans unsent or not.
            await asyncio.to_thread(trace.close)

    router = Router([*routes, Mount("/static", viewer)], redirect_slashes=False, lifespan=lifespan)
    trusted = trust(settings.trusted_hosts, settings.public_url)
    return Edge(router, trusted, settings.allow_origins, routes)


class _Server(uvicorn.Server):
    """Gives notice before it stops.

    Args:
        edge: is told that we leave.
        notice_s: seconds in which requests are still taken.
    """

    def __init__(self, config: uvicorn.Config, edge: Edge, notice_s: float) -> None:
        super().__init__(config)
        self._edge, self._notice_s = edge, notice_s

    async def main_loop(self) -> None:
        """Serve until told to stop, and a while longer."""
        await super().main_loop()
        self._edge.leaving = True
        await asyncio.sleep(self._notice_s)


def server(settings: GatewaySettings) -> uvicorn.Server:
    """A server of the gateway. On SIGTERM requests and streams end in time, then it stops.

    Raises:
        InvalidRequest: others can reach it, and nothing says what they may; or certificate or key
            are missing, or do not fit.
    """
    if settings.key and not settings.cert:
        raise InvalidRequest("key is set, so cert must be, too")
    edge = create_app(settings)
    notice_s, rest_s = settings.leave_s
    config = uvicorn.Config(
        Traced(edge) if trace.recording() else edge,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Bounded,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Where we are reached is for `public_url` to say, not for a header.
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(rest_s),
        ssl_certfile=settings.cert,
        ssl_keyfile=settings.key,
    )
    try:
        config.load()
    except OSError as error:
        raise InvalidRequest(
            f"no HTTPS with certificate {settings.cert} and key {settings.key}: {error}"
        ) from error
    return _Server(config, edge, notice_s)
