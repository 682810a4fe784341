"""What the tests share: how Hypothesis runs, and a small model that nobody trained."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn

from handscroll import checkpoint
from handscroll.checkpoint import Checkpoint, World
from handscroll.decoder import Decoder, DecoderConfig
from handscroll.detail import Pieces
from handscroll.field import Palette
from handscroll.geometry import Extent
from handscroll.text import TextEncoder
from handscroll.tokenizer import Tokenizer, TokenizerConfig

pytest_plugins = [
    "tests.support.browser",
    "tests.support.collector",
    "tests.support.rays",
    "tests.support.seaweed",
    "tests.support.stack",
]

# On a busy machine everything is slow, and that is nobody's fault.
settings.register_profile("handscroll", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("handscroll")
torch.set_num_threads(1)


def awaken(module: nn.Module, scale: float) -> None:
    """Give every tensor that starts at zero small random values.

    Layers that start at zero make an untrained network the same constant whatever it sees, and
    every law about what it may see would hold for nothing.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=scale)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Services run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def loop(anyio_backend: str) -> AsyncIterator[None]:
    """One event loop for all tests of services.

    gRPC has one queue of events for all loops of a process; one that comes late, for a loop that is
    closed, fails whichever test is running by then.
    """
    yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint: small, untrained, of the shipped shape and worlds."""
    torch.manual_seed(20220720)
    tokenizer = Tokenizer(TokenizerConfig(width=32, cell_width=16))
    decoder = Decoder(DecoderConfig(layers=2, width=64, heads=2, head_width=32))
    awaken(tokenizer, 0.05)
    awaken(decoder, 0.4)
    torch.nn.init.constant_(decoder.fate.bias, 3.0)  # most of later frames is new, not all
    rng = np.random.default_rng(20220720)
    decoded = np.full((14, 48, 48, 3), 30, np.uint8)
    decoded += 15 * np.arange(14, dtype=np.uint8)[:, None, None, None]
    pieces = Pieces(decoded + rng.integers(-15, 16, decoded.shape).astype(np.uint8), decoded)
    worlds = [
        World(
            name,
            index,
            extent,
            Palette(
                rng.uniform(-1, 1, (24, rows, 2, 4)).astype(np.float32),
                rng.normal(size=(24, 384)).astype(np.float32),
                spacing,
                layered=extent.kind == "scroll",
            ),
            {1: pieces, 2: pieces},
        )
        for index, (name, extent, spacing, rows) in enumerate(
            [("planet", Extent("plane", 2), 24, 1), ("scroll", Extent("scroll", 2, 704), 24, 11)]
        )
    ]
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint.save(folder, tokenizer, decoder, worlds, TextEncoder().digest)
    return folder


@pytest.fixture(scope="session")
def model(tiny: Path) -> Checkpoint:
    """The checkpoint in `tiny`, loaded. Nobody may change it."""
    return checkpoint.load(tiny)
