"""``handscroll keys``: makes, lists and revokes keys in a file that the services read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handscroll.errors import InvalidRequest, NotFound
from svckit.keyring import BUDGETS, KEYS_FILE, RoleName, changed_keys, new_key, read_keys

app = typer.Typer(no_args_is_help=True, help="Keys of those who may look, paint or administer.")

_File = Annotated[
    Path, typer.Option("--file", envvar=KEYS_FILE, help="where they are kept, without the secrets")
]
_Budget = Annotated[int | None, typer.Option(min=0, help="0: no limit; default: the service's")]


@app.command()
def create(
    file: _File,
    name: Annotated[str, typer.Option(help="whose it is")],
    role: Annotated[RoleName, typer.Option(help="what it may do")] = "paint",
    requests_per_minute: _Budget = None,
    patches_per_minute: _Budget = None,
    canvases_per_minute: _Budget = None,
    streams: _Budget = None,
    own_canvases: _Budget = None,
    own_canvas_bytes: _Budget = None,
    own_picture_bytes: _Budget = None,
    own_export_bytes: _Budget = None,
) -> None:
    """Make a key and print it: the only time that it can be seen."""
    shown, key = new_key(
        name,
        role,
        requests_per_minute=requests_per_minute,
        patches_per_minute=patches_per_minute,
        canvases_per_minute=canvases_per_minute,
        streams=streams,
        own_canvases=own_canvases,
        own_canvas_bytes=own_canvas_bytes,
        own_picture_bytes=own_picture_bytes,
        own_export_bytes=own_export_bytes,
    )
    with changed_keys(file) as keys:
        keys[key.id] = key
    typer.echo(shown)


@app.command(name="list")
def list_keys(file: _File) -> None:
    """List all keys."""
    table = Table("id", "role", "name", *(name.replace("_", " ") for name in BUDGETS), box=None)
    for key in read_keys(file).values():
        own = (getattr(key, name) for name in BUDGETS)
        said = ("" if one is None else str(one) for one in own)
        table.add_row(key.id, key.role, escape(key.name), *said)
    Console().print(table)


@app.command()
def revoke(
    file: _File, id: Annotated[str, typer.Argument(help="the key's first part, as listed")]
) -> None:
    """Take a key away. Services notice within seconds; what was made with it stays."""
    if not file.exists():
        raise InvalidRequest(f"there is no keys file {file}")
    with changed_keys(file) as keys:
        if keys.pop(id, None) is None:
            raise NotFound(f"there is no key {id!r:.80} in {file}")
