"""The tokenizer service on the wire."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handscroll.canvas import Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.errors import BrokenCheckpoint, InvalidRequest, NotFound, SpecMismatch
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as pb
from handscroll_api.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from svckit.client import calling, connect
from svckit.server import started
from svckit.wire import Model
from tiler_svc.peers import Tokenizer
from tokenizer_svc import service
from tokenizer_svc.service import build
from tokenizer_svc.settings import TokenizerSettings

pytestmark = pytest.mark.anyio


async def test_pixels_and_tokens_cross_the_wire(tiny: Path, model: Checkpoint) -> None:
    settings = TokenizerSettings(model=tiny, workers=1, port=0)
    async with (
        build(settings) as servicers,
        started(servicers, settings) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        stub = TokenizerServiceStub(channel)
        rgb = np.random.default_rng(6).integers(0, 256, (64, 80, 3), np.uint8)
        tokens = await stub.Encode(
            pb.EncodeRequest(model=model.digest, height_px=64, width_px=80, rgb=rgb.tobytes())
        )
        assert (tokens.rows, tokens.cols, len(tokens.codes)) == (4, 5, 80)
        window = pb.DecodeRequest(model=model.digest, rows=4, cols=5, codes=tokens.codes)
        whole = await stub.Decode(window)
        assert (whole.height_px, whole.width_px) == (64, 80)
        window.crop.CopyFrom(pb.Crop(top_px=3, left_px=4, height_px=7, width_px=9))
        part = await stub.Decode(window)
        pixels = np.frombuffer(whole.rgb, np.uint8).reshape(64, 80, 3)
        assert part.rgb == pixels[3:10, 4:13].tobytes()
        window.crop.CopyFrom(pb.Crop())  # there, but empty: not the same as absent
        with pytest.raises(InvalidRequest, match="0 x 0 px"), calling("the tokenizer"):
            await stub.Decode(window)


async def test_pieces_cross_the_wire(
    tiny: Path, model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In as many answers as it takes; none of a level that has none."""
    monkeypatch.setattr(service, "PIECES_BYTES", 100_000)
    settings = TokenizerSettings(model=tiny, workers=1, port=0)
    async with (
        build(settings) as servicers,
        started(servicers, settings) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        tokenizer = Tokenizer(channel)
        told = Model(model.digest, {}, Sampling(), 16, 4, 4, "")
        for world in model.worlds.values():
            assert await tokenizer.pieces(told, world.name, 0) is None
            for level, pieces in world.pieces.items():
                found = await tokenizer.pieces(told, world.name, level)
                assert found is not None
                for one, kept in zip(found, pieces, strict=True):
                    np.testing.assert_array_equal(one, kept)
        asked = pb.ListPiecesRequest(model=model.digest, world="planet", level=2)
        answers = [one async for one in TokenizerServiceStub(channel).ListPieces(asked)]
        assert len(answers) > 1
        with pytest.raises(NotFound, match="no world 'moon'"):
            await tokenizer.pieces(told, "moon", 1)
        with pytest.raises(SpecMismatch, match="model served here"):
            await tokenizer.pieces(replace(told, digest="0" * 64), "planet", 1)


async def test_service_does_not_start_without_a_whole_checkpoint(
    tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="no config.json"):
        async with build(TokenizerSettings(model=tmp_path)):
            pass
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BrokenCheckpoint):
        async with build(TokenizerSettings(model=tmp_path)):
            pass
