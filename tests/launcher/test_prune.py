"""What `handscroll serve` prunes by itself: when it is told to, daily, whatever the store does."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from handscroll.errors import StoreUnavailable
from handscroll.geometry import Tile
from launcher import prune, serve
from launcher.processes import Processes
from launcher.serve import Machine
from svckit import keys
from svckit.store import Store
from tests.support.stack import PATIENCE_S
from tiler_svc import pruning

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(serve.serve)


async def old_tile(folder: Path, number: int, days: int) -> Path:
    """A tile in the store that was last looked at so long ago."""
    key = keys.tile_key("c" * 64, Tile(0, 0, number), "png")
    await Store.open(str(folder)).create(key, b"tile")
    then = time.time() - 86400 * days
    os.utime(folder / key, (then, then))
    return folder / key


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def pruning_daily(folder: Path, first_s: float = 0) -> AsyncIterator[Callable[[], list[str]]]:
    """Prune what is 9 days old, on days that are short; the lines that are said."""
    said = io.StringIO()
    console = Console(file=said, width=40)
    task = asyncio.create_task(prune.prune_daily(str(folder), 9, console, first_s, 0.01))
    try:
        yield lambda: said.getvalue().splitlines()
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_is_old_goes_day_after_day_and_is_told_in_a_line(tmp_path: Path) -> None:
    first, young = await old_tile(tmp_path, 1, days=10), await old_tile(tmp_path, 2, days=8)
    async with pruning_daily(tmp_path) as said:
        await until(lambda: bool(said()))
        assert not first.exists()
        second = await old_tile(tmp_path, 3, days=10)
        await until(lambda: not second.exists())
    assert young.exists()
    assert said()[0] == (
        "Pruned what is 9 days old: tiles 1 (4 bytes), exports 0 (0 bytes), "
        "canvases 0 (0 bytes), pictures 0 (0 bytes)"
    )


async def test_nothing_is_pruned_at_once(tmp_path: Path) -> None:
    tile = await old_tile(tmp_path, 1, days=10)
    async with pruning_daily(tmp_path, first_s=PATIENCE_S) as said:
        await asyncio.sleep(0.2)
    assert tile.exists() and not said()
    assert 60 <= prune.FIRST_S <= 3600 and prune.PERIOD_S == 86400


@pytest.mark.parametrize("failure", [StoreUnavailable("it is full"), ValueError("our mistake")])
async def test_store_that_fails_is_told_and_pruned_the_next_day(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
) -> None:
    tile = await old_tile(tmp_path, 1, days=10)
    pictures, tries = pruning.prune_pictures, 0

    async def failing(store: Store, before: datetime, really: bool) -> pruning.Pruned:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise failure
        return await pictures(store, before, really)

    monkeypatch.setattr(pruning, "prune_pictures", failing)
    async with pruning_daily(tmp_path) as said:
        await until(lambda: bool(said()))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == f"cannot prune the store, trying again in 0 h: {failure}"
    assert bool(record.exc_info) == isinstance(failure, ValueError), "only mistakes are traced"
    assert not tile.exists()


async def test_no_store_is_made_of_one_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "unmounted"
    async with pruning_daily(folder) as said:
        await until(lambda: bool(caplog.records))
        assert f"there is no store at {folder}" in caplog.text and not folder.exists()
        tile = await old_tile(folder, 1, days=10)
        await until(lambda: bool(said()) and not tile.exists())


# Serving.


@pytest.mark.parametrize("store", ["", "s3://bucket/prefix"])
@pytest.mark.parametrize("days", [0, 9])
async def test_machine_prunes_its_store_while_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, days: int
) -> None:
    told: list[object] = []

    async def forever(url: str, days: int, console: Console) -> None:
        told.extend((url, days))
        try:
            await asyncio.Event().wait()
        finally:
            told.append("ended")

    async def nothing(self: Machine, *_: object) -> None:
        stop.set()

    monkeypatch.setattr(serve, "prune_daily", forever)
    monkeypatch.setattr(Machine, "_start", nothing)
    machine = Machine("127.0.0.1", 1, 2, tmp_path, store, None, 1, days)
    stop, console = asyncio.Event(), Console(file=io.StringIO())
    await machine._run(Processes(tmp_path / "logs", []), console, stop)
    await asyncio.sleep(0)
    assert told == ([store or str(tmp_path / "store"), 9, "ended"] if days else [])


@pytest.mark.parametrize(
    ("variable", "flags", "days"),
    [(None, [], 0), ("9", [], 9), ("0", [], 0), ("9", ["--keep-days", "5"], 5)],
)
def test_days_come_from_the_variable_or_the_flag(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    flags: list[str],
    days: int,
) -> None:
    ran: list[Machine] = []

    async def run(self: Machine, console: Console) -> None:
        ran.append(self)

    monkeypatch.setattr(Machine, "run", run)
    monkeypatch.delenv(prune.KEEP_DAYS, raising=False)
    if variable is not None:
        monkeypatch.setenv(prune.KEEP_DAYS, variable)
    done = CliRunner().invoke(app, ["--data", str(tmp_path), *flags], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [machine.keep_days for machine in ran] == [days]


@pytest.mark.parametrize("days", ["-1", "nan", str(10**9)])
def test_days_that_cannot_be_start_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: str
) -> None:
    monkeypatch.setenv(prune.KEEP_DAYS, days)
    done = CliRunner().invoke(app, ["--data", str(tmp_path / "data")])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)
    assert not (tmp_path / "data").exists()
