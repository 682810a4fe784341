"""A service that does what a test says, and a server around it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from grpc import aio

from handscroll_api.generator.v1 import generator_service_pb2 as pb
from handscroll_api.generator.v1 import generator_service_pb2_grpc as pb_grpc
from svckit.client import connect
from svckit.server import Servicer, started
from svckit.settings import ServiceSettings

SERVICE = "handscroll_api.generator.v1.GeneratorService"

Act = Callable[[Any], Awaitable[None]]


async def nothing(context: Any) -> None:
    """Do nothing."""


class Echo(pb_grpc.GeneratorServiceServicer):
    """Acts, and answers: a stream in three messages."""

    def __init__(self, act: Act = nothing) -> None:
        self.act = act
        self.calls = 0

    async def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:
        self.calls += 1
        await self.act(context)
        return pb.ListModelsResponse(models=[pb.Model(digest="echo")])

    async def GeneratePatches(
        self, request: pb.GeneratePatchesRequest, context: Any
    ) -> AsyncIterator[pb.GeneratePatchesResponse]:
        self.calls += 1
        yield pb.GeneratePatchesResponse(codes=b"1")
        await self.act(context)
        for codes in (b"2", b"3"):
            yield pb.GeneratePatchesResponse(codes=codes)

    def servicer(self) -> Servicer:
        return Servicer(
            pb.DESCRIPTOR.services_by_name["GeneratorService"],
            partial(pb_grpc.add_GeneratorServiceServicer_to_server, self),
        )


class Line:
    """A client of an echo: both its methods, the channel, and where it leads."""

    def __init__(self, channel: aio.Channel, address: str = "") -> None:
        self.channel, self.address = channel, address
        self.stub = pb_grpc.GeneratorServiceStub(channel)

    async def unary(self, **options: Any) -> str:
        answer = await self.stub.ListModels(pb.ListModelsRequest(), **options)
        return answer.models[0].digest

    async def stream(self, **options: Any) -> bytes:
        call = self.stub.GeneratePatches(pb.GeneratePatchesRequest(), **options)
        try:
            return b"".join([message.codes async for message in call])
        finally:
            call.cancel()  # leaving a stream alone does not end it


@asynccontextmanager
async def serving(echo: Echo, **settings: Any) -> AsyncIterator[Line]:
    """A server of an echo, and a line to it as the services have it."""
    told = ServiceSettings(**{"drain_s": 0.0} | settings)
    async with (
        started([echo.servicer()], told) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        yield Line(channel, f"127.0.0.1:{port}")
