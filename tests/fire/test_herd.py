"""A thousand at once want one tile that is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import pytest

from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Tile
from svckit.settings import StoreSettings
from tests.e2e.asking import cone, path_of
from tests.support.house import house
from tests.support.load import Answers, ask, browser, report

pytestmark = pytest.mark.anyio

HERD = 1000


async def test_a_tile_that_a_thousand_want_is_painted_once(
    model: Checkpoint, tmp_path: Path
) -> None:
    store = StoreSettings(url=str(tmp_path))
    async with house(model, store, of_each=2, pace_s=0.1) as opened:
        canvas, tile = await opened.canvas(), Tile(2, 7, 7)
        path = path_of(canvas.id, tile)
        began = monotonic()
        async with browser(opened.urls[0]) as one, browser(opened.urls[1]) as other:
            people = (ask((one, other)[n % 2], path) for n in range(HERD))
            answers = Answers(await asyncio.gather(*people))
        took_s = monotonic() - began
        drawn, decoded = opened.drawn, sum(one.decoded for one in opened.tokenizers)
    report(
        "1,000 ask for one missing tile at once",
        answers=answers.statuses,
        patches_drawn=drawn.total(),
        decoded=decoded,
        all_answered_s=round(took_s, 1),
    )
    assert answers.statuses == {200: HERD} and not answers.wrong()
    assert drawn == dict.fromkeys(cone(canvas, [tile]), 1)
    assert decoded <= 2, "tilers share patches, not decodings: once for each"
