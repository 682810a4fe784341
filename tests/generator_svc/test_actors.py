"""Painters and ledger on a real Ray cluster of two nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from generator_svc import actors
from generator_svc.actors import RayLedger, RayPainters, _Ledger, _Painter, join
from generator_svc.easel import Easel
from generator_svc.engine import Engine
from generator_svc.scene import load_scene
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes, gather
from handscroll.errors import SpecMismatch, Unavailable
from handscroll.geometry import Extent, Patch
from handscroll.paint import Painter
from svckit.keys import canvas_key, patch_key
from svckit.store import Store
from tests.support.rays import Cluster

PATCHES = [Patch(2, 0, row, col) for row in (0, 1) for col in (6, 7, 8)]
KEY = patch_key("0" * 64, Patch(0, 0, 0, 0))


@pytest.fixture(scope="module")
def joined(ray_cluster: Cluster) -> Any:
    """This process, as part of the cluster."""
    join(ray_cluster.address)
    yield
    ray.shutdown()


@pytest.fixture
async def painters(joined: None, tiny: Path) -> AsyncIterator[RayPainters]:
    """Two painters of the tiny model, ready."""
    painters = RayPainters(0, tiny)
    await asyncio.gather(*(actor.describe.remote() for actor in painters.actors))
    yield painters
    painters.close()


@pytest.fixture
async def ledger(joined: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RayLedger]:
    """The cluster's ledger, which may be lost without ending us."""
    monkeypatch.setattr(signal, "raise_signal", lambda number: None)
    ledger = RayLedger()
    yield ledger
    await ledger.close()


async def scene_of(store: Store, painters: RayPainters, group: int = 64) -> Canvas:
    served = await painters.describe()
    model = served.model
    canvas = Canvas(
        model.digest, "planet", 3, model.worlds["planet"], sampling=Sampling(group=group)
    )
    await store.create(canvas_key(canvas.id), canvas.canonical())
    return canvas


async def inside(actor: Any, look: Callable[[Any], Any]) -> Any:
    """What a function sees inside an actor."""
    return await actor.__ray_call__.remote(look)


def no_patch(patch: Patch) -> Codes:
    """A seed of level 0 sees no patch."""
    raise AssertionError(patch)


@pytest.mark.anyio
async def test_ray_draws_what_render_draws_on_both_nodes(
    painters: RayPainters, ledger: RayLedger, model: Checkpoint
) -> None:
    store = Store.open("memory://")
    canvas = await scene_of(store, painters)
    engine = Engine(store, Easel(painters, ledger), await painters.describe(), 100, 1000)
    found = {patch: codes async for patch, codes in engine.patches(canvas.id, PATCHES)}
    with Painter(model, canvas) as painter:
        for patch, codes in painter.patches(PATCHES):
            if patch in found:
                np.testing.assert_array_equal(found.pop(patch), codes)
    assert not found
    for actor in painters.actors:
        assert await inside(actor, lambda self: len(self.samplers)), "both have drawn"
    nodes = [
        await inside(actor, lambda self: ray.get_runtime_context().get_node_id())
        for actor in painters.actors
    ]
    assert len(set(nodes)) == 2


