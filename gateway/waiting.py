"""Working for a client only as long as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

_T = TypeVar("_T")


class Ended(Exception):
    """What the work was for has come to its end."""


async def unless(end: Coroutine[Any, Any, object], work: Awaitable[_T]) -> _T:
    """What ``work`` comes to, unless ``end`` comes first: then the work is cancelled.

    Raises:
        Ended: ``end`` came first.
    """
    ending, working = asyncio.ensure_future(end), asyncio.ensure_future(work)
    try:
        await asyncio.wait((ending, working), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Ended
        return working.result()
    finally:
        ending.cancel()
        working.cancel()
        await asyncio.gather(ending, working, return_exceptions=True)


async def departure(receive: Receive) -> None:
    """Wait until the client has gone. Starlette cancels no handler of its own accord."""
    while (await receive())["type"] != "http.disconnect":
        pass
