"""The laws of `svckit.status`: an error is the same on both sides of a channel."""

from http import HTTPStatus
from typing import Any

import grpc
import pytest
from grpc import aio

from handscroll import errors
from handscroll.errors import (
    Forbidden,
    HandscrollError,
    InvalidRequest,
    NotFound,
    OutOfTime,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from svckit.client import calling
from svckit.status import TABLE, from_call, retry_after_s, to_status
from tests.svckit.echo import Echo, serving


def tree(kind: type[HandscrollError] = HandscrollError) -> list[type[HandscrollError]]:
    return [kind, *(low for child in kind.__subclasses__() for low in tree(child))]


KINDS = [kind for kind in tree() if kind is not HandscrollError]


def test_every_error_of_the_tree_has_its_line() -> None:
    assert set(TABLE) == {kind for kind in KINDS if kind.__module__ == errors.__name__}


def test_waiting_helps_exactly_where_the_code_says_so() -> None:
    """HTTP clients are told to come back by 503 and 429, and by nothing else."""
    later = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
    for kind, codes in TABLE.items():
        waits = retry_after_s(kind("x")) is not None
        assert waits == issubclass(kind, Unavailable)
        assert waits == (codes.http in later)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", TABLE)
@pytest.mark.parametrize("method", ["unary", "stream"])
async def test_error_crosses_the_channel_whole(kind: type[HandscrollError], method: str) -> None:
    message = "12 × 3 expected,\nnot „4“"

    async def fail(context: Any) -> None:
        raise kind(message, 7.25) if issubclass(kind, Overloaded) else kind(message)

    async with serving(Echo(fail)) as line:
        with pytest.raises(HandscrollError) as failure:
            with calling("the echo"):
                await getattr(line, method)()
    error = failure.value
    assert type(error) is kind and str(error) == message
    waits_s = 7.25 if issubclass(kind, Overloaded) else retry_after_s(kind("x"))
    assert retry_after_s(error) == waits_s


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest, "the echo: 10.0.0.1 says no"),
        (grpc.StatusCode.NOT_FOUND, NotFound, "the echo: 10.0.0.1 says no"),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated, "the echo: 10.0.0.1 says no"),
        (grpc.StatusCode.PERMISSION_DENIED, Forbidden, "the echo: 10.0.0.1 says no"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded, "the echo: 10.0.0.1 says no"),
        (grpc.StatusCode.UNAVAILABLE, Unavailable, "the echo cannot be reached"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, OutOfTime, "the echo did not answer in time"),
        (grpc.StatusCode.UNIMPLEMENTED, Unavailable, "the echo: 10.0.0.1 says no"),
        (grpc.StatusCode.CANCELLED, Unavailable, "the echo: 10.0.0.1 says no"),
    ],
)
def test_status_of_a_stranger_becomes_the_nearest_error(
    code: grpc.StatusCode, kind: type[HandscrollError], message: str
) -> None:
    """gRPC itself, or a proxy between us, speaks without our details."""
    failure = aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details="10.0.0.1 says no")
    error = from_call(failure, "the echo")
    assert type(error) is kind and str(error) == message


def test_class_that_is_missing_in_the_table_is_our_mistake() -> None:
    class Strange(HandscrollError):
        pass

    with pytest.raises(KeyError):
        to_status(Strange("x"))
