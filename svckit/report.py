"""What a process tells of itself, and of those that it asks: for whoever is on call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from grpc import aio
from prometheus_client import Gauge

from handscroll.errors import HandscrollError
from handscroll_api.status.v1 import status_service_pb2 as pb
from handscroll_api.status.v1 import status_service_pb2_grpc as pb_grpc
from svckit.client import calling
from svckit.refusal import refused
from svckit.server import Servicer
from svckit.version import VERSION

LOOK_S = 1.5
"""How long a process may take to see how it is."""
_PER_HOP_S = 0.5

_MODEL = Gauge("handscroll_model_info", "What model a process has loaded; always 1", ["digest"])
_BEGAN = time.monotonic()

Look = Callable[[pb.Process], Awaitable[None]]
"""Fills in what only one service knows, or raises what is wrong."""


def loaded(digest: str) -> None:
    """Tell which model this process has."""
    _MODEL.labels(digest).set(1)


async def own(service: str, look: Look) -> pb.Process:
    """How this process is."""
    process = pb.Process(
        service=service,
        version=VERSION,
        uptime_s=time.monotonic() - _BEGAN,
        refused=refused(),
    )
    try:
        async with asyncio.timeout(LOOK_S):
            await look(process)
    except HandscrollError as error:
        process.problem = str(error)
    except TimeoutError:
        process.problem = f"what it needs did not answer within {LOOK_S:g} s"
    return process


async def of_peer(service: str, channel: aio.Channel, hops: int = 1) -> list[pb.Process]:
    """How another process is, and those that it asks.

    Args:
        service: that it belongs to.
        channel: to it.
        hops: how far it asks in turn, itself included; each takes a little longer.
    """
    stub: Any = pb_grpc.StatusServiceStub(channel)
    try:
        with calling(f"the {service}"):
            answer = await stub.GetStatus(
                pb.GetStatusRequest(), timeout=LOOK_S + hops * _PER_HOP_S, wait_for_ready=False
            )
    except HandscrollError as error:
        return [pb.Process(service=service, problem=str(error))]
    return list(answer.processes)


class _Reporter(pb_grpc.StatusServiceServicer):
    """StatusService of one process."""

    def __init__(self, service: str, look: Look, peers: Mapping[str, aio.Channel]) -> None:
        self._service, self._look, self._peers = service, look, peers

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """How it is."""
        mine, *others = await asyncio.gather(
            self._own(), *(of_peer(name, channel) for name, channel in self._peers.items())
        )
        return pb.GetStatusResponse(processes=[*mine, *(one for other in others for one in other)])

    async def _own(self) -> list[pb.Process]:
        return [await own(self._service, self._look)]


def servicer(service: str, look: Look, peers: Mapping[str, aio.Channel] | None = None) -> Servicer:
    """StatusService, as every service has it.

    Args:
        service: its name.
        look: sees how it is.
        peers: channels to the services that it asks, by name.
    """
    return Servicer(
        pb.DESCRIPTOR.services_by_name["StatusService"],
        partial(pb_grpc.add_StatusServiceServicer_to_server, _Reporter(service, look, peers or {})),
    )
