"""The tokenizer service on the wire."""

from pathlib import Path

import numpy as np
import pytest

from handscroll.checkpoint import Checkpoint
from handscroll.errors import BrokenCheckpoint, InvalidRequest, NotFound
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as pb
from handscroll_api.tokenizer.v1.tokenizer_service_pb2_grpc import TokenizerServiceStub
from svckit.client import calling, connect
from svckit.server import started
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
