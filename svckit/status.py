"""The one table from the error tree to gRPC and HTTP codes, and errors as google.rpc.Status.

An error crosses a process boundary as a status with a google.rpc.ErrorInfo that names its class,
and a google.rpc.RetryInfo where waiting may help; on the other side the same class is raised again.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status

from handscroll import errors
from handscroll.errors import HandscrollError, Overloaded, Unavailable

DOMAIN = "handscroll"


class Codes(NamedTuple):
    """What an error is called on the wire."""

    grpc: grpc.StatusCode
    http: HTTPStatus


# OverQuota is 507, which RFC 4918 has for this: asking again helps once something was deleted.
# OutOfTime is 503 and not 504: map clients try again after the first, and give up on the second.
TABLE: dict[type[HandscrollError], Codes] = {
    errors.InvalidRequest: Codes(grpc.StatusCode.INVALID_ARGUMENT, HTTPStatus.BAD_REQUEST),
    errors.NotFound: Codes(grpc.StatusCode.NOT_FOUND, HTTPStatus.NOT_FOUND),
    errors.Unauthenticated: Codes(grpc.StatusCode.UNAUTHENTICATED, HTTPStatus.UNAUTHORIZED),
    errors.Forbidden: Codes(grpc.StatusCode.PERMISSION_DENIED, HTTPStatus.FORBIDDEN),
    errors.SpecMismatch: Codes(grpc.StatusCode.FAILED_PRECONDITION, HTTPStatus.CONFLICT),
    errors.BrokenCheckpoint: Codes(
        grpc.StatusCode.FAILED_PRECONDITION, HTTPStatus.INTERNAL_SERVER_ERROR
    ),
    errors.Mistaken: Codes(grpc.StatusCode.INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR),
    errors.StillNeeded: Codes(grpc.StatusCode.FAILED_PRECONDITION, HTTPStatus.CONFLICT),
    errors.OverQuota: Codes(grpc.StatusCode.RESOURCE_EXHAUSTED, HTTPStatus.INSUFFICIENT_STORAGE),
    errors.Unavailable: Codes(grpc.StatusCode.UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE),
    errors.UnsafeStore: Codes(grpc.StatusCode.UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE),
    errors.StoreUnavailable: Codes(grpc.StatusCode.UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE),
    errors.Overloaded: Codes(grpc.StatusCode.RESOURCE_EXHAUSTED, HTTPStatus.SERVICE_UNAVAILABLE),
    errors.OverBudget: Codes(grpc.StatusCode.RESOURCE_EXHAUSTED, HTTPStatus.TOO_MANY_REQUESTS),
    errors.OutOfTime: Codes(grpc.StatusCode.DEADLINE_EXCEEDED, HTTPStatus.SERVICE_UNAVAILABLE),
}

_BY_REASON = {re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper(): kind for kind in TABLE}
_REASON = {kind: reason for reason, kind in _BY_REASON.items()}
# What a peer without our details (a proxy, gRPC itself) means by a code.
_BY_CODE = {
    grpc.StatusCode.DATA_LOSS: errors.Mistaken,
    grpc.StatusCode.INTERNAL: errors.Mistaken,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.UNKNOWN: errors.Mistaken,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.FAILED_PRECONDITION: errors.SpecMismatch,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.OutOfTime,
}

LONGEST_MESSAGE_BYTES = 1024
"""Of an error that crosses processes: it stands in headers, twice, and of these few fit."""
_TOO_LARGE = re.compile("(CLIENT: Sent|SERVER: Received) message larger than max")


def retry_after_s(error: HandscrollError) -> float | None:
    """Seconds after which trying again may help; None where it never will."""
    if isinstance(error, Overloaded):
        return error.retry_after_s
    return 1.0 if isinstance(error, Unavailable) else None


def to_status(error: HandscrollError) -> grpc.Status:
    """The rich status of an error."""
    code = TABLE[type(error)].grpc
    message = str(error).encode(errors="replace")[:LONGEST_MESSAGE_BYTES].decode(errors="ignore")
    details = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=_REASON[type(error)], domain=DOMAIN))
    wait_s = retry_after_s(error)
    if wait_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(1000 * wait_s))
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return rpc_status.to_status(
        status_pb2.Status(
            code=code.value[0],
            message=message,
            details=details if wait_s is not None else details[:1],
        )
    )


def _said_by_grpc(
    code: grpc.StatusCode, message: str, callee: str
) -> tuple[type[HandscrollError], str]:
    """The error that a status stands for which is not of our making."""
    kind = _BY_CODE.get(code, Unavailable)
    # gRPC's own words for a peer that is away name addresses, which are nobody's business.
    if code is grpc.StatusCode.UNAVAILABLE:
        return kind, f"{callee} cannot be reached"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return kind, f"{callee} did not answer in time"
    if _TOO_LARGE.search(message):
        # No time will come when there is room for it, whatever the code says.
        kind = errors.InvalidRequest
    return kind, f"{callee}: {message or code.name}"


def from_call(failure: aio.AioRpcError, callee: str) -> HandscrollError:
    """The error that a failed call stands for.

    Args:
        failure: of the call.
        callee: who was called, in words.
    """
    message, reason, wait_s = failure.details() or "", "", 1.0
    try:
        status = rpc_status.from_call(failure)  # type: ignore[arg-type]
    except ValueError:  # gRPC has put another code in place of ours
        status = None
    for detail in status.details if status is not None else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
        elif detail.Unpack(retry):
            wait_s = retry.retry_delay.ToMilliseconds() / 1000
    kind = _BY_REASON.get(reason)
    if kind is None:
        kind, message = _said_by_grpc(failure.code(), message, callee)
    return kind(message, wait_s) if issubclass(kind, Overloaded) else kind(message)
