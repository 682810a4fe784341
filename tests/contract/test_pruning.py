"""The laws of pruning: what comes back goes when it is old, and nothing else, in every store."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from handscroll.canvas import Branch, Canvas, Known
from handscroll.geometry import Extent, Patch, Region, Tile
from handscroll.known import digest_of
from launcher.prune import prune as command
from svckit import keys
from svckit.keys import Key, Prefix
from svckit.store import Store
from tests.tiler_svc.test_pictures import png
from tiler_svc import marks
from tiler_svc.marks import Marks
from tiler_svc.press import Export
from tiler_svc.pruning import (
    Pruned,
    prune_canvases,
    prune_exports,
    prune_pictures,
    prune_tiles,
)

pytestmark = pytest.mark.anyio

app = typer.Typer()
app.command()(command)

MODEL, RUN = "ab" * 32, "0" * 32
HOUR = timedelta(hours=1)

Prune = Callable[[Store, datetime, bool], Awaitable[Pruned]]
KINDS: dict[str, Prune] = {
    "tiles": prune_tiles,
    "exports": prune_exports,
    "canvases": prune_canvases,
    "pictures": prune_pictures,
}


def picture(number: int) -> tuple[str, bytes]:
    pixels = np.full((64, 64, 3), number, np.uint8)
    return digest_of(pixels), png(pixels)


class Filled:
    """A store with something of each kind.

    Attributes:
        goes: what pruning deletes, by kind.
        stays: all other keys.
    """

    def __init__(self) -> None:
        self.goes: dict[str, dict[Key, bytes]] = {name: {} for name in KINDS}
        self.stays = dict[Key, bytes]()
        (held, held_file), (used, used_file), (making, making_file), (free, free_file) = map(
            picture, range(4)
        )
        canvas = Canvas(MODEL, "planet", 1, Extent("plane", 2), known=Known(used, 0, 0, 64, 64))
        exports = [Export(canvas.id, Region(0, 0, 0, 9, n, 0), "png", 0) for n in (5, 6)]
        for number in range(1200):  # more than a batch
            key = keys.tile_key(canvas.id, Tile(0, 0, number), "png")
            self.goes["tiles"][key] = b"tile"
        for export in exports:
            self.goes["exports"] |= {
                keys.export_key(export.id): export.canonical(),
                keys.exported_key(canvas.id, export.id): b"",
            }
        self.goes["exports"] |= {
            keys.file_key(exports[0].id, RUN): b"file",
            keys.done_key(exports[0].id): b"done",
            keys.saved_key("anne", exports[0].id): b"",
            keys.saver_key(exports[0].id, "anne"): b"",
            keys.beat_key(exports[1].id, RUN, 3): b"beat",
        }
        left, parent = (Canvas(MODEL, "planet", seed, Extent("plane", 2)) for seed in (2, 3))
        branch = Branch(parent.id, 0, 0, 64, 64)
        child = Canvas(MODEL, "planet", 4, Extent("plane", 2), branch=branch)
        self.goes["canvases"] |= {
            keys.canvas_key(left.id): left.canonical(),
            keys.patch_key(left.id, Patch(0, 0, 0, 0)): b"patch",
        }
        self.goes["pictures"] |= {
            keys.picture_key(free): free_file,
            keys.known_key(MODEL, free, 2): b"tokens",
            keys.use_key(free, "c" * 64): b"",  # a canvas that never was
        }
        self.stays |= {
            keys.canvas_key(canvas.id): canvas.canonical(),
            keys.holder_key(canvas.id, "anne"): b"",
            keys.canvas_key(child.id): child.canonical(),
            keys.holder_key(child.id, "bert"): b"",
            keys.canvas_key(parent.id): parent.canonical(),
            keys.branch_key(parent.id, child.id): b"",
            keys.branch_key(left.id, "c" * 64): b"",  # of one that is gone
            keys.patch_key(canvas.id, Patch(0, 0, 0, 0)): b"patch",
            keys.text_key(MODEL, "a prompt"): b"text",
            keys.picture_key(held): held_file,
            keys.known_key(MODEL, held, 2): b"tokens",
            keys.uploader_key(held, "anne"): b"",
            keys.picture_key(used): used_file,
            keys.known_key(MODEL, used, 2): b"tokens",
            keys.picture_key(making): making_file,
            keys.making_key(making, RUN): b"%d" % time.time(),
        }

    async def fill(self, store: Store) -> None:
        await asyncio.gather(*(store.create(key, value) for key, value in self.all().items()))

    def all(self) -> dict[Key, bytes]:
        return self.stays | {key: one for kind in self.goes.values() for key, one in kind.items()}

    def told(self, name: str) -> Pruned:
        """What is to be said of a kind."""
        gone = self.goes[name]
        counted = {"tiles": 1200, "exports": 2, "canvases": 1, "pictures": 1}
        # Of pictures the files alone; the marks of exports are empty.
        sizes = [
            len(value)
            for key, value in gone.items()
            if name != "pictures" or key.startswith(keys.PICTURES)
        ]
        return Pruned(counted[name], sum(sizes))


async def there(store: Store) -> set[str]:
    return {str(key) async for key in store.keys(Prefix(""))}


async def test_what_is_old_and_comes_back_goes(store: Store) -> None:
    filled = Filled()
    await filled.fill(store)
    whole: set[str] = set(filled.all())
    now = datetime.now(UTC)
    for name, prune in KINDS.items():
        assert await prune(store, now - HOUR, True) == Pruned(), name  # nothing is so old
        assert await prune(store, now + HOUR, False) == filled.told(name)
        assert await there(store) == whole
        assert await prune(store, now + HOUR, True) == filled.told(name)
        whole -= set(filled.goes[name])
        assert await there(store) == whole
        assert await prune(store, now + HOUR, True) == Pruned()
    for key, value in filled.stays.items():
        assert await store.get(key) == value


async def test_listing_tells_size_and_time(store: Store) -> None:
    began = datetime.now(UTC)
    await store.create(Key("tiles/a"), b"12345")
    (entry,) = [one async for batch in store.batches(Prefix("tiles/")) for one in batch]
    assert (entry.key, entry.size_bytes) == ("tiles/a", 5)
    assert abs(entry.written - began) < timedelta(seconds=10)
    assert await store.any(Prefix("tiles/")) and not await store.any(Prefix("canvases/"))
    assert not await store.any(Prefix("tiles/"), but=Key("tiles/a"))


async def test_export_that_is_worked_at_stays(tmp_path: Path) -> None:
    """Though it was begun long ago."""
    store, filled = Store.open(str(tmp_path)), Filled()
    await filled.fill(store)
    new = next(key for key in filled.goes["exports"] if "/beats/" in key)
    _age(tmp_path, 3, but=new)
    assert (await prune_exports(store, datetime.now(UTC) - HOUR, True)).number == 1
    assert new in await there(store)


async def test_tile_that_somebody_looks_at_stays(tmp_path: Path) -> None:
    """Though it was painted long ago."""
    store, filled = Store.open(str(tmp_path)), Filled()
    await filled.fill(store)
    _age(tmp_path, 3)
    seen = min(filled.goes["tiles"])
    assert await store.look(seen) == b"tile"
    while (tmp_path / seen).stat().st_mtime < time.time() - 3600:
        await asyncio.sleep(0.01)
    assert (await prune_tiles(store, datetime.now(UTC) - HOUR, True)).number == 1199
    assert await store.get(seen) == b"tile"


async def test_owner_of_a_pruned_stores_picture_still_holds_it(store: Store) -> None:
    name, file = picture(1)
    await Marks(store, marks.PICTURES).hold(name, "anne", len(file), 64, 64)
    await store.create(keys.picture_key(name), file)
    await prune_pictures(store, datetime.now(UTC) + HOUR, True)
    assert await store.get(keys.picture_key(name)) == file


def _age(folder: Path, days: int, but: str = "") -> None:
    then = time.time() - 86400 * days
    for path in folder.rglob("*"):
        if path.is_file() and str(path.relative_to(folder)) != but:
            os.utime(path, (then, then))


def test_command_says_what_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, filled = Store.open(str(tmp_path / "store")), Filled()
    asyncio.run(filled.fill(store))
    _age(tmp_path / "store", 10)

    def prune(*arguments: str) -> str:
        told = ["--store", str(tmp_path / "store"), *arguments]
        done = CliRunner().invoke(app, told, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    whole = asyncio.run(there(store))
    assert "kept for ever" in prune() and "kept for ever" in prune("--days", "0")
    assert prune("--days", "11").startswith("deleted tiles 0 0 bytes")
    assert prune("--days", "9", "--dry-run").startswith("would go tiles 1,200 4.8 kB exports 2")
    assert asyncio.run(there(store)) == whole
    monkeypatch.setenv("HANDSCROLL_KEEP_DAYS", "9")
    assert "pictures 1" in prune()
    assert asyncio.run(there(store)) == set(filled.stays)


@pytest.mark.parametrize("days", ["-1", "nan", str(10**9)])
def test_days_that_cannot_be_are_refused(tmp_path: Path, days: str) -> None:
    done = CliRunner().invoke(app, ["--store", str(tmp_path), "--days", days])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)
    assert not list(tmp_path.iterdir())


def test_command_makes_no_store(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    done = CliRunner().invoke(app, ["--store", str(nowhere), "--days", "1"])
    assert done.exit_code == 1 and "there is no store at" in str(done.exception)
    assert not nowhere.exists()
