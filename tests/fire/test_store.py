"""A store that is slow, breaks off, refuses, loses what it says or is full, under constant load."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import monotonic

import pytest

from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Tile
from svckit.keys import tile_key
from svckit.settings import StoreSettings
from tests.e2e.asking import path_of
from tests.support.faults import Fault, Policy, faulty
from tests.support.history import History, Read, digest
from tests.support.house import House, house
from tests.support.load import Answers, ask, browser, load, report, until
from tests.support.seaweed import S3

pytestmark = pytest.mark.anyio

RATE_HZ = 4.0
FAULT_S = 3.0
WITHIN_S = 60.0
"""How soon after a fault a place that nobody has seen must be painted, on a busy machine."""
KEPT = Tile(0, 3, 3)


FAULTS: dict[str, Policy] = {
    "the answer to every write is lost": lambda request: Fault.LOST if request.writes else None,
    "every connection is refused": lambda request: Fault.REFUSED,
    "answers break off in their middle": lambda request: Fault.CUT,
    "every answer comes 5 s late": lambda request: Fault.SLOW,
}
QUICK, *OTHERS = FAULTS


@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
async def test_whatever_a_store_does_every_tile_comes_in_the_end_and_none_is_wrong(
    model: Checkpoint, s3: S3, tmp_path: Path, name: str
) -> None:
    async with faulty(s3, uuid.uuid4().hex) as (proxy, seen):
        store = StoreSettings(url=seen.url, s3=seen.settings)

        def fault(begins: bool) -> None:
            proxy.policy = FAULTS[name] if begins else lambda request: None

        async with house(model, store) as opened:
            canvas, answers, figures = await through(opened, fault)
            again = await see_again(opened, canvas, answers)
    struck = {fault.name: times for fault, times in proxy.faults.items()}
    report(f"store: {name}, for {FAULT_S:g} s", **figures, store_requests_struck=struck)
    assert struck
    if Fault.LOST in proxy.faults:
        assert not answers.failed, "whoever is told nothing looks, and finds its own value"
    note(proxy.history, canvas, answers)
    assert len(proxy.history.operations) > 100 and not proxy.history.faults()
    await assert_as_if_nothing_had_been(model, canvas, again, tmp_path)


@pytest.mark.slow
async def test_while_a_disk_is_full_tiles_wait_or_are_refused_and_then_they_come(
    model: Checkpoint, tmp_path: Path
) -> None:
    small, calm = tmp_path / "small", tmp_path / "calm"
    with tmpfs(small):
        store = StoreSettings(url=str(small / "store"))

        def fault(begins: bool) -> None:
            filler = small / "filler"
            if begins:
                with pytest.raises(OSError, match="No space left"), filler.open("wb") as file:
                    while True:
                        file.write(bytes(2**12))
                        file.flush()
            else:
                filler.unlink()

        async with house(model, store) as opened:
            canvas, answers, figures = await through(opened, fault)
            again = await see_again(opened, canvas, answers)
    report(f"store: the disk is full, for {FAULT_S:g} s", **figures)
    assert max(one.took_s for one in answers) > 1 or answers.failed, "it was felt"
    await assert_as_if_nothing_had_been(model, canvas, again, calm)


async def through(
    opened: House, fault: Callable[[bool], None]
) -> tuple[Canvas, Answers, dict[str, object]]:
    """Constant load on a house before, in and after a fault.

    Returns:
        The canvas, all answers to requests for new places, and what was measured.
    """
    canvas, elsewhere = await opened.canvas(seed=1), count(8, 8)
    async with browser(opened.urls[0]) as client:

        async def paints() -> bool:
            found = await ask(client, path_of(canvas.id, Tile(0, -next(elsewhere), 0)))
            return found.status == 200

        assert (await ask(client, path_of(canvas.id, KEPT))).status == 200
        async with load(opened.urls[0], walk(canvas), RATE_HZ) as answers:
            await until(lambda: len(answers) >= 4, "tiles", WITHIN_S)
            before, cached, began = len(answers), Answers(), monotonic()
            fault(True)
            while monotonic() < began + FAULT_S:
                cached.append(await ask(client, path_of(canvas.id, KEPT)))
                await asyncio.sleep(0.1)
            fault(False)
            recovered_s = await until(paints, "a tile", WITHIN_S)
            await asyncio.sleep(1.0)
    assert not Answers(answers[:before]).failed
    assert cached.statuses == {200: len(cached)}, "what is in memory is served all the while"
    assert all(one.status == 200 or one.refused for one in answers), answers.statuses
    return (
        canvas,
        answers,
        {
            "new_places_per_s": RATE_HZ,
            "answers": answers.statuses,
            "slowest_s": round(max(one.took_s for one in answers), 1),
            "cached_tile": cached.statuses,
            "recovered_s": round(recovered_s, 2),
        },
    )


def walk(canvas: Canvas) -> Iterator[str]:
    """Places that nobody has seen, one after the other."""
    return (path_of(canvas.id, tile) for tile in places())


def places() -> Iterator[Tile]:
    return (Tile(0, 8 * step, -8 * step) for step in range(1, 1000))


async def see_again(opened: House, canvas: Canvas, answers: Answers) -> dict[str, bytes]:
    """All that was asked for, whether it came then or not; what came must still be the same."""
    async with browser(opened.urls[0]) as client:
        again = {path: await ask(client, path) for path in sorted({one.path for one in answers})}
    assert {one.status for one in again.values()} == {200}
    for one in answers:
        assert one.status != 200 or one.content == again[one.path].content, one.path
    return {path: one.content for path, one in again.items()}


def note(history: History, canvas: Canvas, answers: Answers) -> None:
    """Clients that were shown a tile are readers of it, too."""
    tiles = {path_of(canvas.id, tile): tile for tile in places()}
    history.operations += [
        Read(
            tile_key(canvas.id, tiles[one.path], "png"),
            digest(one.content),
            one.began,
            one.began + one.took_s,
        )
        for one in answers
        if one.status == 200
    ]


async def assert_as_if_nothing_had_been(
    model: Checkpoint, canvas: Canvas, seen: dict[str, bytes], folder: Path
) -> None:
    """A house that meets no fault paints the same bytes."""
    async with house(model, StoreSettings(url=str(folder / "calm"))) as calm:
        assert (await calm.canvas(seed=1)).id == canvas.id
        async with browser(calm.urls[0]) as client:
            found = await asyncio.gather(*(ask(client, path) for path in seen))
    assert {one.path: one.content for one in found} == seen


@contextmanager
def tmpfs(folder: Path, size: str = "64m") -> Iterator[None]:
    """A small disk."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
