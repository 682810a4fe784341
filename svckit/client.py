"""Calling another service: one kind of channel, deadlines passed on, errors as our own.

Calls are spread over all addresses that a name stands for, one by one. Whoever says that it leaves,
or is not there yet, is passed over; names are looked up again whenever a connection ends.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from grpc import aio

from handscroll.errors import InvalidRequest
from svckit import access, logs, trace
from svckit.deadline import remaining_s
from svckit.server import MAX_MESSAGE_BYTES
from svckit.status import from_call
from svckit.tls import TlsSettings

# A service that restarts is waited for, as long as the deadline allows.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},  # watched: who drains is called no more
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
    ],
}


def _passed_on(details: aio.ClientCallDetails) -> aio.ClientCallDetails:
    """The details of a call, with deadline, request id, trace and caller of that being served."""
    metadata = aio.Metadata(*(details.metadata or ()))
    if logs.request_id.get():
        metadata["x-request-id"] = logs.request_id.get()
    if trace.current().traceparent:
        metadata["traceparent"] = trace.current().traceparent
    for name, value in access.presented.get():
        metadata[name] = value
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


class _GatherPassOn(aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation, client_call_details, request_iterator):  # type: ignore[no-untyped-def]
        return await continuation(_passed_on(client_call_details), request_iterator)


def connect(target: str, tls: TlsSettings | None = None) -> aio.Channel:
    """A channel to a service; nothing is sent before the first call.

    Args:
        target: host:port, where the host may have many addresses, as a headless Service of
            Kubernetes has; or several such with IPv4 addresses, comma-separated.
        tls: certificates, if there are any.

    Raises:
        InvalidRequest: one of several is not an IPv4 address with a port, or there are several
            and certificates, or one of these cannot be read.
    """
    credentials = tls.of_client() if tls is not None else None
    if credentials is not None and "," in target:
        raise InvalidRequest(
            "with certificates, a service must be one name, which these are made for and which may "
            f"stand for many addresses; not {target!r:.80}"
        )
    open_channel = (
        aio.insecure_channel
        if credentials is None
        else partial(aio.secure_channel, credentials=credentials)
    )
    return open_channel(
        _resolvable(target),
        options=[
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),  # services are no business of a proxy for the web
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # Half a minute otherwise: all pods of a service may have been replaced by then.
            ("grpc.dns_min_time_between_resolutions_ms", 5_000),
            # A peer that vanished without a word is noticed.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
        ],
        interceptors=[_UnaryPassOn(), _StreamPassOn(), _GatherPassOn()],
    )


def _resolvable(target: str) -> str:
    """A target as gRPC's resolvers have it."""
    if "," not in target:
        return target
    addresses = [address.strip() for address in target.split(",")]
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            ipaddress.IPv4Address(host)
            known = 0 < int(port) < 2**16
        except ValueError:
            known = False
        if not known:
            raise InvalidRequest(
                "each of several addresses must be an IPv4 one with a port, as 10.0.0.1:7001 is, "
                f"not {address!r:.80}"
            )
    return f"ipv4:{','.join(addresses)}"


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
