"""``handscroll train``: a folder of pictures becomes a world.

Heavy imports wait until the command is called, so that ``--help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.folder import WorldKind

FINE_TUNE_MINUTES, FROM_NOTHING_MINUTES = 20.0, 240.0


def train(
    pictures: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="of PNG, JPEG or WebP files; captions.csv (file,caption) if any"
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="folder of the checkpoint, and of the work for it")
    ],
    kind: Annotated[
        WorldKind, typer.Option(help="scroll: as high as a picture; plane: endless both ways")
    ] = "scroll",
    minutes: Annotated[
        float | None,
        typer.Option(
            help=f"for all of it; default: {FINE_TUNE_MINUTES:.0f}, "
            f"from nothing {FROM_NOTHING_MINUTES:.0f}"
        ),
    ] = None,
    from_nothing: Annotated[
        bool, typer.Option("--from-nothing", help="do not start from the shipped weights")
    ] = False,
    name: Annotated[str, typer.Option(help="of the world; default: the name of --out")] = "",
) -> None:
    """Make a world of your own pictures. Stopped at any time, the same command goes on."""
    from training.own import Commission

    if minutes is None:
        minutes = FROM_NOTHING_MINUTES if from_nothing else FINE_TUNE_MINUTES
    commission = Commission(pictures, out, kind, name or out.resolve().name, from_nothing, minutes)
    commission.carry_out(typer.echo)
