"""A span around every request, where traces are recorded at all."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope, Send

from gateway.edge import Edge
from svckit import logs, trace


class Traced:
    """Middleware around the edge; without it a request is in no trace but its caller's."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._edge(scope, receive, send)
            return
        status, given = 0, dict(scope["headers"]).get(b"traceparent", b"")
        trace.receive(given.decode("latin-1"))

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with trace.span(scope["method"], serves=True) as span:
            try:
                await self._edge(scope, receive, sending)
            finally:
                told = {
                    "http.request.method": scope["method"],
                    "http.response.status_code": status,
                    "url.path": scope["path"],
                    "request_id": logs.request_id.get(),
                }
                name = f"{scope['method']} {self._edge.route_path(scope)}"
                span.describe(told, name=name, failed=status >= 500)
