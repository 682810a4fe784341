"""A house of services in one process: real tokenizer and tiler, and a generator that is a fake."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from grpc import aio

from handscroll.branch import Lineage
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes
from handscroll.geometry import Patch
from handscroll.paint import Painter
from handscroll.picture import from_png
from handscroll.tokenizer import RADIUS_TOK
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.generator.v1 import generator_service_pb2_grpc as generator_grpc
from handscroll_api.tiler.v1.export_service_pb2_grpc import ExportServiceStub
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2_grpc as tokenizer_grpc
from svckit import wire
from svckit.client import connect
from svckit.keys import canvas_key, patch_key, picture_key
from svckit.server import Servicer, door_of, started
from svckit.settings import ServiceSettings
from svckit.specs import Specs
from svckit.store import Store
from svckit.wire import Model
from tiler_svc import service as tiler
from tiler_svc.settings import TilerSettings
from tokenizer_svc.engine import Engine, Workers
from tokenizer_svc.service import TokenizerServicer

Draw = Callable[[Patch], Codes]

ENCODER = "0" * 64
"""Digest of the encoder whose vectors are made up."""


def model_of(checkpoint: Checkpoint, **changes: Any) -> Model:
    """What a generator says of a checkpoint; large groups, because that is quick."""
    told: dict[str, Any] = {
        "digest": checkpoint.digest,
        "worlds": {name: world.extent for name, world in checkpoint.worlds.items()},
        "sampling": Sampling(group=64),
        "side_tok": checkpoint.decoder.config.side,
        "codes": checkpoint.decoder.config.codes,
        "radius_tok": RADIUS_TOK,
        "text_encoder": ENCODER,
    }
    return Model(**told | changes)


def scatter(canvas_id: str, patch: Patch) -> Codes:
    """Codes that are cheap to draw: a function of the canvas and the patch."""
    digest = hashlib.sha256(f"{canvas_id}{patch}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, np.uint32))
    return rng.integers(0, 256, (16, 16, 4), np.uint8)


class FakeGenerator(generator_grpc.GeneratorServiceServicer):
    """Commits and sends codes at once, unless a test says otherwise.

    Attributes:
        model: what it serves.
        requests: what it was asked to draw.
        deadlines: how long each of these could take, in seconds.
        metadata: what came with each.
        left: how many streams were left by their client.
        asked_models: how often it was asked for its models.
        go: streams wait for it before each patch.
        failures: what the next streams raise, the last one first.
    """

    def __init__(self, store: Store, model: Model, checkpoint: Checkpoint | None) -> None:
        self.store, self.model, self.checkpoint = store, model, checkpoint
        self.requests: list[generator_pb.GeneratePatchesRequest] = []
        self.deadlines: list[float] = []
        self.metadata: list[dict[str, str]] = []
        self.left, self.asked_models = 0, 0
        self.go = asyncio.Event()
        self.go.set()
        self.failures: list[Exception] = []
        self._painters: dict[str, Painter] = {}
        self._specs = Specs(store)

    async def ListModels(self, request: Any, context: Any) -> generator_pb.ListModelsResponse:
        self.asked_models += 1
        return generator_pb.ListModelsResponse(models=[wire.model_to_pb(self.model)])

    async def GeneratePatches(
        self, request: generator_pb.GeneratePatchesRequest, context: Any
    ) -> AsyncIterator[generator_pb.GeneratePatchesResponse]:
        self.requests.append(request)
        self.deadlines.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        failure = self.failures.pop() if self.failures else None
        try:
            if failure is not None:
                raise failure
            for message in request.patches:
                await self.go.wait()
                patch = wire.patch_from_pb(message)
                home = await self._home(request.canvas, patch)
                codes = await self._draw(home, patch)
                key = patch_key(home, patch)
                content = await self.store.create(key, codes.tobytes())
                if len(content) != codes.nbytes:  # cut short: the real one mends it too
                    await self.store.delete(key)
                    content = await self.store.create(key, codes.tobytes())
                yield generator_pb.GeneratePatchesResponse(patch=message, codes=content)
        except asyncio.CancelledError:
            self.left += 1
            raise

    async def _home(self, canvas_id: str, patch: Patch) -> str:
        """The canvas that a patch of a branch is one of."""
        line = await self._specs.line(await self._specs.get(canvas_id))
        return Lineage.of(line, self.model.side_tok).home(patch).id

    async def _draw(self, canvas_id: str, patch: Patch) -> Codes:
        if self.checkpoint is None:
            return scatter(canvas_id, patch)
        painter = await self._painter(self.checkpoint, canvas_id)
        await asyncio.to_thread(lambda: list(painter.patches([patch])))
        return painter.pool[patch]

    async def _painter(self, checkpoint: Checkpoint, canvas_id: str) -> Painter:
        if canvas_id not in self._painters:
            canvas, picture, parent = await self._specs.get(canvas_id), None, None
            if canvas.known is not None:
                file = await self.store.get(picture_key(canvas.known.picture))
                assert file is not None
                picture = from_png(file)
            if canvas.branch is not None:
                parent = await self._painter(checkpoint, canvas.branch.parent)
            self._painters[canvas_id] = Painter(checkpoint, canvas, picture=picture, parent=parent)
        return self._painters[canvas_id]

    def close(self) -> None:
        for painter in self._painters.values():
            painter.close()

    def servicer(self) -> Servicer:
        return Servicer(
            generator_pb.DESCRIPTOR.services_by_name["GeneratorService"],
            partial(generator_grpc.add_GeneratorServiceServicer_to_server, self),
        )


class CountingTokenizer(TokenizerServicer):
    """The real service, which notes what it was asked.

    Attributes:
        decoded: how many windows.
        decoding: how many of them now.
        most_at_once: how many at most.
        go: decoding waits for it.
        embedded: the prompts.
        failures: what the next calls of Decode raise.
        encoder: the digest to claim for vectors that are made up.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.decoded, self.decoding, self.most_at_once = 0, 0, 0
        self.go = asyncio.Event()
        self.go.set()
        self.embedded: list[str] = []
        self.failures: list[Exception] = []
        self.encoder = ENCODER

    async def Decode(
        self, request: tokenizer_pb.DecodeRequest, context: Any
    ) -> tokenizer_pb.DecodeResponse:
        if self.failures:
            raise self.failures.pop()
        self.decoded += 1
        self.decoding += 1
        self.most_at_once = max(self.most_at_once, self.decoding)
        try:
            await self.go.wait()
            return await super().Decode(request, context)
        finally:
            self.decoding -= 1

    async def EmbedText(
        self, request: tokenizer_pb.EmbedTextRequest, context: Any
    ) -> tokenizer_pb.EmbedTextResponse:
        self.embedded += request.prompts
        vectors = [tokenizer_pb.Embedding(values=[0.6, 0.8]) for _ in request.prompts]
        return tokenizer_pb.EmbedTextResponse(embeddings=vectors, encoder=self.encoder)

    def servicer(self) -> Servicer:
        return Servicer(
            tokenizer_pb.DESCRIPTOR.services_by_name["TokenizerService"],
            partial(tokenizer_grpc.add_TokenizerServiceServicer_to_server, self),
        )


