"""A node of the Ray cluster is lost with its painter, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic

import numpy as np
import psutil
import pytest
import ray

from generator_svc.actors import RayLedger, RayPainters, join
from generator_svc.easel import Easel
from generator_svc.engine import Engine
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes
from handscroll.geometry import Patch
from handscroll.paint import Painter
from svckit.keys import canvas_key
from svckit.store import Store
from tests.support.load import report, until
from tests.support.rays import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WITHIN_S = 120.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head with one painter's CPU, and a node with another's."""
    cluster = Cluster()
    try:
        cluster.add(1)
        cluster.add(1)
        join(cluster.address)
        yield cluster
        ray.shutdown()
    finally:
        cluster.stop()


@pytest.fixture
async def engine(cluster: Cluster, tiny: Path) -> AsyncIterator[Engine]:
    """A generator whose painters live on both nodes."""
    painters, ledger = RayPainters(2, tiny), RayLedger()
    easel, store = Easel(painters, ledger), Store.open("memory://")
    await asyncio.gather(*(actor.describe.remote() for actor in painters.actors))
    yield Engine(store, easel, await painters.describe(), 4096, 4096)
    await easel.close()
    await ledger.close()
    painters.close()


async def test_what_a_lost_node_was_drawing_is_drawn_elsewhere_and_it_may_come_back(
    cluster: Cluster, engine: Engine, model: Checkpoint
) -> None:
    extent = model.worlds["planet"].extent
    canvas = Canvas(model.digest, "planet", 1, extent, sampling=Sampling(group=1))
    await engine.store.create(canvas_key(canvas.id), canvas.canonical())
    found: dict[Patch, Codes] = {}

    async def look(col: int) -> float:
        began = monotonic()
        async for patch, codes in engine.patches(
            canvas.id, [Patch(0, 0, 2, col), Patch(0, 0, 0, col)]
        ):
            found[patch] = codes
        return monotonic() - began

    calm_s = await look(0)
    asked = asyncio.create_task(look(20))
    await until(lambda: len(engine.easel._batches) == 2, "both painters at work", WITHIN_S)
    await asyncio.sleep(0.1)
    lost = psutil.Process(cluster.nodes[1].pid)
    for process in (*lost.children(recursive=True), lost):
        process.kill()
    began = monotonic()
    struck_s = await asyncio.wait_for(asked, WITHIN_S)
    alone_s = await look(40)

    def alive() -> int:
        return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]

    await until(lambda: alive() == 1, "the loss is noticed", WITHIN_S)
    noticed_s = monotonic() - began
    began = monotonic()
    await asyncio.to_thread(cluster.add, 1)
    idle = engine.easel.painters
    assert isinstance(idle, RayPainters)
    await until(lambda: idle._idle.qsize() == 2, "both painters idle", WITHIN_S)
    back_s = monotonic() - began
    again_s = await look(60)
    report(
        "a Ray node of two is lost and returns",
        calm_s=round(calm_s, 2),
        patches_struck_s=round(struck_s, 2),
        with_one_node_s=round(alone_s, 2),
        noticed_s=round(noticed_s, 1),
        painting_on_both_again_s=round(back_s, 1),
        after_s=round(again_s, 2),
    )
    assert len(found) == 8
    with Painter(model, canvas) as painter:
        for patch, codes in painter.patches(sorted(found)):
            if patch in found:
                np.testing.assert_array_equal(found[patch], codes)
