"""The paper's showpieces: ``python -m benchmarks.showpieces --out FOLDER [--only NAME]``.

Each is painted by `handscroll render` at the paper's size, or in little, one after the other. The
table has the command of each, so that anybody can repeat it, how long it took, and the most memory
that its process held. Run it from the root of the repository.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal, NamedTuple

import typer

from benchmarks.machine import description
from handscroll.cli import run
from handscroll.errors import InvalidRequest

Scale = Literal["paper", "small"]

PHOTOGRAPH = "landscapes/hills7-harro.webp"
BEACH = "landscapes/beach1.webp"
"""Held out from training both, in the packed data set."""
PAINTING = "landscape-mountains-05.jpg"
"""Of Debian's `wesnoth-1.16-data` (GPL-2+), which nothing was trained on."""

_MIB = 2**20
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class Showpiece(NamedTuple):
    """One showpiece.

    Attributes:
        name: of its file, and of ``--only``.
        shows: what it is.
        options: of `handscroll render`, but for the size and the file.
        width, height: in pixels, as in the paper.
        small: the same, in little.
        frames: 1 for a still.
        ending: of its file.
        picture: the file that is gone on from, of the packed data set or a painting; empty for
            none.
    """

    name: str
    shows: str
    options: str
    width: int
    height: int
    small: tuple[int, int]
    frames: int = 1
    ending: str = "png"
    picture: str = ""

    def size(self, scale: Scale) -> tuple[int, int]:
        """Its width and height in pixels."""
        return (self.width, self.height) if scale == "paper" else self.small

    def command(
        self, out: Path, scale: Scale, data: Path, paintings: Path, model: Path | None
    ) -> list[str]:
        """What paints it.

        Args:
            out: folder for its file.
            scale: its size.
            data: the packed data set.
            paintings: folder of PAINTING.
            model: checkpoint folder; None for the shipped one.
        """
        width, height = self.size(scale)
        words = ["handscroll", "render", *shlex.split(self.options)]
        words += ["--width", str(width), "--height", str(height), "--bounded"]
        if self.picture:
            where = paintings if self.picture == PAINTING else data
            words += ["--picture", str(where / self.picture)]
        if self.frames > 1:
            words += ["--frames", str(self.frames)]
        if model is not None:
            words += ["--model", str(model)]
        return [*words, "-o", str(out / f"{self.name}.{self.ending}")]


SHOWPIECES = (
    Showpiece(
        "endless",
        "a picture of whatever comes",
        "--world planet --seed 7",
        38912,
        2048,
        (1024, 256),
    ),
    Showpiece(
        "words",
        "a picture from words",
        '--world scroll --seed 3 --prompt "houses in a field, clouds in the sky"',
        4096,
        1024,
        (768, 384),
    ),
    Showpiece(
        "painting-continued",
        "a painting, continued on all sides",
        "--world scroll --seed 22 --order outward --picture-height 704",
        2048,
        1408,
        (1280, 896),
        picture=PAINTING,
    ),
    Showpiece(
        "photograph-continued",
        "a photograph, continued on all sides",
        "--world scroll --seed 23 --order outward --picture-height 704",
        2816,
        1408,
        (1664, 896),
        picture=PHOTOGRAPH,
    ),
    Showpiece(
        "beach",
        "a still beach whose waves move",
        '--world scroll --seed 24 --picture-height 704 --motion "waves roll" --back-and-forth',
        1408,
        704,
        (1408, 704),
        frames=16,
        ending="mp4",
        picture=BEACH,
    ),
    Showpiece(
        "video",
        "a video from words",
        '--world scroll --seed 25 --prompt "white clouds in a blue sky over green hills" '
        '--motion "clouds drift left" --back-and-forth',
        1280,
        1024,
        (512, 384),
        frames=32,
        ending="mp4",
    ),
)


class Painted(NamedTuple):
    """How the painting of a showpiece went.

    Attributes:
        seconds: from the start of its process to the end.
        peak_bytes: the most memory it held.
    """

    seconds: float
    peak_bytes: int


def timed(command: Sequence[str]) -> Painted:
    """Run a `handscroll` command.

    Raises:
        InvalidRequest: it failed.
    """
    program = Path(sys.executable).with_name(command[0])
    start = perf_counter()
    process = subprocess.Popen([str(program), *command[1:]])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InvalidRequest(f"exit code {process.returncode}: {shlex.join(command)}")
    return Painted(perf_counter() - start, usage.ru_maxrss * _MAXRSS_BYTES)


def row(piece: Showpiece, scale: Scale, command: Sequence[str], painted: Painted) -> str:
    """A showpiece's line of the table."""
    width, height = piece.size(scale)
    megapixels = width * height * piece.frames / 1e6
    frames = f", {piece.frames} frames" if piece.frames > 1 else ""
    cells = (
        piece.shows,
        f"{width} × {height}{frames}",
        f"{painted.seconds:.0f} s",
        f"{painted.seconds / megapixels:.1f} s",
        f"{painted.seconds / piece.frames:.1f} s" if frames else "",
        f"{painted.peak_bytes / _MIB:.0f} MiB",
        f"`{shlex.join(command)}`",
    )
    return f"| {' | '.join(cells)} |"


def text(rows: Sequence[str]) -> str:
    """The report: the machine and the table."""
    return "\n".join(
        [
            f"{description()}.\n",
            "| | pixels | time | a megapixel | a frame | peak memory | command |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


def chosen(names: Sequence[str]) -> list[Showpiece]:
    """The showpieces of some names, or all.

    Raises:
        InvalidRequest: there is none of such a name.
    """
    known = [piece.name for piece in SHOWPIECES]
    strange = [name for name in names if name not in known]
    if strange:
        raise InvalidRequest(f"--only must be one of {', '.join(known)}, not {strange[0]!r}")
    return [piece for piece in SHOWPIECES if not names or piece.name in names]


def main(
    out: Annotated[Path, typer.Option(help="folder for the pictures and showpieces.md")],
    only: Annotated[list[str], typer.Option(help="paint this one; repeatable")] = [],  # noqa: B006
    scale: Annotated[Scale, typer.Option(help="the paper's sizes, or in little")] = "paper",
    data: Annotated[Path, typer.Option(help="packed data set, for photographs")] = Path("data"),
    paintings: Annotated[Path, typer.Option(help=f"folder of {PAINTING}")] = Path("paintings"),
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: shipped")] = None,
) -> None:
    """Paint the paper's showpieces."""
    pieces = chosen(only)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for piece in pieces:
        command = piece.command(out, scale, data, paintings, model)
        typer.echo(shlex.join(command))
        rows.append(row(piece, scale, command, timed(command)))
        (out / "showpieces.md").write_text(text(rows) + "\n", encoding="utf-8")
    typer.echo(text(rows))


if __name__ == "__main__":
    run(lambda: typer.run(main))
