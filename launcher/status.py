"""``handscroll status``: a deployment on one screen, for whoever is on call."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handscroll.errors import InvalidRequest, Unavailable

PATIENCE_S = 10.0
KEY = "HANDSCROLL_KEY"
"""Environment variable with the key to show, where the gateway asks for one."""


def status(
    url: Annotated[str, typer.Option(help="of the gateway")] = "http://127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Tell how a deployment is.

    The exit code is 0 if all is well, 1 if something is not, 2 if nobody could say. A gateway
    that asks for keys wants one with the role admin, in HANDSCROLL_KEY.
    """
    told = _asked(url)
    console = Console(highlight=False)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        for table in (_head(url, told), _processes(told), *_painting(told)):
            console.print(table)
    if not told["well"]:
        raise typer.Exit(1)


def _asked(url: str) -> dict[str, Any]:
    """What the gateway tells.

    Raises:
        InvalidRequest: this is no address of a gateway, or it wants another key.
        Unavailable: it does not answer.
    """
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/status")
    except ValueError as error:
        raise InvalidRequest(f"--url must be http://host:port, not {url!r}") from error
    if key := os.environ.get(KEY):
        request.add_header("Authorization", f"Bearer {key}")
    # Services are no business of a proxy for the web.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE_S) as answer:
            told: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise InvalidRequest(f"{url} answers {error.code}: {_detail(said)}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(f"no gateway answers at {url}: {reason}") from error
    return told


def _detail(said: str) -> str:
    """What a problem says, else the first line of what came."""
    try:
        return str(json.loads(said)["detail"])
    except (ValueError, KeyError, TypeError):
        return said.strip().partition("\n")[0][:200]


def _head(url: str, told: dict[str, Any]) -> str:
    state = "all is well" if told["well"] else "[bold]something is wrong[/bold]"
    store = told["store_ms"]
    answered = "does not answer" if store is None else f"answers in {store:g} ms"
    return f"{escape(url)}: {state}; the store {answered}\n"


def _processes(told: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("service", "state", "up for", "version", "model", "refused"):
        table.add_column(name, header_style="dim", overflow="fold")
    for one in told["processes"]:
        refused = ", ".join(f"{count} {reason}" for reason, count in one["refused"].items())
        known = bool(one["version"])
        table.add_row(
            one["service"],
            escape(one["problem"]) or "well",
            _span(one["uptime_s"]) if known else "",
            one["version"],
            one["model"][:12],
            refused or ("none" if known else ""),
        )
    return table


def _painting(told: dict[str, Any]) -> list[str]:
    return [
        f"\npainters: {one['busy']} busy, {one['idle']} idle, {one['away']} away; "
        f"{one['patches_per_s']:.1f} patches/s over the last minute\n"
        f"patches: {one['works']} in work; waiting for a painter: {one['viewport']} for viewports, "
        f"{one['prefetch']} ahead"
        for process in told["processes"]
        if (one := process.get("painting"))
    ]


def _span(seconds: float) -> str:
    """A time in its two largest units.

    >>> _span(90061.0)
    '1 d 1 h'
    """
    whole = int(seconds)
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"))
    largest = [f"{count} {unit}" for count, unit in (*parts, (whole % 60, "s"))]
    first = next((i for i, (count, _) in enumerate(parts) if count), len(parts))
    return " ".join(largest[first : first + 2])
