"""Errors as answers: RFC 9457 problems, their status from the one table in `svckit.status`."""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from handscroll.errors import HandscrollError, Unauthenticated
from svckit import logs
from svckit.status import TABLE, retry_after_s

_log = logging.getLogger(__name__)


def problem(error: Exception) -> dict[str, Any]:
    """The problem object of an error; one that nobody foresaw is logged, and its words kept in.

    ``retry_after`` is in whole seconds, and there where trying again may help.
    """
    wait_s = None
    if isinstance(error, HandscrollError):
        status, detail = TABLE[type(error)].http, str(error)
        wait_s = retry_after_s(error)
    elif isinstance(error, HTTPException):
        status, detail = HTTPStatus(error.status_code), error.detail
    else:
        _log.error("request failed", exc_info=error)
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        detail = "something went wrong here; it has been logged"
    found = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "request_id": logs.request_id.get(),
    }
    if wait_s is not None:
        found["retry_after"] = max(1, math.ceil(wait_s))
    return found


def answer(error: Exception, cache_control: str = "no-store") -> Response:
    """The HTTP answer that tells of an error."""
    found = problem(error)
    headers = {"Cache-Control": cache_control}
    if isinstance(error, HTTPException):
        headers.update(error.headers or {})
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="handscroll"'
    if "retry_after" in found:
        headers["Retry-After"] = str(found["retry_after"])
    return Response(
        json.dumps(found),
        found["status"],
        headers,
        media_type="application/problem+json",
    )
