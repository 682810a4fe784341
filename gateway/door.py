"""The door for HTTP: stands before every route, and asks what the table says."""

from __future__ import annotations

from starlette.requests import cookie_parser
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handscroll.errors import Forbidden
from svckit import access
from svckit.access import Access, Rule, client_address
from svckit.keyring import Role

SESSION = "handscroll_session"
"""The cookie that stands for a key where a page cannot send headers."""

EVERYBODY: list[tuple[str, str]] = [
    ("GET", "/"),
    ("GET", "/openapi.json"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
]
"""Routes that nobody is asked at."""

RULES: dict[tuple[str, str], Rule] = {
    # Readers get what is painted; the tiler sees to the rest, and to how many canvases are made.
    ("GET", "/tiles/{canvas}/{z}/{x}/{y}.{format}"): Rule(Role.READ),
    ("GET", "/worlds"): Rule(Role.READ),
    ("GET", "/canvases"): Rule(Role.READ),
    ("POST", "/canvases"): Rule(Role.PAINT),
    ("GET", "/canvases/{canvas}"): Rule(Role.READ),
    ("DELETE", "/canvases/{canvas}"): Rule(Role.PAINT),
    ("GET", "/canvases/{canvas}/tilejson.json"): Rule(Role.READ),
    ("GET", "/canvases/{canvas}/events"): Rule(Role.READ, stream=True),
    ("GET", "/pictures"): Rule(Role.READ),
    ("POST", "/pictures"): Rule(Role.PAINT),
    ("DELETE", "/pictures/{picture}"): Rule(Role.PAINT),
    ("GET", "/usage"): Rule(Role.READ),
    ("GET", "/exports"): Rule(Role.READ),
    ("POST", "/exports"): Rule(Role.PAINT),
    ("GET", "/exports/{export}"): Rule(Role.READ),
    ("DELETE", "/exports/{export}"): Rule(Role.PAINT),
    ("GET", "/exports/{export}/file"): Rule(Role.READ, stream=True),
    ("POST", "/session"): Rule(Role.NONE),
    ("DELETE", "/session"): Rule(Role.NONE),
    ("GET", "/metrics"): Rule(Role.ADMIN),
    ("GET", "/status"): Rule(Role.ADMIN),
}
"""What each route takes of its caller."""

_SAFE = ("GET", "HEAD")


class Doorkeeper:
    """Stands before a route, for callers with a key, the cookie that stands for one, or neither.

    Args:
        app: the route's.
        access: tells callers apart.
        rule: what the route takes.
        proxies: see `client_address`.
    """

    def __init__(self, app: ASGIApp, access: Access, rule: Rule, proxies: int) -> None:
        self._app, self._access, self._rule, self._proxies = app, access, rule, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request if its caller may ask."""
        if self._access.open:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        peer = scope["client"][0] if scope["client"] else ""
        address = client_address(peer, b",".join(forwarded).decode("latin-1"), self._proxies)
        shown = self._shown(headers, scope)
        with self._access.admitted(self._rule, shown, address):
            said = (("authorization", shown),) if shown is not None else ()
            access.presented.set((*said, ("x-forwarded-for", address)))
            await self._app(scope, receive, _privately(send) if self._access.private else send)

    def _shown(self, headers: dict[bytes, bytes], scope: Scope) -> str | None:
        """The authorization that came; a cookie of a key that is no more is as good as none.

        Raises:
            Forbidden: a page of others may have made the browser send the cookie.
        """
        if b"authorization" in headers:
            return headers[b"authorization"].decode("latin-1")
        if b"cookie" not in headers:
            return None
        kept = cookie_parser(headers[b"cookie"].decode("latin-1")).get(SESSION, "")
        if self._access.find(kept) is None:
            return None
        if scope["method"] not in _SAFE and not _same_origin(headers):
            raise Forbidden(
                "a cookie may change something only in requests from this gateway's own pages; "
                "others must send their key as 'Authorization: Bearer hs_…'"
            )
        return f"Bearer {kept}"


def _privately(send: Send) -> Send:
    """Keep caches that others share from holding answers that take a key."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, value.replace(b"public", b"private") if name == b"cache-control" else value)
                for name, value in message["headers"]
            ]
        await send(message)

    return sending


def guard(route: Route, asked: Access, proxies: int) -> None:
    """Put a doorkeeper before a route. One that nobody thought of is not for everybody."""
    method = next(iter((route.methods or {"GET"}) - {"HEAD"}))
    if (method, route.path) not in EVERYBODY:
        rule = RULES.get((method, route.path), Rule(Role.ADMIN))
        route.app = Doorkeeper(route.app, asked, rule, proxies)


def _same_origin(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser says that a page of ours sent this."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    _, _, origin = headers.get(b"origin", b"").partition(b"://")
    return origin.lower() == headers[b"host"].lower()
