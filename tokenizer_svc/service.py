"""TokenizerService: messages in, the engine's answer out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from handscroll import checkpoint
from handscroll_api.status.v1 import status_service_pb2 as status_pb
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as pb
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2_grpc as pb_grpc
from svckit import report
from svckit.server import Servicer
from tokenizer_svc.engine import Crop, Engine, Workers
from tokenizer_svc.settings import TokenizerSettings

PIECES_BYTES = 2**20
"""About how large one answer of `TokenizerServicer.ListPieces` is."""


class TokenizerServicer(pb_grpc.TokenizerServiceServicer):
    """TokenizerService on an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        """Pixels to codes."""
        codes = await self._engine.encode(
            request.model, request.height_px, request.width_px, request.rgb
        )
        rows, cols, _ = codes.shape
        return pb.EncodeResponse(rows=rows, cols=cols, codes=codes.tobytes())

    async def Decode(self, request: pb.DecodeRequest, context: Any) -> pb.DecodeResponse:
        """Codes to pixels."""
        crop = request.crop
        rgb = await self._engine.decode(
            request.model,
            request.rows,
            request.cols,
            request.codes,
            request.inside,
            Crop(crop.top_px, crop.left_px, crop.height_px, crop.width_px)
            if request.HasField("crop")
            else None,
        )
        height, width, _ = rgb.shape
        return pb.DecodeResponse(height_px=height, width_px=width, rgb=rgb.tobytes())

    async def EmbedText(self, request: pb.EmbedTextRequest, context: Any) -> pb.EmbedTextResponse:
        """Prompts to vectors."""
        vectors, encoder = await self._engine.embed(request.model, list(request.prompts))
        return pb.EmbedTextResponse(
            embeddings=[pb.Embedding(values=vector.tolist()) for vector in vectors],
            encoder=encoder,
        )

    async def ListPieces(
        self, request: pb.ListPiecesRequest, context: Any
    ) -> AsyncIterator[pb.ListPiecesResponse]:
        """Pieces of pictures, in answers that are no larger than gRPC takes."""
        pieces = self._engine.pieces(request.model, request.world, request.level)
        if pieces is None:
            return
        count, height, width, _ = pieces.pictures_NHW3.shape
        some = max(1, PIECES_BYTES // (height * width * 6))
        for start in range(0, count, some):
            pictures, decoded = (one[start : start + some].tobytes() for one in pieces)
            yield pb.ListPiecesResponse(
                height_px=height, width_px=width, pictures=pictures, decoded=decoded
            )


@asynccontextmanager
async def build(settings: TokenizerSettings) -> AsyncIterator[Sequence[Servicer]]:
    """The service on the checkpoint that the settings name.

    Raises:
        NotFound: there is no checkpoint in the folder.
        BrokenCheckpoint: it is truncated or altered.
    """
    model = await asyncio.to_thread(checkpoint.load, settings.model)
    workers = Workers(settings.workers, settings.waiting)
    report.loaded(model.digest)

    async def look(process: status_pb.Process) -> None:
        process.model = model.digest

    try:
        servicer = TokenizerServicer(Engine(model, workers))
        yield [
            Servicer(
                pb.DESCRIPTOR.services_by_name["TokenizerService"],
                partial(pb_grpc.add_TokenizerServiceServicer_to_server, servicer),
            ),
            report.servicer("tokenizer", look),
        ]
    finally:
        workers.close()
