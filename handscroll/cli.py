"""The algorithm's command: ``handscroll render`` paints a rectangle of a canvas into a PNG file.

Heavy imports wait until a command needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import png
import typer
from rich.progress import Progress

from handscroll.canvas import Canvas, Known
from handscroll.errors import HandscrollError, InvalidRequest
from handscroll.geometry import Extent, Region, tile_to_xyz, tiles_of

if TYPE_CHECKING:
    from handscroll.assemble import Pixels

MAX_PIXELS = 2**31
MAX_WIDTH_PX = 2**18  # a row of tiles is held in memory: this one takes 200 MB

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def handscroll() -> None:
    """Handscroll: an endless picture, painted patch by patch."""


@app.command()
def render(
    world: Annotated[str, typer.Option(help="scroll (landscapes) or planet (Earth in relief)")],
    width: Annotated[int, typer.Option(help="pixels")],
    height: Annotated[int, typer.Option(help="pixels")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write")],
    seed: Annotated[int, typer.Option(help="another number, another world")] = 0,
    prompt: Annotated[str, typer.Option(help="what it should show")] = "",
    at: Annotated[str, typer.Option(help="X,Y of the top-left pixel; may be negative")] = "0,0",
    level: Annotated[int | None, typer.Option(help="resolution step; default: the finest")] = None,
    order: Annotated[
        str, typer.Option(help="lattice; raster or outward for a picture with an end on all sides")
    ] = "lattice",
    picture: Annotated[
        Path | None, typer.Option(help="PNG, JPEG or WebP file to go on painting around")
    ] = None,
    picture_at: Annotated[
        str, typer.Option(help="X,Y where it lies; default: in the middle of what is painted")
    ] = "",
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: shipped")] = None,
    workers: Annotated[int, typer.Option(help="cores to use; default: all")] = 0,
) -> None:
    """Paint a rectangle of a canvas. The same command gives the same bytes, every time."""
    if out.suffix.lower() != ".png":
        raise InvalidRequest(f"--out must end in .png, not {out.name!r}")

    if workers < 0:
        raise InvalidRequest(f"--workers must not be negative, not {workers}")

    from handscroll import checkpoint
    from handscroll.known import digest_of
    from handscroll.paint import Painter
    from handscroll.picture import read_picture

    loaded = checkpoint.load(model or checkpoint.SHIPPED)
    extent = loaded.world(world).extent
    if order != "lattice":
        extent = Extent("picture", extent.finest, height, width)
    region = region_of(extent, width, height, at, level)
    pixels, known = None, None
    if picture is not None:
        pixels = read_picture(_content(picture))
        known = Known(
            digest_of(pixels), *_corner(pixels, picture_at, region, extent), *pixels.shape[:2]
        )
    canvas = Canvas(
        loaded.digest, world, seed, extent, prompt, order, sampling=loaded.sampling, known=known
    )
    with (
        Progress(transient=True) as progress,
        Painter(loaded, canvas, workers or os.cpu_count() or 1, picture=pixels) as painter,
    ):
        task = progress.add_task("painting", total=len(painter.cone(region)))
        painter.on_patch = lambda _: progress.advance(task)
        write_png(out, region, painter.region(region))
    typer.echo(f"{out}: {width} x {height} px of canvas {canvas.id[:16]}")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error


def _corner(pixels: Pixels, at: str, region: Region, extent: Extent) -> tuple[int, int]:
    """Where a picture lies: its top and left at the finest level, on the grid of tokens."""
    step = 16 * 2**extent.finest
    if at:
        left, top = _place("--picture-at", at)
        if top % step or left % step:
            raise InvalidRequest(f"--picture-at must be multiples of {step}, not {at!r}")
        return top, left
    scale = 2 ** (extent.finest - region.level)
    top, left = (
        (scale * start + (scale * size - own) // 2) // step * step
        for start, size, own in zip(
            (region.top, region.left), (region.height, region.width), pixels.shape, strict=False
        )
    )
    return top, left


def _place(option: str, text: str) -> tuple[int, int]:
    """The X and Y of an option."""
    try:
        left, top = (int(number) for number in text.split(","))
    except ValueError:
        raise InvalidRequest(f"{option} must be X,Y in whole pixels, not {text!r}") from None
    return left, top


def region_of(extent: Extent, width: int, height: int, at: str, level: int | None) -> Region:
    """The rectangle that the options name.

    Raises:
        InvalidRequest: it is empty, too large, not in the canvas, or not a rectangle at all.
    """
    level = extent.finest if level is None else level
    if not 0 <= level <= extent.finest:
        raise InvalidRequest(f"--level must be 0 to {extent.finest}, not {level}")
    if width < 1 or height < 1 or width > MAX_WIDTH_PX or width * height > MAX_PIXELS:
        raise InvalidRequest(
            f"--width and --height must be positive, --width at most {MAX_WIDTH_PX} and both "
            f"multiplied at most {MAX_PIXELS}, not {width} x {height}"
        )
    left, top = _place("--at", at)
    for name, start, size, bound in zip(
        ("rows", "columns"), (top, left), (height, width), extent.size(level), strict=True
    ):
        if bound is not None and not 0 <= start <= start + size <= bound:
            raise InvalidRequest(
                f"{name} {start} to {start + size} are not in this {extent.kind}, which has "
                f"0 to {bound} at level {level}"
            )
    region = Region(level, top, left, height, width)
    last = Region(level, top + height - 1, left + width - 1, 1, 1)
    for corner in (region._replace(height=1, width=1), last):
        tile_to_xyz(next(tiles_of(corner, extent)))  # refuses what lies outside the world
    return region


def write_png(path: Path, region: Region, strips: Iterable[Pixels]) -> None:
    """Write strips as one PNG, a row at a time; the file appears only when it is whole.

    Raises:
        InvalidRequest: the file cannot be written there.
    """
    aside = path.with_name(f".handscroll-{os.getpid()}")
    rows = (row.tobytes() for strip in strips for row in strip)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with aside.open("wb") as file:
            png.Writer(region.width, region.height, greyscale=False).write_packed(file, rows)
        aside.replace(path)
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def run(command: Callable[[], None]) -> None:
    """Run a command; what goes wrong on purpose is one line, and exit code 2."""
    try:
        command()
    except HandscrollError as error:
        typer.echo(f"handscroll: {error}", err=True)
        sys.exit(2)
