"""The deadline of the request being served, passed on to whatever it calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let everything called inside end in ``seconds``, or sooner if it had to already."""
    now, before = time.monotonic(), _deadline.get()
    ends = now + seconds
    token = _deadline.set(ends if before is None else min(before, ends))
    try:
        yield
    finally:
        # A stream that its client left is closed by the event loop, in a context of its own.
        with suppress(ValueError):
            _deadline.reset(token)


def remaining_s() -> float | None:
    """Seconds left, never below zero; None where there is no deadline."""
    ends = _deadline.get()
    return None if ends is None else max(0.0, ends - time.monotonic())
