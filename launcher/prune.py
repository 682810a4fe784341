"""Deletes what a store need not keep: ``handscroll prune``, and ``handscroll serve`` each day."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from handscroll.errors import HandscrollError, InvalidRequest

if TYPE_CHECKING:
    from tiler_svc.pruning import Pruned

_log = logging.getLogger(__name__)

KEEP_DAYS = "HANDSCROLL_KEEP_DAYS"
"""The variable that names the days."""
MOST_DAYS = 36_500
FIRST_S, PERIOD_S = 300.0, 86_400.0
"""When what is served is pruned first, and how long it is then left alone."""


def prune(
    store: Annotated[
        str,
        typer.Option(envvar="HANDSCROLL_STORE_URL", help="a folder, or s3://bucket/prefix"),
    ] = "handscroll-data/store",
    days: Annotated[
        int,
        typer.Option(min=0, max=MOST_DAYS, envvar=KEEP_DAYS, help="to keep them; 0 for ever"),
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Delete tiles nobody looked at and exports nobody worked at for some days; what is nobody's.

    Tiles are painted again when somebody looks. Canvases that somebody holds or that others branch
    off from stay, with their patches, and so do pictures that somebody holds or a canvas stands on.
    All may be served meanwhile.
    """
    if not days:
        typer.echo(f"All is kept for ever: neither --days nor {KEEP_DAYS} says how long.")
        return
    table = Table("would go" if dry_run else "deleted", "", "", box=None, pad_edge=False)
    for name, (number, size_bytes) in asyncio.run(_prune(store, days, not dry_run)).items():
        table.add_row(name, f"{number:,}", decimal(size_bytes))
    Console().print(table)


async def prune_daily(
    url: str, days: int, console: Console, first_s: float = FIRST_S, period_s: float = PERIOD_S
) -> None:
    """Prune a store again and again, saying in a line what went, or why nothing did.

    Args:
        url: of the store.
        days: as of ``handscroll prune``, and not 0.
        console: where to say it.
        first_s: until the first time.
        period_s: from the end of one time to the next.
    """
    await asyncio.sleep(first_s)
    while True:
        try:
            gone = await _prune(url, days, really=True)
        except Exception as error:  # whatever it is, what is served goes on
            _log.warning(
                "cannot prune the store, trying again in %.0f h: %s",
                period_s / 3600,
                error,
                exc_info=not isinstance(error, HandscrollError),
            )
        else:
            kinds = (
                f"{name} {one.number:,} ({decimal(one.size_bytes)})" for name, one in gone.items()
            )
            console.print(f"Pruned what is {days} days old: {', '.join(kinds)}", soft_wrap=True)
        await asyncio.sleep(period_s)


async def _prune(url: str, days: int, really: bool) -> dict[str, Pruned]:
    """How much of each kind went, or would go."""
    from svckit.settings import StoreSettings
    from svckit.store import Store
    from tiler_svc.pruning import prune_canvases, prune_exports, prune_pictures, prune_tiles

    if "://" not in url and not Path(url).is_dir():
        raise InvalidRequest(f"there is no store at {url}")
    before = datetime.now(UTC) - timedelta(days=days)
    store = Store.open(url, StoreSettings().s3)
    try:
        return {
            "tiles": await prune_tiles(store, before, really),
            "exports": await prune_exports(store, before, really),
            "canvases": await prune_canvases(store, before, really),
            "pictures": await prune_pictures(store, before, really),
        }
    finally:
        await store.close()
