"""Messages made of nonsense: refused as what they are, and the services live."""

import random
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from handscroll.geometry import Tile
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.tiler.v1 import export_service_pb2 as export_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from tests.tiler_svc.fakes import House
from tests.tiler_svc.test_tiles import get

pytestmark = pytest.mark.anyio

SERVICES = {
    "tiler": (tiler_pb, "TilerService"),
    "canvases": (canvas_pb, "CanvasService"),
    "exports": (export_pb, "ExportService"),
    "generator": (generator_pb, "GeneratorService"),
    "tokenizer": (tokenizer_pb, "TokenizerService"),
}
METHODS = [
    pytest.param(name, method, id=method.full_name.rpartition(".v1.")[2])
    for name, (module, service) in SERVICES.items()
    if name != "generator"  # a fake here; its own tests ask the real one for nonsense
    for method in module.DESCRIPTOR.services_by_name[service].methods
]
NUMBERS = (0, 1, 2, 3, 14, 15, 16, 25, 256, 2**13, 2**14, 2**15, 2**31 - 1, 2**32 - 1, 2**62)
OURS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
TRIES = 60


def nonsense(message: Message, rng: random.Random, ids: tuple[str, ...]) -> Message:
    """Fill a message with values that are of the right type, and now and then sensible."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.2:
            continue
        values = [value_of(message, field, rng, ids) for _ in range(rng.choice((1, 1, 2, 40)))]
        if field.message_type is not None:
            continue  # filled in place
        if field.is_repeated:
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, values[0])
    return message


def value_of(message: Message, field: Any, rng: random.Random, ids: tuple[str, ...]) -> Any:
    if field.message_type is not None:
        held = getattr(message, field.name)
        return nonsense(held.add() if field.is_repeated else held, rng, ids)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 1, 100, 2500, 10_000)))
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(
            (*ids, ids[0], "planet", "scroll", "lattice", "../../etc", "\x00", "é" * 3000)
        )
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice((0.0, -1.0, 0.5, 1e300 if field.cpp_type == 5 else 1e30, float("nan")))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice((0, 1, 2, 3, 99))
    number = rng.choice(NUMBERS)
    if field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32):
        return number % 2**32
    if field.cpp_type == FieldDescriptor.CPPTYPE_INT32:
        number %= 2**31
    return number if field.type == FieldDescriptor.TYPE_UINT64 else rng.choice((1, -1)) * number


@pytest.mark.parametrize(("service", "method"), METHODS)
async def test_nonsense_is_refused_and_the_service_lives(
    home: House, service: str, method: MethodDescriptor
) -> None:
    rng = random.Random(method.full_name)
    canvas = await home.canvas()
    ids = (canvas.id, canvas.model, "0" * 64)
    port = home.ports[1 if service == "tokenizer" else 2]
    path = f"/{method.containing_service.full_name}/{method.name}"
    async with aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        channel: Any = opened  # its calls take bytes, as no serializer is named
        for turn in range(TRIES):
            content = nonsense(GetMessageClass(method.input_type)(), rng, ids).SerializeToString()
            if turn % 3 == 0 and content:  # bytes that may be no message any more
                broken = bytearray(content)
                for _ in range(3):
                    broken[rng.randrange(len(broken))] = rng.randrange(256)
                content = bytes(broken)
            try:
                if method.server_streaming:
                    call = channel.unary_stream(path)(content, timeout=20)
                    async for _ in call:
                        call.cancel()
                        break
                else:
                    await channel.unary_unary(path)(content, timeout=20)
            except aio.AioRpcError as failure:
                assert failure.code() in OURS, (failure.code(), failure.details(), content[:80])
                assert failure.details()
    assert await get(home, canvas, Tile(0, 0, 0))
