"""What a request stands on, without what earlier frames hold already."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable

from handscroll.branch import Lineage
from handscroll.geometry import Patch

Place = tuple[str, Patch]
"""A patch, and the canvas it is of."""


async def standing(
    line: Lineage,
    wanted: Collection[Patch],
    missing: Callable[[Iterable[Place]], Awaitable[Collection[Place]]],
) -> set[Place]:
    """The patches behind a request; of frames before those asked for, only behind what is missing.

    A patch of a film stands on all frames before it, but is asked for when the one before is there:
    whoever plays frame after frame pays for one at a time.

    Args:
        line: the canvas and those it was branched from.
        wanted: what is asked for.
        missing: finds those of some patches that are not committed.
    """
    found: set[Place] = set()
    todo: set[Place] = {(line.home(patch).id, patch) for patch in wanted}
    while todo:
        frame = max(patch.frame for _, patch in todo)
        now = {one for one in todo if one[1].frame == frame}
        cone = await asyncio.to_thread(line.behind, now, frame)
        earlier = {one for one in cone if one[1].frame < frame}
        found |= cone - earlier
        todo = (todo - now) | set(await missing(earlier))
    return found
