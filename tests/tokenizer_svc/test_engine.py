"""The laws of `tokenizer_svc.engine`: what it computes, what it refuses, and how much at a time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from handscroll.checkpoint import Checkpoint
from handscroll.errors import InvalidRequest, Overloaded, SpecMismatch
from handscroll.text import TextEncoder
from handscroll.tokenizer import from_rgb, to_rgb
from tokenizer_svc.engine import Crop, Engine, Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(model: Checkpoint) -> AsyncIterator[Engine]:
    workers = Workers(2, 64)
    yield Engine(model, workers)
    workers.close()


def test_bytes_survive_the_way_to_pixels_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_rgb(from_rgb(every)), every)


async def test_decode_is_the_tokenizers(engine: Engine, model: Checkpoint) -> None:
    """With a mask or without, whole or cut."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (6, 9, 4), np.uint8)
    inside = rng.random((6, 9)) < 0.7
    for mask in (None, inside):
        pixels = model.tokenizer.decode(
            torch.from_numpy(codes)[None], None if mask is None else torch.from_numpy(mask)[None]
        )
        whole = to_rgb(pixels[0]).numpy()
        sent = b"" if mask is None else mask.tobytes()
        for crop, expected in (
            (None, whole),
            (Crop(5, 7, 40, 60), whole[5:45, 7:67]),
            (Crop(95, 143, 1, 1), whole[95:, 143:]),
        ):
            found = await engine.decode(model.digest, 6, 9, codes.tobytes(), sent, crop)
            np.testing.assert_array_equal(found, expected, strict=True)


async def test_mask_of_ones_is_no_mask(engine: Engine, model: Checkpoint) -> None:
    codes = np.random.default_rng(4).integers(0, 256, (5, 5, 4), np.uint8).tobytes()
    bare, masked = [
        await engine.decode(model.digest, 5, 5, codes, inside, None) for inside in (b"", b"\1" * 25)
    ]
    np.testing.assert_array_equal(bare, masked)


async def test_encode_is_the_tokenizers(engine: Engine, model: Checkpoint) -> None:
    rgb = np.random.default_rng(5).integers(0, 256, (32, 48, 3), np.uint8)
    found = await engine.encode(model.digest, 32, 48, rgb.tobytes())
    expected = model.tokenizer.encode(from_rgb(torch.from_numpy(rgb))[None])[0].numpy()
    assert found.shape == (2, 3, 4) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("height", "width", "count", "message"),
    [
        (0, 16, 0, "multiples of 16 px, not 0 and 16"),
        (16, 17, 816, "multiples of 16 px, not 16 and 17"),
        (1024, 1040, 0, "1048576 pixels, not 1024 x 1040"),
        (16, 16, 767, "rgb must be 16 x 16 x 3 = 768 bytes, not 767"),
        (2**32 - 16, 2**32 - 16, 0, "1048576 pixels"),
    ],
)
async def test_picture_that_does_not_fit_is_refused(
    engine: Engine, model: Checkpoint, height: int, width: int, count: int, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await engine.encode(model.digest, height, width, bytes(count))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "1 to 64 rows and columns of tokens, not 0 and 3"),
        ({"cols": 65}, "1 to 64 rows and columns of tokens, not 2 and 65"),
        ({"codes": bytes(23)}, "codes must be 2 x 3 x 4 = 24 bytes, not 23"),
        ({"inside": bytes(5)}, "inside must be 2 x 3 = 6 bytes, not 5"),
        ({"inside": b"\2" * 6}, "inside must hold 0 and 1 only, not 2"),
        ({"crop": Crop(0, 0, 0, 5)}, "inside 32 x 48 px; this one has 0 x 5 px at 0, 0"),
        ({"crop": Crop(20, 0, 13, 5)}, "13 x 5 px at 20, 0"),
        ({"crop": Crop(0, 2**32 - 1, 1, 1)}, "1 x 1 px at 0, 4294967295"),
    ],
)
async def test_window_that_does_not_fit_is_refused(
    engine: Engine, model: Checkpoint, change: dict[str, Any], message: str
) -> None:
    window: dict[str, Any] = {"rows": 2, "cols": 3, "codes": bytes(24), "inside": b"", "crop": None}
    with pytest.raises(InvalidRequest, match=message):
        await engine.decode(model.digest, **window | change)


