"""Whose canvases and pictures a request is about, where no key says it: a header, or a cookie."""

from __future__ import annotations

import re
import secrets

from starlette.requests import Request
from starlette.responses import Response

from handscroll.errors import InvalidRequest
from svckit import access

COOKIE = "handscroll_owner"
YEAR_S = 365 * 86400

Metadata = tuple[tuple[str, str], ...]

_OWNER = re.compile(r"[!-~]{16,128}", re.ASCII)
_OWN_COOKIE = re.compile(r"[0-9a-f]{32}", re.ASCII)


def signed(request: Request) -> Metadata | None:
    """Metadata that says who holds something, where the key does not; None for nobody.

    Raises:
        InvalidRequest: the header that came is no secret.
    """
    if access.caller.get().owner:
        return ()
    owner = _owner(request)
    return (("x-owner", owner),) if owner else None


def newly_signed(request: Request) -> tuple[Metadata, str]:
    """The same, with a new secret for nobody; and that, to be remembered, if there is one.

    Raises:
        InvalidRequest: the header that came is no secret.
    """
    said = signed(request)
    if said is not None:
        return said, ""
    secret = secrets.token_hex(16)
    return (("x-owner", secret),), secret


def remember(response: Response, secret: str, public_url: str) -> None:
    """Have a browser keep a secret; nothing where it is empty.

    Args:
        response: to the browser.
        secret: new.
        public_url: where the gateway is reached.
    """
    if secret:
        response.set_cookie(
            COOKIE,
            secret,
            max_age=YEAR_S,
            httponly=True,
            samesite="lax",
            secure=public_url.startswith("https:"),
        )


def _owner(request: Request) -> str | None:
    """The secret that makes the caller who they are, if they sent one."""
    given = request.headers.get("x-owner")
    if given is not None:
        if not _OWNER.fullmatch(given):
            raise InvalidRequest(
                f"X-Owner must be 16 to 128 visible ASCII characters, not these {len(given)}"
            )
        return given
    # A cookie that is not of our making is as good as none.
    kept = request.cookies.get(COOKIE, "")
    return kept if _OWN_COOKIE.fullmatch(kept) else None
