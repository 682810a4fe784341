"""What the tests of the tiler share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handscroll.checkpoint import Checkpoint
from tests.tiler_svc.fakes import House, house


@pytest.fixture
async def home(model: Checkpoint, tmp_path: Path) -> AsyncIterator[House]:
    """All services, whose generator scatters codes."""
    async with house(model, tmp_path) as opened:
        yield opened
