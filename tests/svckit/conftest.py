"""What the tests of svckit share."""

from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Services run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def loop(anyio_backend: str) -> AsyncIterator[None]:
    """One event loop for all tests.

    gRPC has one queue of events for all loops of a process; one that comes late, for a loop that is
    closed, fails whichever test is running by then.
    """
    yield
