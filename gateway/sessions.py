"""``/session``: keeps a key as a cookie, for pages: not all that they load can carry a header."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.door import SESSION
from handscroll.errors import InvalidRequest, Unauthenticated
from svckit import access
from svckit.access import Access

KEPT_S = 30 * 86400
_FRESH = {"Cache-Control": "no-store"}


class Sessions:
    """The endpoints.

    Args:
        asked: tells callers apart.
        public_url: where others reach us; empty for wherever they asked.
    """

    def __init__(self, asked: Access, public_url: str) -> None:
        self._access, self._public_url = asked, public_url

    async def open(self, request: Request) -> Response:
        """``POST /session``: have a cookie stand for the key that came."""
        if self._access.open:
            raise InvalidRequest("there are no keys here: everybody may paint")
        key = access.caller.get().key
        if key is None:
            raise Unauthenticated("a session takes a key, as 'Authorization: Bearer hs_…'")
        response = JSONResponse({"name": key.name, "role": key.role}, headers=_FRESH)
        shown = dict(access.presented.get())["authorization"].split()[-1]
        response.set_cookie(
            SESSION,
            shown,
            max_age=KEPT_S,
            secure=self._secure(request),
            httponly=True,
            samesite="strict",
        )
        return response

    async def close(self, request: Request) -> Response:
        """``DELETE /session``: forget it."""
        response = Response(status_code=204, headers=_FRESH)
        response.delete_cookie(
            SESSION, secure=self._secure(request), httponly=True, samesite="strict"
        )
        return response

    def _secure(self, request: Request) -> bool:
        return (self._public_url or request.url.scheme).startswith("https")
