"""The gateway of its own tests, with a thread of its own to run services in."""

from tests.gateway.conftest import _shared, launch, loop, stack

__all__ = ["_shared", "launch", "loop", "stack"]