@pytest.mark.anyio
async def test_a_painter_killed_while_it_draws_is_replaced_and_nothing_differs(
    painters: RayPainters, ledger: RayLedger, model: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open("memory://")
    canvas = await scene_of(store, painters, group=1)
    engine = Engine(store, Easel(painters, ledger), await painters.describe(), 100, 1000)
    victim = await inside(painters.actors[0], lambda self: os.getpid())
    os.kill(victim, signal.SIGSTOP)  # So that it is still drawing when it is killed.

    async def kill() -> None:
        await asyncio.sleep(0.3)
        os.kill(victim, signal.SIGKILL)

    killing = asyncio.create_task(kill())
    wanted = [Patch(0, 0, 0, 0), Patch(0, 0, 0, 2)]
    found = {patch: codes async for patch, codes in engine.patches(canvas.id, wanted)}
    await killing
    [line] = [one for one in caplog.records if one.message == "a painter was started again"]
    assert line.__dict__["reason"] == "its process died"
    with Painter(model, canvas) as painter:
        for patch, codes in painter.patches(wanted):
            if patch in found:
                np.testing.assert_array_equal(found[patch], codes)


@pytest.mark.anyio
async def test_errors_of_painters_arrive_as_what_they_are(painters: RayPainters) -> None:
    store = Store.open("memory://")
    canvas = await scene_of(store, painters)
    served = await painters.describe()
    scene = await load_scene(store, served, canvas)
    context = gather(Patch(0, 0, 0, 0), scene.order, 16, no_patch, scene.field)
    foreign = scene._replace(canvas=replace(canvas, model="f" * 64))
    with pytest.raises(SpecMismatch, match="the canvas wants model ffff"):
        await painters.draw(foreign, [context])
    with pytest.raises(SpecMismatch, match="has levels 0 to 2"):
        await painters.draw(
            scene._replace(canvas=replace(canvas, extent=Extent("plane", 3))), [context]
        )


@pytest.mark.anyio
async def test_painters_that_cannot_load_their_model_say_so(joined: None, tmp_path: Path) -> None:
    painters = RayPainters(1, tmp_path)
    with pytest.raises(Unavailable, match=f"cannot start: .*no checkpoint in {tmp_path}"):
        await asyncio.wait_for(painters.describe(), 60)
    painters.close()


def test_a_painter_that_is_to_hold_a_gpu_where_there_is_none_says_so(tiny: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(Unavailable, match=r"is to hold 0\.5 of a GPU, and torch .* sees none"):
        _Painter(tiny, gpus=0.5)


@pytest.mark.anyio
async def test_a_drawing_that_nobody_wants_stops_between_two_steps(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the painter itself, so that its steps can be counted."""
    painter, steps, begun = _Painter(tiny), [0], threading.Event()
    decoder = type(painter.checkpoint.decoder)
    step = decoder.step

    def counted(*args: Any) -> Any:
        steps[0] += 1
        begun.set()
        time.sleep(0.02)
        return step(*args)

    monkeypatch.setattr(decoder, "step", counted)
    served = await painter.describe()
    canvas = Canvas(
        served.model.digest,
        "planet",
        3,
        served.model.worlds["planet"],
        sampling=Sampling(group=1),
    )
    store = Store.open("memory://")
    await store.create(canvas_key(canvas.id), canvas.canonical())
    scene = await load_scene(store, served, canvas)
    context = gather(Patch(0, 0, 0, 0), scene.order, 16, no_patch, scene.field)
    drawing = asyncio.create_task(painter.draw(canvas.canonical(), {}, [context]))
    await asyncio.to_thread(begun.wait, 10)
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    at_cancel = steps[0]
    await asyncio.to_thread(painter.thread.shutdown)  # waits for what still runs
    assert steps[0] <= at_cancel + 1 < 256


@pytest.mark.anyio
async def test_the_ledger_gives_a_key_to_one_process_at_a_time(ledger: RayLedger) -> None:
    other = RayLedger()
    try:
        assert await ledger.claim([KEY]) == [True]
        assert await other.claim([KEY]) == [False]
        waiting = asyncio.create_task(other.released(KEY))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await other.release([KEY])  # not theirs to give
        assert await other.claim([KEY]) == [False]
        await ledger.release([KEY])
        await asyncio.wait_for(waiting, 5)
        assert await other.claim([KEY]) == [True]
        await other.release([KEY])
    finally:
        await other.close()


@pytest.mark.anyio
async def test_the_ledger_forgets_processes_it_no_longer_hears_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actors, "LEASE_S", 0.2)
    ledger = _Ledger()
    assert await ledger.claim("dead", [KEY]) == [True]
    assert await ledger.claim("living", [KEY]) == [False]
    await asyncio.wait_for(ledger.released(KEY), 5)
    assert await ledger.claim("living", [KEY]) == [True]
    await ledger.release("dead", [KEY])
    assert await ledger.claim("third", [KEY]) == [False]


@pytest.mark.anyio
async def test_a_process_whose_cluster_is_gone_stops(
    ledger: RayLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[int] = []
    stopped = asyncio.Event()

    def stop(number: int) -> None:
        stops.append(number)
        stopped.set()

    monkeypatch.setattr(signal, "raise_signal", stop)
    monkeypatch.setattr(actors, "LEASE_S", 0.5)
    lost = RayLedger()
    await asyncio.sleep(1)
    assert not stops
    ray.kill(lost.actor)
    await asyncio.wait_for(stopped.wait(), 30)
    assert stops[0] == signal.SIGTERM
    await lost.close()


@pytest.mark.anyio
async def test_without_a_ledger_drawing_goes_on(ledger: RayLedger) -> None:
    ray.kill(ledger.actor)
    deadline = time.monotonic() + 20
    while (await ledger.claim([KEY])) != [True] and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    await ledger.release([KEY])
    await asyncio.wait_for(ledger.released(KEY), 20)


def test_no_cluster_is_a_clear_error() -> None:
    with pytest.raises(Unavailable, match="no Ray cluster at 127.0.0.9:1"):
        join("127.0.0.9:1")
