"""The services that the tiler asks, in the words of the algorithm."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import TypeVar

import grpc
import numpy as np
from grpc import aio
from grpc_status import rpc_status

from handscroll.assemble import Pixels
from handscroll.context import Codes
from handscroll.detail import Pieces
from handscroll.errors import NotFound, Overloaded, SpecMismatch, Unavailable
from handscroll.geometry import Patch
from handscroll.view import Tokens
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from handscroll_api.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from svckit import wire
from svckit.client import calling
from svckit.wire import Model

MODELS_FRESH_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


async def again(what: str, call: Callable[[], Awaitable[T]], patient: bool = False) -> T:
    """The result of a call, repeated while who should answer is away.

    Services are restarted when they die, so they are back in seconds; the caller's deadline ends
    the waiting. Whoever answers that it cannot, or has too much to do, is not away.

    Args:
        what: is called, for the log.
        call: may be repeated.
        patient: whether to wait as well while there is too much to do. Who asks for one of many
            things would else have done all the others for nothing.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await call()
        except Overloaded as error:
            if not patient:
                raise
            await asyncio.sleep(error.retry_after_s)
            continue
        except Unavailable as error:
            if not _away(error):
                raise
            _log.warning("%s is away: %s", what, error)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _away(error: Unavailable) -> bool:
    """Whether nobody answered; an answer of ours comes with details."""
    failure = error.__cause__
    return (
        isinstance(failure, aio.AioRpcError)
        and failure.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        and rpc_status.from_call(failure) is None  # type: ignore[arg-type]
    )


class Generator:
    """generator_svc."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = GeneratorServiceStub(channel)

    async def models(self) -> list[Model]:
        """The models that are served."""
        with calling("the generator"):
            answer = await self._stub.ListModels(generator_pb.ListModelsRequest())
        return [wire.model_from_pb(model) for model in answer.models]

    async def patches(
        self, canvas_id: str, patches: Collection[Patch], urgent: bool
    ) -> AsyncGenerator[tuple[Patch, bytes], None]:
        """The codes of patches, each as it is committed, in no order.

        Args:
            canvas_id: the canvas.
            patches: at most 1024.
            urgent: whether somebody looks at them now.
        """
        request = generator_pb.GeneratePatchesRequest(
            canvas=canvas_id,
            patches=[wire.patch_to_pb(patch) for patch in patches],
            priority=generator_pb.PRIORITY_VIEWPORT if urgent else generator_pb.PRIORITY_PREFETCH,
        )
        with calling("the generator"):
            call = self._stub.GeneratePatches(request)
            try:
                async for message in call:
                    yield wire.patch_from_pb(message.patch), message.codes
            finally:
                call.cancel()  # does nothing to a call that has ended


class Tokenizer:
    """tokenizer_svc."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = TokenizerServiceStub(channel)

    async def decode(self, model: str, tokens: Tokens) -> Pixels:
        """The pixels (h, w, 3) that are wanted of a window, by a model's digest."""
        codes, inside, top_px, left_px, height_px, width_px = tokens
        rows, cols, _ = codes.shape
        request = tokenizer_pb.DecodeRequest(
            model=model,
            rows=rows,
            cols=cols,
            codes=codes.tobytes(),
            inside=b"" if inside.all() else inside.tobytes(),
            crop=tokenizer_pb.Crop(
                top_px=top_px, left_px=left_px, height_px=height_px, width_px=width_px
            ),
        )
        with calling("the tokenizer"):
            answer = await self._stub.Decode(request)
        return np.frombuffer(answer.rgb, np.uint8).reshape(height_px, width_px, 3)

    async def encode(self, model: Model, pixels: Pixels) -> Codes:
        """The codes (h, w, K) of pixels (h * f, w * f, 3)."""
        height, width, _ = pixels.shape
        request = tokenizer_pb.EncodeRequest(
            model=model.digest, height_px=height, width_px=width, rgb=pixels.tobytes()
        )
        with calling("the tokenizer"):
            answer = await self._stub.Encode(request)
        codes = np.frombuffer(answer.codes, np.uint8)
        return codes.reshape(answer.rows, answer.cols, model.codes)

    async def pieces(self, model: Model, world: str, level: int) -> Pieces | None:
        """Pieces of pictures of a level of a world; None if there are none."""
        request = tokenizer_pb.ListPiecesRequest(model=model.digest, world=world, level=level)
        parts = []
        with calling("the tokenizer"):
            async for answer in self._stub.ListPieces(request):
                shape = (-1, answer.height_px, answer.width_px, 3)
                held = (answer.pictures, answer.decoded)
                parts.append([np.frombuffer(one, np.uint8).reshape(shape) for one in held])
        if not parts:
            return None
        pictures, decoded = (np.concatenate(some) for some in zip(*parts, strict=True))
        return Pieces(pictures, decoded)

    async def embed(self, model: Model, prompt: str) -> bytes:
        """The vector of a prompt, as it is committed: little-endian float32.

        Raises:
            SpecMismatch: it comes from another encoder than the model was trained with.
        """
        request = tokenizer_pb.EmbedTextRequest(model=model.digest, prompts=[prompt])
        with calling("the tokenizer"):
            answer = await self._stub.EmbedText(request)
        if answer.encoder != model.text_encoder:
            raise SpecMismatch(
                f"the model reads vectors of encoder {model.text_encoder[:16]}…, the tokenizer "
                f"makes those of {answer.encoder[:16]}…"
            )
        return np.asarray(answer.embeddings[0].values, "<f4").tobytes()


class Models:
    """The models that the generator serves, asked for once in a while."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._models: list[Model] = []
        self._asked = -MODELS_FRESH_S
        self._asking = asyncio.Lock()

    async def all(self) -> list[Model]:
        """All that are served; the first is the one to take if none is named."""
        if not self._fresh():
            await self._ask()
        return self._models

    async def of(self, digest: str) -> Model:
        """The model of a digest.

        Raises:
            SpecMismatch: it is not served.
        """
        model = await self._find(lambda model: model.digest == digest)
        if model is not None:
            return model
        served = ", ".join(f"{model.digest[:16]}…" for model in self._models) or "none"
        raise SpecMismatch(f"the canvas is painted by model {digest[:16]}…; served: {served}")

    async def of_world(self, world: str, digest: str) -> Model:
        """The model for a new canvas.

        Args:
            world: to be painted.
            digest: of the model; empty for the first that paints the world.

        Raises:
            NotFound: there is no such model, or it does not paint this world.
        """
        model = await self._find(
            lambda model: world in model.worlds and digest in ("", model.digest)
        )
        if model is not None:
            return model
        if digest and all(digest != model.digest for model in self._models):
            raise NotFound(f"no model {digest!r:.80} is served")
        known = sorted({name for model in self._models for name in model.worlds})
        raise NotFound(f"no world {world!r:.80}; there are {', '.join(known)}")

    async def _find(self, fits: Callable[[Model], bool]) -> Model | None:
        """The first that fits of those known, else of those served by now."""
        for look in (self.all, self._ask):
            for model in await look():
                if fits(model):
                    return model
        return None

    def _fresh(self) -> bool:
        return time.monotonic() < self._asked + MODELS_FRESH_S

    async def _ask(self) -> list[Model]:
        asked = self._asked
        async with self._asking:
            if asked == self._asked:  # else somebody asked while we waited for our turn
                self._models = await again("the generator", self._generator.models)
                self._asked = time.monotonic()
        return self._models