class House:
    """All services, and clients of the tiler.

    Attributes:
        servers: those of the generator and of the tokenizer, to be stopped.
        ports: theirs, and the tiler's.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        generator: FakeGenerator,
        tokenizer: CountingTokenizer,
        channel: aio.Channel,
        servers: Sequence[AsyncExitStack],
        ports: Sequence[int],
    ) -> None:
        self.store, self.model = store, model
        self.servers, self.ports = servers, ports
        self.generator, self.tokenizer = generator, tokenizer
        self.tiles = TilerServiceStub(channel)
        self.exports = ExportServiceStub(channel)
        self.canvases = CanvasServiceStub(channel)

    async def canvas(self, world: str = "planet", **changes: Any) -> Canvas:
        """A canvas that exists, made without the service."""
        spec: dict[str, Any] = {
            "seed": 7,
            "extent": self.model.worlds[world],
            "sampling": self.model.sampling,
        }
        canvas = Canvas(self.model.digest, world, **spec | changes)
        await self.store.create(canvas_key(canvas.id), canvas.canonical())
        return canvas


SETTINGS = ServiceSettings(drain_s=0)


@asynccontextmanager
async def house(
    checkpoint: Checkpoint, folder: Path, paint: bool = False, **settings: Any
) -> AsyncIterator[House]:
    """Open all services around a folder.

    Args:
        checkpoint: the model of the tokenizer.
        folder: of the store.
        paint: let the generator draw with the checkpoint, instead of scattering codes.
        settings: of the tiler.
    """
    store, model = Store.open(str(folder)), model_of(checkpoint)
    generator = FakeGenerator(store, model, checkpoint if paint else None)
    workers = Workers(2, 128)
    tokenizer = CountingTokenizer(Engine(checkpoint, workers))
    async with AsyncExitStack() as stack:
        stack.callback(workers.close)
        stack.callback(generator.close)
        servers = [await stack.enter_async_context(AsyncExitStack()) for _ in range(2)]
        ports = [
            await server.enter_async_context(started([servicer], SETTINGS))
            for server, servicer in zip(
                servers, (generator.servicer(), tokenizer.servicer()), strict=True
            )
        ]
        told = TilerSettings(
            generator=f"127.0.0.1:{ports[0]}",
            tokenizer=f"127.0.0.1:{ports[1]}",
            port=0,
            drain_s=0,
            store={"url": str(folder)},
            **settings,
        )
        servicers: Sequence[Servicer] = await stack.enter_async_context(tiler.build(told))
        door = door_of(told, tiler.RULES)
        port = await stack.enter_async_context(started(servicers, told, door))
        channel = await stack.enter_async_context(connect(f"127.0.0.1:{port}"))
        yield House(store, model, generator, tokenizer, channel, servers, [*ports, port])


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that happens elsewhere."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)
