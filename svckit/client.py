"""Calling another service: one kind of channel, deadlines passed on, errors as our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from grpc import aio

from svckit import logs
from svckit.deadline import remaining_s
from svckit.server import MAX_MESSAGE_BYTES
from svckit.status import from_call

# A service that restarts is waited for, as long as the deadline allows.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def _passed_on(details: aio.ClientCallDetails) -> aio.ClientCallDetails:
    """The details of a call, with the deadline and the request id of the call being served."""
    metadata = aio.Metadata(*(details.metadata or ()))
    if logs.request_id.get():
        metadata["x-request-id"] = logs.request_id.get()
    left_s = remaining_s()
    known = [seconds for seconds in (details.timeout, left_s) if seconds is not None]
    return aio.ClientCallDetails(
        details.method,
        min(known, default=None),
        metadata,
        details.credentials,
        details.wait_for_ready,
    )


class _UnaryPassOn(aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(_passed_on(client_call_details), request)


class _StreamPassOn(aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        return await continuation(_passed_on(client_call_details), request)


def connect(target: str) -> aio.Channel:
    """A channel to a service; nothing is sent before the first call."""
    return aio.insecure_channel(
        target,
        options=[
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),  # services are no business of a proxy for the web
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # A peer that vanished without a word is noticed.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
        ],
        interceptors=[_UnaryPassOn(), _StreamPassOn()],
    )


@contextmanager
def calling(callee: str) -> Iterator[None]:
    """Turn the failure of calls made inside into the error it stands for.

    Cancelling us is no failure of a call. A call that the other side cancelled, as a server does
    that stops, is one, and trying again may help.

    Args:
        callee: who is called, in words, for messages.
    """
    try:
        yield
    except aio.AioRpcError as failure:
        raise from_call(failure, callee) from failure
