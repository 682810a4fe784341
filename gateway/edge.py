"""What stands around every request: whom we answer to, its name, its headers, its time, its end."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Sequence
from urllib.parse import unquote, urlsplit

from prometheus_client import Histogram
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import problems
from gateway.waiting import Ended
from handscroll.errors import InvalidRequest, Unavailable
from svckit import logs, trace
from svckit.keyring import holds_key

# The viewer's page needs no more than this, and nothing else is a page.
SECURITY = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; connect-src 'self'; style-src 'self'; "
        b"script-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
CHECKS = ("/healthz", "/readyz")
# What nginx calls a client that left before the answer; it is for metrics only.
LEFT = 499

_SECONDS = Histogram(
    "handscroll_gateway_seconds",
    "Time to answer a request",
    ["route", "status"],
    buckets=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
# Names have 253 characters at most; longer ones are not remembered.
LONGEST_HOST = 260
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9][a-z0-9._-]{0,252})(:[0-9]{1,5})?", re.ASCII)
_log = logging.getLogger(__name__)
_timer = functools.cache(_SECONDS.labels)


def trust(trusted_hosts: str, public_url: str) -> Callable[[bytes], bool]:
    """A test of Host headers.

    Addresses are always trusted, names only if they are ours: another site may have its name
    resolve to this machine and would then share our origin with its pages.

    Args:
        trusted_hosts: names, comma-separated; ``*`` for any.
        public_url: a URL whose host is trusted too; may be empty.
    """
    names = {name.strip().lower() for name in trusted_hosts.split(",")} | {"localhost"}
    names.add(urlsplit(public_url).hostname or "")

    @functools.lru_cache(1024)
    def known(host: bytes) -> bool:
        parts = _HOST.fullmatch(host.decode("latin-1").lower())
        if parts is None:
            return False
        try:
            ipaddress.ip_address(parts[1].strip("[]"))
        except ValueError:
            return parts[1] in names or "*" in names
        return True

    return lambda host: len(host) <= LONGEST_HOST and known(host)


class Edge:
    """Middleware: checks the host, names the request, answers errors, adds headers, and measures.

    Args:
        app: the routes.
        trusted: see `trust`.
        allow_origins: which web pages of other origins may read what is meant for map clients.
        routes: those of ``app``.

    Attributes:
        leaving: whether we stop soon. Whoever checks us is then sent elsewhere, and connections
            end with the answer under way.
    """

    leaving = False

    def __init__(
        self,
        app: ASGIApp,
        trusted: Callable[[bytes], bool],
        allow_origins: str,
        routes: Sequence[Route],
    ) -> None:
        self._app, self._trusted, self.routes = app, trusted, routes
        self._paths = {route.endpoint: route.path for route in routes}
        origin = (b"access-control-allow-origin", allow_origins.encode())
        self._shared = [*SECURITY, origin] if allow_origins else SECURITY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        # Routing raises its errors only inside of an application.
        scope["app"] = self
        headers = dict(scope["headers"])
        name = logs.clean_request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        logs.request_id.set(name)
        if b"traceparent" in headers and not trace.current().traceparent:
            trace.receive(headers[b"traceparent"].decode("latin-1"))
        path = scope["path"]
        keyed = holds_key(path) or holds_key(unquote(scope["query_string"].decode("latin-1")))
        if keyed:
            scope["path"] = path = "/"  # no log or trace must have it as well
        shared = path.startswith("/tiles/") or path.endswith(("/tilejson.json", "/openapi.json"))
        added = [*(self._shared if shared else SECURITY), (b"x-request-id", name.encode())]
        if self.leaving:
            added.append((b"connection", b"close"))

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            # Two are none: they might be checked by one and believed by the other.
            host = b", ".join(value for name, value in scope["headers"] if name == b"host")
            if not self._trusted(host):
                raise InvalidRequest(
                    "Host must be an address, or a name that this gateway was told to trust "
                    f"(trusted_hosts, public_url), not {host.decode('latin-1')!r:.80}"
                )
            if keyed:
                raise InvalidRequest(
                    "a key stands in the URL, where histories and logs keep it: revoke it, and "
                    "send keys in the header Authorization"
                )
            if path.endswith("\n"):
                raise HTTPException(404)  # routing would take it for the path without
            if self.leaving and path in CHECKS:
                raise Unavailable("this gateway is stopping: turn to another")
            await self._app(scope, receive, sending)
        except (Ended, ClientDisconnect):
            status = LEFT
        except asyncio.CancelledError:
            # The server stops and has waited long enough.
            if not status:
                stopped = Unavailable("this gateway is stopping: ask again")
                await problems.answer(stopped)(scope, receive, sending)
            raise
        except Exception as error:
            if status:
                raise
            await problems.answer(self._in_words(error, scope))(scope, receive, sending)
        finally:
            took_s = time.perf_counter() - began
            _timer(self.route_path(scope), status).observe(took_s)
            if _log.isEnabledFor(logging.DEBUG):
                told = {"method": scope["method"], "path": path, "status": status}
                _log.debug("request", extra=told | {"ms": round(1000 * took_s, 1)})

    def route_path(self, scope: Scope) -> str:
        """The path of the route that a request took."""
        endpoint = scope.get("endpoint")
        return self._paths.get(endpoint, "other") if endpoint else "other"

    def _in_words(self, error: Exception, scope: Scope) -> Exception:
        """Routing's own errors, saying what was given and what was expected."""
        if not isinstance(error, HTTPException):
            return error
        path, said, headers = f"{scope['path']!r:.200}", error.detail, dict(error.headers or {})
        if error.status_code == 404:
            said = f"there is nothing at {path}; /openapi.json lists what there is"
        elif error.status_code == 405:
            # Starlette names the methods of the first route that has this path, not of all.
            found = self.route_path(scope)
            same = (route.methods or () for route in self.routes if route.path == found)
            methods: set[str] = set().union(*same)
            headers["Allow"] = ", ".join(sorted(methods)) or headers["Allow"]
            said = f"{path} answers to {headers['Allow']}, not {scope['method']:.20}"
        return HTTPException(error.status_code, said, headers)
