"""Clients that leave, and more of them than there is room for."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from time import monotonic

import pytest

from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Tile
from svckit.settings import StoreSettings
from tests.e2e.asking import path_of
from tests.support.house import House, house
from tests.support.load import Answers, ask, browser, report, until

pytestmark = pytest.mark.anyio

PATIENCE_S = 60.0
STOPS_WITHIN_S = 2.0
"""Of a machine that does other things besides; what was measured stands in docs/reliability.md."""


def idle(opened: House) -> bool:
    return not any(len(engine) for engine in opened.engines) and not any(
        painters.running for painters in opened.painters
    )


@pytest.mark.parametrize("clients", [1, 40])
async def test_when_all_clients_vanish_all_work_stops(
    model: Checkpoint, tmp_path: Path, clients: int
) -> None:
    store = StoreSettings(url=str(tmp_path))
    async with house(model, store) as opened:
        canvas, (painters,) = await opened.canvas(), opened.painters
        painters.gate.clear()  # whatever is drawn would be drawn for ever
        async with browser(opened.urls[0]) as client:
            paths = [path_of(canvas.id, Tile(2, 64 * place, 0)) for place in range(clients)]
            asked = [asyncio.create_task(ask(client, path)) for path in paths]
            await until(lambda: len(opened.engines[0]) > 20 * clients, "all waiting", PATIENCE_S)
            await until(lambda: painters.running > 0, "painting", PATIENCE_S)
            works = len(opened.engines[0])
            began = monotonic()
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await until(lambda: idle(opened), "an end of all work", PATIENCE_S)
            took_s = monotonic() - began
        report(
            f"clients that vanish at once: {clients}",
            patches_being_obtained=works,
            still_after_ms=round(1000 * took_s),
        )
        assert not painters.drawn and 0 < len(painters.stopped) <= painters.slots
        assert took_s < STOPS_WITHIN_S
        painters.gate.set()
        async with browser(opened.urls[0]) as client:
            assert (await ask(client, paths[0])).status == 200, "and all goes on for who comes next"


async def test_what_there_is_no_room_for_is_refused_and_what_is_there_is_served(
    model: Checkpoint, tmp_path: Path
) -> None:
    """Ten times what painters can paint: memory is bounded by the backlog, not by who asks."""
    backlog = 10 * 27  # of ten tiles
    store = StoreSettings(url=str(tmp_path))
    async with house(model, store, backlog=backlog) as opened:
        canvas, (painters,), (engine,) = await opened.canvas(), opened.painters, opened.engines
        kept, places = path_of(canvas.id, Tile(0, 3, 3)), count(1)
        async with browser(opened.urls[0]) as client:

            def tile() -> str:
                return path_of(canvas.id, Tile(2, 64 * next(places), 0))

            assert (await ask(client, kept)).status == 200
            calm = Answers([await ask(client, kept) for _ in range(100)])
            painters.gate.clear()
            waiting = [asyncio.create_task(ask(client, tile())) for _ in range(10)]
            await until(lambda: len(engine) == backlog, "no room", PATIENCE_S)
            # One after the other: what is measured is one refusal, not a queue of them.
            refused = Answers([await ask(client, tile()) for _ in range(100)])
            cached = Answers([await ask(client, kept) for _ in range(100)])
            assert len(engine) == backlog, "who is refused leaves nothing behind"
            painters.gate.set()
            served = Answers(await asyncio.gather(*waiting))
        report(
            "ten times more asked for than there is room for",
            refused=refused.statuses,
            refused_ms=refused.quantiles(503),
            cached_ms={"idle": calm.quantiles(), "full": cached.quantiles()},
        )
        assert all(one.refused for one in refused)
        assert cached.statuses == {200: len(cached)} and served.statuses == {200: len(served)}
