"""Two of every service under constant load, while each in turn is restarted, and then killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic

import numpy as np
import psutil
import pytest

from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Tile
from svckit.keys import canvas_key, tile_key
from svckit.store import Store
from tests.e2e.asking import assert_painted, path_of
from tests.support.faults import FaultProxy, faulty
from tests.support.fleet import KINDS, Fleet
from tests.support.history import Read, digest
from tests.support.load import Answers, Front, ask, browser, front, load, report, until
from tests.support.rays import Cluster
from tests.support.seaweed import S3

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

RATE_HZ = 20.0
NEW_EVERY = 20
"""One request in so many is for a place that nobody has seen, which all services have a part in.
Of the others half are for known places, which gateways have, and half for what tilers tell."""
ROW = 1024
"""Places in a row, before the next begins."""
SOAK_S = float(os.environ.get("HANDSCROLL_SOAK_S", "180"))
WITHIN_S = 90.0
OVERLOAD_S = 20.0
GROWTH_MIB = 100.0
"""How much all services together may grow under overload."""
GROWTH_MIB_PER_MIN = 8.0
"""How much a process may grow, when it has warmed up."""


@dataclass
class Ground:
    """A fleet, the front before it, the proxy before its store, and a canvas."""

    fleet: Fleet
    front: Front
    proxy: FaultProxy
    canvas: Canvas
    model: Checkpoint
    seen: dict[str, Tile]
    places: Iterator[int]

    def unseen(self) -> str:
        """The path of a tile where nobody has been, nor near enough to have painted for it."""
        down, right = divmod(next(self.places), ROW)
        tile = Tile(0, 8 * down - 4096, 8 * right - 4096)
        path = path_of(self.canvas.id, tile)
        self.seen[path] = tile
        return path

    def paths(self) -> Iterator[str]:
        """What is asked for, one after the other."""
        for number in count():
            if number % NEW_EVERY == 0:
                yield self.unseen()
            elif number % 2:
                yield f"/canvases/{self.canvas.id}"
            else:
                yield list(self.seen)[number % len(self.seen)]

    def check(self, answers: Answers) -> None:
        """No tile was wrong, the store did what a store must, and no service made a mistake."""
        assert not answers.wrong()
        shown = [one for one in answers if one.status == 200 and one.path in self.seen]
        found = {self.seen[one.path]: one.content for one in shown}
        assert_painted(self.model, self.canvas, found)
        self.proxy.history.operations += [
            Read(
                tile_key(self.canvas.id, self.seen[one.path], "png"),
                digest(one.content),
                one.began,
                one.began + one.took_s,
            )
            for one in shown
        ]
        assert not self.proxy.history.faults()
        assert not self.fleet.mistakes()


@pytest.fixture(scope="module")
async def ground(
    tmp_path_factory: pytest.TempPathFactory, tiny: Path, model: Checkpoint, s3: S3
) -> AsyncIterator[Ground]:
    folder, ray = tmp_path_factory.mktemp("fleet"), Cluster()
    async with AsyncExitStack() as stack:
        stack.callback(ray.stop)
        ray.add(4)
        proxy, store = await stack.enter_async_context(faulty(s3, folder.name))
        fleet = Fleet(folder, tiny, store, ray)
        stack.callback(fleet.kill)
        await fleet.start()
        gateways = [("127.0.0.1", port) for port in fleet.ports["gateway"]]
        opened = await stack.enter_async_context(front(gateways))
        extent = model.worlds["planet"].extent
        canvas = Canvas(model.digest, "planet", 1, extent, sampling=Sampling(group=64))
        await Store.open(store.url, store.settings).create(
            canvas_key(canvas.id), canvas.canonical()
        )
        yield Ground(fleet, opened, proxy, canvas, model, {}, count())


async def more(answers: Answers, count: int) -> None:
    """Wait for so many answers."""
    wanted = len(answers) + count
    await until(lambda: len(answers) >= wanted, "answers", WITHIN_S)


async def test_a_rolling_restart_of_everything_fails_no_request(ground: Ground) -> None:
    fleet, seconds = ground.fleet, dict[str, list[float]]()
    async with load(ground.front.url, ground.paths(), RATE_HZ) as answers:
        await more(answers, 40)
        for kind in KINDS:
            for port in fleet.ports[kind]:
                stopped_s = await fleet.stop(port)
                fleet.launch(kind, port)
                started_s = await fleet.serves(kind, port)
                seconds.setdefault(kind, []).append(round(stopped_s + started_s, 1))
                await more(answers, 20)
    report(
        "rolling restart of two of each service",
        requests_per_s=RATE_HZ,
        answers=answers.statuses,
        ms=answers.quantiles(),
        slowest_s=round(max(one.took_s for one in answers), 1),
        restart_s=seconds,
    )
    assert not answers.failed
    ground.check(answers)


@pytest.mark.parametrize("kind", [*KINDS, "painter"])
async def test_whatever_is_killed_only_requests_in_its_hands_may_break(
    ground: Ground, kind: str
) -> None:
    fleet = ground.fleet
    async with browser(ground.front.url) as client:

        async def paints() -> bool:
            return (await ask(client, ground.unseen())).status == 200

        async with load(ground.front.url, ground.paths(), RATE_HZ) as answers:
            await more(answers, 40)
            began = monotonic()
            if kind == "painter":
                painter = fleet.painters()[0]
                painter.kill()
            else:
                port = fleet.ports[kind][0]
                await fleet.stop(port, signal.SIGKILL)
            recovered_s = await until(paints, "a new tile", WITHIN_S)
            await more(answers, 60)
            whole_s = 0.0
            if kind != "painter":
                fleet.launch(kind, port)
                await fleet.serves(kind, port)
                whole_s = monotonic() - began
    report(
        f"kill -9 of a {kind}",
        requests_per_s=RATE_HZ,
        answers=answers.statuses,
        slowest_s=round(max(one.took_s for one in answers), 1),
        new_tile_s=round(recovered_s, 2),
        whole_s=round(whole_s, 1),
    )
    # A gateway takes the connections with it that it had; nobody else's death is seen outside.
    assert all(kind == "gateway" and one.status == 0 for one in answers.failed), answers.failed
    assert len(answers.failed) <= RATE_HZ
    ground.check(answers)


async def test_overload_is_refused_and_what_is_painted_is_served(ground: Ground) -> None:
    """Ten times more new places than two painters paint."""
    fleet, kept = ground.fleet, path_of(ground.canvas.id, tile := Tile(0, -64, -64))
    ground.seen[kept] = tile
    places = (Tile(2, -64 * place, 8000) for place in count(1))
    new = (path_of(ground.canvas.id, tile) for tile in places)

    def size_mib() -> float:
        sizes = (psutil.Process(one.pid).memory_info().rss for one in fleet.running.values())
        return sum(sizes) / 2**20

    async with browser(ground.front.url) as client:
        assert (await ask(client, kept)).status == 200
        began = monotonic()
        assert (await ask(client, next(new))).status == 200
        capacity_hz = 1 / (monotonic() - began)
        calm = Answers([await ask(client, kept) for _ in range(200)])
        before_mib, rate_hz, cached = size_mib(), 10 * capacity_hz, Answers()
        async with load(ground.front.url, new, rate_hz) as answers:
            ends = monotonic() + OVERLOAD_S
            while monotonic() < ends:
                cached.append(await ask(client, kept))
                await asyncio.sleep(0.02)
            grown_mib = size_mib() - before_mib
    report(
        "ten times more asked for than is painted",
        new_places_per_s=round(rate_hz, 1),
        answers=answers.statuses,
        refused_ms=answers.quantiles(503),
        cached_ms={"idle": calm.quantiles(), "overload": cached.quantiles()},
        grown_mib=round(grown_mib),
    )
    assert any(one.refused for one in answers), "there was no room for all"
    assert all(one.status == 200 or one.refused for one in answers)
    assert cached.statuses == {200: len(cached)}
    assert grown_mib < GROWTH_MIB
    ground.check(Answers(calm + cached))


async def test_memory_stays_flat(ground: Ground) -> None:
    sizes: dict[str, list[tuple[float, float]]] = {}
    names = {
        fleet_port: f"{kind} {number}"
        for kind in KINDS
        for number, fleet_port in enumerate(ground.fleet.ports[kind])
    }
    began, warm_s = monotonic(), SOAK_S / 3
    async with load(ground.front.url, ground.paths(), RATE_HZ) as answers:

        async def sample() -> bool:
            at = monotonic() - began
            if at > warm_s:
                for port, name in names.items():
                    size = psutil.Process(ground.fleet.running[port].pid).memory_info().rss
                    sizes.setdefault(name, []).append((at / 60, size / 2**20))
            await asyncio.sleep(min(1.0, SOAK_S / 60))
            return at > SOAK_S

        await until(sample, "the end", SOAK_S + WITHIN_S)
    slopes = {name: round(_slope(of), 2) for name, of in sizes.items()}
    report(
        f"soak of {SOAK_S:g} s",
        requests_per_s=RATE_HZ,
        answers=answers.statuses,
        ms=answers.quantiles(),
        mib={name: round(of[-1][1]) for name, of in sizes.items()},
        growth_mib_per_min=slopes,
    )
    assert not answers.failed
    assert max(slopes.values()) < GROWTH_MIB_PER_MIN
    ground.check(answers)


def _slope(points: list[tuple[float, float]]) -> float:
    """How steep the line is that lies nearest to points (x, y)."""
    x, y = np.array(points).T
    return float(np.polyfit(x, y, 1)[0])
