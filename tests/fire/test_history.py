"""The checker of histories: it believes every true one, and none that is forged."""

from __future__ import annotations

import asyncio
import random
from time import perf_counter

import pytest

from handscroll.geometry import Patch
from svckit.keys import patch_key
from svckit.store import Store
from tests.support.history import History, Outcome, Put, Read, Witnessed

WON, REFUSED, UNKNOWN = Outcome.WON, Outcome.REFUSED, Outcome.UNKNOWN

TRUE: dict[str, list[Put | Read]] = {
    "written and read": [Put("k", "a", 0, 1, WON), Read("k", "a", 2, 3)],
    "nothing before it is there": [Read("k", None, 0, 1), Put("k", "a", 0, 2, WON)],
    "read while it is written": [Put("k", "a", 0, 5, WON), Read("k", "a", 1, 2)],
    "not yet seen while it is written": [Put("k", "a", 0, 5, WON), Read("k", None, 4, 6)],
    "a loser": [Put("k", "a", 0, 5, WON), Put("k", "b", 1, 2, REFUSED), Read("k", "a", 3, 4)],
    "refused by its own value": [Put("k", "a", 0, 2, UNKNOWN), Put("k", "a", 3, 4, REFUSED)],
    "a lost reply": [Put("k", "a", 0, 2, UNKNOWN), Read("k", "a", 9, 10)],
    "a put that never landed": [Put("k", "a", 0, 2, UNKNOWN), Put("k", "b", 3, 4, WON)],
    "a put that lands late": [
        Put("k", "a", 0, 2, UNKNOWN),
        Read("k", None, 3, 4),
        Read("k", "a", 5, 6),
    ],
    "two keys": [Put("k", "a", 0, 1, WON), Put("l", "b", 0, 1, WON), Read("l", "b", 2, 3)],
}

FORGED: dict[str, tuple[list[Put | Read], str]] = {
    "two winners": (
        [Put("k", "a", 0, 1, WON), Put("k", "b", 0, 1, WON)],
        "2 writers were told that they had won",
    ),
    "two winners of one value": (
        [Put("k", "a", 0, 1, WON), Put("k", "a", 2, 3, WON)],
        "2 writers were told that they had won",
    ),
    "another value is read": (
        [Put("k", "a", 0, 1, WON), Put("k", "b", 0, 1, UNKNOWN), Read("k", "b", 2, 3)],
        "2 values were committed or read",
    ),
    "it changes": (
        [
            Put("k", "a", 0, 1, UNKNOWN),
            Put("k", "b", 0, 1, UNKNOWN),
            Read("k", "a", 2, 3),
            Read("k", "b", 4, 5),
        ],
        "2 values were committed or read",
    ),
    "out of nowhere": ([Read("k", "a", 0, 1)], "nobody had written it"),
    "a refused writer's value": (
        [Put("k", "a", 0, 1, REFUSED), Read("k", "a", 2, 3)],
        "nobody had written it",
    ),
    "before the write": (
        [Read("k", "a", 0, 1), Put("k", "a", 2, 3, WON)],
        "before anybody began to write it",
    ),
    "lost after the winner was told": (
        [Put("k", "a", 0, 1, WON), Read("k", None, 2, 3)],
        "1.000 s after it was known to be there",
    ),
    "lost after it was read": (
        [Put("k", "a", 0, 1, UNKNOWN), Read("k", "a", 2, 3), Read("k", None, 4, 5)],
        "1.000 s after it was known to be there",
    ),
    "lost after a refusal": (
        [Put("k", "a", 0, 1, UNKNOWN), Put("k", "b", 2, 3, REFUSED), Read("k", None, 4, 5)],
        "1.000 s after it was known to be there",
    ),
    "refused by nobody": (
        [Put("k", "b", 0, 1, REFUSED), Put("k", "a", 2, 3, WON)],
        "refused before anybody else had begun",
    ),
}


@pytest.mark.parametrize("name", TRUE)
def test_a_true_history_is_believed(name: str) -> None:
    for seed in range(5):
        operations = list(TRUE[name])
        random.Random(seed).shuffle(operations)
        assert History(operations).faults() == []


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_history_is_found(name: str) -> None:
    operations, words = FORGED[name]
    faults = History([*operations, *TRUE["two keys"][1:]]).faults()
    assert any(words in fault for fault in faults), faults


def test_time_is_linear() -> None:
    def took_s(count: int) -> float:
        history = History([Put("k", "a", 0, 1, WON)])
        history.operations += [Read("k", "a", step, step + 1) for step in range(1, count)]
        history.operations += [Put(f"{step}", "a", 0, 1, WON) for step in range(count)]
        began = perf_counter()
        assert history.faults() == []
        return perf_counter() - began

    small = min(took_s(2_000) for _ in range(5))
    assert min(took_s(20_000) for _ in range(3)) < 50 * small, "100 times were quadratic"


def test_a_witnessed_store_tells_what_passed() -> None:
    async def race() -> None:
        store = Witnessed.open("memory://")
        assert isinstance(store, Witnessed)
        store.history = History()
        key = patch_key("a" * 64, Patch(0, 0, 0, 0))
        assert await store.get(key) is None
        await asyncio.gather(*(store.create(key, b"%d" % writer) for writer in range(8)))
        puts = [one for one in store.history.operations if isinstance(one, Put)]
        assert [one.outcome for one in puts].count(WON) == 1 and len(puts) == 8
        assert not store.history.faults()
        await Store(store._raw).delete(key)
        await store.get(key)
        (fault,) = store.history.faults()
        assert "after it was known to be there" in fault

    asyncio.run(race())
