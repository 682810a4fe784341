"""``handscroll prune``: deletes what a store need not keep, on any back end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from handscroll.errors import InvalidRequest

KEEP_DAYS = "HANDSCROLL_KEEP_DAYS"
"""The variable that names the days."""


def prune(
    store: Annotated[
        str,
        typer.Option(envvar="HANDSCROLL_STORE_URL", help="a folder, or s3://bucket/prefix"),
    ] = "handscroll-data/store",
    days: Annotated[
        int,
        typer.Option(min=0, max=36_500, envvar=KEEP_DAYS, help="to keep them; 0 for ever"),
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Delete tiles and exports that are older than some days, and what is nobody's.

    Tiles are painted again when somebody looks. Canvases that somebody holds or that others branch
    off from stay, with their patches, and so do pictures that somebody holds or a canvas stands on.
    All may be served meanwhile.
    """
    if not days:
        typer.echo(f"All is kept for ever: neither --days nor {KEEP_DAYS} says how long.")
        return
    if "://" not in store and not Path(store).is_dir():
        raise InvalidRequest(f"there is no store at {store}")
    asyncio.run(_prune(store, datetime.now(UTC) - timedelta(days=days), not dry_run))


async def _prune(url: str, before: datetime, really: bool) -> None:
    from svckit.settings import StoreSettings
    from svckit.store import Store
    from tiler_svc.pruning import prune_canvases, prune_exports, prune_pictures, prune_tiles

    store = Store.open(url, StoreSettings().s3)
    table = Table("deleted" if really else "would go", "", "", box=None, pad_edge=False)
    try:
        for name, kind in (
            ("tiles", prune_tiles),
            ("exports", prune_exports),
            ("canvases", prune_canvases),
            ("pictures", prune_pictures),
        ):
            number, size_bytes = await kind(store, before, really)
            table.add_row(name, f"{number:,}", decimal(size_bytes))
    finally:
        await store.close()
    Console().print(table)