async def test_another_model_is_refused(engine: Engine, model: Checkpoint) -> None:
    message = f"served here is {model.digest[:16]}…, not ffffffffffffffff…"
    for call in (
        engine.encode("f" * 64, 16, 16, bytes(768)),
        engine.decode("f" * 64, 1, 1, bytes(4), b"", None),
        engine.embed("f" * 64, ["a"]),
    ):
        with pytest.raises(SpecMismatch, match=message):
            await call


async def test_prompts_are_embedded_each_alone(engine: Engine, model: Checkpoint) -> None:
    encoder = TextEncoder()
    prompts = ["a lake", "a lake at dawn, seen from very far away", "a lake"]
    vectors, digest = await engine.embed(model.digest, prompts)
    assert digest == encoder.digest
    for vector, prompt in zip(vectors, prompts, strict=True):
        np.testing.assert_array_equal(vector, encoder.embed([prompt])[0])
    for wrong, message in (
        ([], "1 to 32 prompts, not 0"),
        (["a"] * 33, "1 to 32 prompts, not 33"),
        (["a", " "], "must not be empty"),
        (["a" * 2001], "2000 characters, got 2001"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            await engine.embed(model.digest, wrong)


async def test_another_encoder_is_refused(model: Checkpoint) -> None:
    workers = Workers(1, 64)
    engine = Engine(replace(model, text_encoder="0" * 64), workers)
    with pytest.raises(SpecMismatch, match="trained with text encoder 0000000000000000…"):
        await engine.embed(model.digest, ["a lake"])
    workers.close()


def gated(gate: threading.Event, begun: list[int], number: int) -> Callable[[], int]:
    def work() -> int:
        begun.append(number)
        gate.wait(10)
        return torch.get_num_threads()

    return work


async def test_workers_take_one_core_each_and_refuse_what_is_too_much() -> None:
    workers, gate, begun = Workers(2, 3), threading.Event(), list[int]()
    tasks = [
        asyncio.create_task(workers.run("test", gated(gate, begun, number))) for number in range(5)
    ]
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded, match="3 calls are waiting for 2 workers") as failure:
        await workers.run("test", lambda: 0)
    assert failure.value.retry_after_s >= 0.1
    assert sorted(begun) == [0, 1]
    gate.set()
    assert await asyncio.gather(*tasks) == [1] * 5
    assert await workers.run("test", lambda: 7) == 7
    workers.close()


async def test_call_that_was_left_before_it_began_never_begins() -> None:
    workers, gate, begun = Workers(1, 3), threading.Event(), list[int]()
    first, second, third = (
        asyncio.create_task(workers.run("test", gated(gate, begun, number))) for number in range(3)
    )
    await asyncio.sleep(0.05)
    second.cancel()
    # A running one cannot be stopped: it keeps its worker until it is done.
    first.cancel()
    await asyncio.sleep(0.05)
    assert begun == [0]
    gate.set()
    assert await third == 1
    assert begun == [0, 2]
    workers.close()


async def test_wait_named_grows_with_what_waits() -> None:
    waits = []
    for limit in (1, 50):
        workers, gate, begun = Workers(1, limit), threading.Event(), list[int]()
        tasks = [
            asyncio.create_task(workers.run("test", gated(gate, begun, number)))
            for number in range(limit + 1)
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded) as failure:
            await workers.run("test", lambda: 0)
        waits.append(failure.value.retry_after_s)
        gate.set()
        await asyncio.gather(*tasks)
        workers.close()
    assert waits[0] < waits[1] < 10
