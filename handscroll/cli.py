"""The algorithm's command: ``handscroll render`` paints a rectangle of a canvas into a file.

Heavy imports wait until a command needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
from rich.progress import Progress

from handscroll.canvas import MAX_KNOWN_PIXELS, Branch, Canvas, Known, PromptRegion
from handscroll.errors import HandscrollError, InvalidRequest
from handscroll.geometry import (
    TILE_PX,
    Extent,
    Region,
    Tile,
    tile_region,
    tile_to_xyz,
    tiles_of,
)

if TYPE_CHECKING:
    from handscroll.assemble import Pixels
    from handscroll.paint import Painter

_Format = Literal["png", "jpg", "webp", "dzi", "pmtiles", "mp4", "awebp", "gif"]
FORMATS: dict[str, _Format] = {
    ".png": "png",
    ".jpg": "jpg",
    ".webp": "webp",
    ".zip": "dzi",
    ".pmtiles": "pmtiles",
    ".mp4": "mp4",
    ".gif": "gif",
}
"""Kinds of files by the ending of their names; a Deep Zoom pyramid comes in a ZIP. A WebP shows one
frame, or all."""
MAX_PIXELS = 2**31
MAX_GIVEN_PX = 2**15  # of a picture that is brought to another size
MAX_GIVEN_PIXELS = 2**27  # of the same, in all; Pillow takes none of more than 178,956,970
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
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="file: .png, .jpg, .webp, .zip (Deep Zoom) or .pmtiles (map tiles); of a canvas "
            "that moves, .mp4, .webp or .gif",
        ),
    ],
    seed: Annotated[int, typer.Option(help="another number, another world")] = 0,
    prompt: Annotated[str, typer.Option(help="what it should show")] = "",
    negative_prompt: Annotated[
        str | None, typer.Option(help="what it should not show; default: the model's own")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="how far to follow layout and words, 0 to 20; 1 is no farther than the model "
            "does by itself; default: the model's own"
        ),
    ] = None,
    region: Annotated[
        list[str],
        typer.Option(help='"X,Y,WIDTH,HEIGHT words": a place with a prompt of its own; repeatable'),
    ] = [],  # noqa: B006
    at: Annotated[str, typer.Option(help="X,Y of the top-left pixel; may be negative")] = "0,0",
    level: Annotated[int | None, typer.Option(help="resolution step; default: the finest")] = None,
    order: Annotated[
        str, typer.Option(help="lattice; raster or outward for a picture with an end on all sides")
    ] = "lattice",
    bounded: Annotated[
        bool, typer.Option("--bounded", help="a picture with an end on all sides: WIDTH x HEIGHT")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="PNG, JPEG or WebP file to go on painting around, of at most "
            f"{MAX_KNOWN_PIXELS:,} px"
        ),
    ] = None,
    picture_at: Annotated[
        str | None,
        typer.Option(help="X,Y where it lies; default: in the middle of what is painted"),
    ] = None,
    picture_height: Annotated[
        int | None,
        typer.Option(
            help="bring it to so many pixels; it may then have at most "
            f"{MAX_GIVEN_PIXELS:,} px; default: as it is"
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option(help="more than 1: the canvas moves; a picture is its frame 0")
    ] = 1,
    motion: Annotated[str, typer.Option(help='what moves: "clouds drift left", "waves roll"')] = "",
    frame: Annotated[
        int | None, typer.Option(help="paint this frame alone, 0 to FRAMES - 1")
    ] = None,
    fps: Annotated[
        int | None, typer.Option(help="frames a second of a film, 1 to 30; default: 8")
    ] = None,
    back_and_forth: Annotated[
        bool, typer.Option("--back-and-forth", help="close the loop: play forth and back")
    ] = False,
    repaint: Annotated[
        str | None,
        typer.Option(
            help="X,Y,WIDTH,HEIGHT: a rectangle of the finest level to paint anew, joining all "
            "around it"
        ),
    ] = None,
    repaint_seed: Annotated[
        int | None, typer.Option(help="another number, another try; default: 1")
    ] = None,
    repaint_prompt: Annotated[
        str, typer.Option(help="what it should show there; default: what it should show anyway")
    ] = "",
    repaint_picture: Annotated[
        Path | None,
        typer.Option(
            help=f"PNG, JPEG or WebP file of at most {MAX_GIVEN_PIXELS:,} px to put there, as "
            "large as fits, joined all round"
        ),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: shipped")] = None,
    workers: Annotated[int, typer.Option(help="cores to use; default: all")] = 0,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="folder for what is drawn: the same command, stopped and given again, goes on "
            "from there"
        ),
    ] = None,
) -> None:
    """Paint a rectangle of a canvas. The same command gives the same bytes, every time."""
    format = _format_of(out, frames > 1 and frame is None)
    if frame is not None and not 0 <= frame < frames:
        raise InvalidRequest(f"--frame must be 0 to {frames - 1}, not {frame}")
    if workers < 0:
        raise InvalidRequest(f"--workers must not be negative, not {workers}")

    from handscroll import checkpoint
    from handscroll.film import FPS, check_film, film, is_film
    from handscroll.formats import QUALITY, encoded, encoder_of
    from handscroll.known import digest_of
    from handscroll.paint import Painter
    from handscroll.picture import scaled

    for idle, words in (
        (
            picture is None and (picture_at is not None or picture_height is not None),
            "--picture-at and --picture-height say where a --picture lies; there is none",
        ),
        (
            repaint is None
            and (repaint_seed is not None or repaint_prompt or repaint_picture is not None),
            "--repaint-seed, --repaint-prompt and --repaint-picture say what --repaint paints; it "
            "is not given",
        ),
        (
            not is_film(format) and (fps is not None or back_and_forth),
            f"--fps and --back-and-forth say how a film is played; {out.name} is a picture",
        ),
        (
            is_film(format) and frame is not None,
            f"a film shows all frames, not --frame {frame} alone",
        ),
    ):
        if idle:
            raise InvalidRequest(words)
    fps = FPS if fps is None else fps
    loaded = checkpoint.load(model or checkpoint.SHIPPED)
    extent = loaded.world(world).extent
    if not 0 <= (level := extent.finest if level is None else level) <= extent.finest:
        raise InvalidRequest(f"--level must be 0 to {extent.finest}, not {level}")
    if bounded or order in ("raster", "outward"):
        scale = 2 ** (extent.finest - level)
        extent = Extent("picture", extent.finest, height * scale, width * scale)
    shown = region_of(extent, width, height, at, level)._replace(frame=frame or 0)
    if is_film(format):
        check_film(format, frames, height, width, fps)
    pixels, known = None, None
    if picture is not None:
        pixels = scaled(_picture(picture, bool(picture_height)), picture_height or 0)
        known = Known(
            digest_of(pixels), *_corner(pixels, picture_at, shown, extent), *pixels.shape[:2]
        )
    told: dict[str, Any] = {"guidance": guidance, "negative_prompt": negative_prompt}
    canvas = Canvas(
        loaded.digest,
        world,
        seed,
        extent,
        prompt,
        order,
        frames,
        sampling=replace(loaded.sampling, **{k: v for k, v in told.items() if v is not None}),
        known=known,
        regions=tuple(map(_prompt_region, region)),
        motion=motion,
    )
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(transient=True))
        task = progress.add_task("painting")

        def opened(canvas: Canvas, pixels: Pixels | None, parent: Painter | None = None) -> Painter:
            """A painter, as long as the command lasts."""
            made = Painter(
                loaded,
                canvas,
                workers or os.cpu_count() or 1,
                on_patch=lambda _: progress.advance(task),
                picture=pixels,
                parent=parent,
                drawn=keep,
            )
            return stack.enter_context(made)

        painter = opened(canvas, pixels)
        if repaint is not None:
            seed = 1 if repaint_seed is None else repaint_seed
            canvas, pixels = _branched(canvas, repaint, seed, repaint_prompt), None
            if repaint_picture is not None:
                canvas, pixels = _filled(canvas, _picture(repaint_picture, brought=True))
            painter = opened(canvas, pixels, painter)
        last = shown._replace(frame=frames - 1) if is_film(format) else shown
        progress.update(task, total=painter.cost(last))
        if is_film(format):
            content = film(format, list(_frames(painter, shown)), fps, back_and_forth)
            write_file(out, [content])
        elif format == "pmtiles":
            write_file(out, _archived(painter, shown))
        else:
            encoder = encoder_of(format, height, width, QUALITY)
            write_file(out, encoded(encoder, painter.region(shown)))
    typer.echo(f"{out}: {width} x {height} px of canvas {canvas.id[:16]}")


def _format_of(out: Path, moves: bool) -> _Format:
    """What kind of file a name asks for."""
    format = FORMATS.get(out.suffix.lower())
    if format is None:
        raise InvalidRequest(f"--out must end in {', '.join(FORMATS)}, not {out.name!r}")
    return "awebp" if moves and format == "webp" else format


def _frames(painter: Painter, region: Region) -> Iterator[Pixels]:
    """A region's pixels (H, W, 3), frame after frame."""
    for frame in range(painter.canvas.frames):
        yield np.concatenate(list(painter.region(region._replace(frame=frame))))


def _prompt_region(text: str) -> PromptRegion:
    """A place with words of its own."""
    place, _, prompt = text.partition(" ")
    return PromptRegion(prompt, *_rectangle('--region must be "X,Y,WIDTH,HEIGHT words"', place))


def _branched(canvas: Canvas, place: str, seed: int, prompt: str) -> Canvas:
    """A canvas with a rectangle painted anew."""
    branch = Branch(canvas.id, *_rectangle("--repaint must be X,Y,WIDTH,HEIGHT", place))
    again = replace(canvas, seed=seed, known=None, branch=branch)
    return replace(again, prompt=prompt, regions=()) if prompt else again


def _filled(canvas: Canvas, given: Pixels) -> tuple[Canvas, Pixels]:
    """A branch with a picture (H, W, 3) in the middle of its rectangle, and the picture as it lies
    there: as large as fits into a rim of one token of level 0, which joins it to all around."""
    from handscroll.known import digest_of
    from handscroll.picture import scaled

    branch, rim = canvas.branch, 16 * 2**canvas.extent.finest
    assert branch is not None
    height, width = branch.height - 2 * rim, branch.width - 2 * rim
    if height < rim or width < rim:
        raise InvalidRequest(
            f"--repaint must be at least {3 * rim} x {3 * rim} px for a picture, not "
            f"{branch.width} x {branch.height}"
        )
    pixels = scaled(given, max(1, min(height, width * given.shape[0] // given.shape[1])))
    top, left = (
        start + rim + (room - size + rim) // (2 * rim) * rim
        for start, room, size in zip(
            (branch.top, branch.left), (height, width), pixels.shape, strict=False
        )
    )
    known = Known(digest_of(pixels), top, left, *pixels.shape[:2])
    return replace(canvas, known=known), pixels


def _rectangle(expected: str, text: str) -> tuple[int, int, int, int]:
    """The top, left, height and width of an option."""
    try:
        left, top, width, height = (int(number) for number in text.split(","))
    except ValueError:
        raise InvalidRequest(f"{expected} in whole pixels, not {text!r:.80}") from None
    return top, left, height, width


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error


def _picture(path: Path, brought: bool) -> Pixels:
    """The pixels (H, W, 3) of a picture's file; it may be larger if it is brought to a size."""
    from handscroll.picture import read_picture

    content = _content(path)
    most = (MAX_GIVEN_PX, MAX_GIVEN_PIXELS) if brought else ()
    return read_picture(content, *most)


def _corner(pixels: Pixels, at: str | None, region: Region, extent: Extent) -> tuple[int, int]:
    """Where a picture lies: its top and left at the finest level, on the grid of tokens."""
    step = 16 * 2**extent.finest
    if at is not None:
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


def region_of(extent: Extent, width: int, height: int, at: str, level: int) -> Region:
    """The rectangle of a level that the options name.

    Raises:
        InvalidRequest: it is empty, too large, not in the canvas, or not a rectangle at all.
    """
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


def _archived(painter: Painter, region: Region) -> Iterator[bytes]:
    """A PMTiles archive in pieces; its tiles wait in a scratch file until their sizes are known."""
    from handscroll.archive import head_of, levels_of, tiles_in
    from handscroll.formats import QUALITY, encode_tile

    extent = painter.canvas.extent
    places: dict[Tile, tuple[int, int]] = {}
    with tempfile.TemporaryFile() as scratch:
        for level, rows, cols in levels_of(region, extent):
            for row in rows:
                line = [Tile(level, row, col, region.frame) for col in cols]
                shown = tile_region(line[0], extent)._replace(width=TILE_PX * len(line))
                for strip in painter.region(shown):
                    for number, tile in enumerate(line):
                        rgb = strip[:, TILE_PX * number : TILE_PX * (number + 1)]
                        image = encode_tile(rgb, tile, extent, "webp", QUALITY)
                        places[tile] = scratch.tell(), len(image)
                        scratch.write(image)
        tiles = tiles_in(region, extent)
        yield head_of(painter.canvas, region, tiles, [places[tile][1] for tile in tiles])
        for tile in tiles:
            start, size = places[tile]
            scratch.seek(start)
            yield scratch.read(size)


def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file piece by piece; it appears only when it is whole.

    Raises:
        InvalidRequest: the file cannot be written there.
    """
    aside = path.with_name(f".handscroll-{os.getpid()}")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with aside.open("wb") as file:
            file.writelines(pieces)
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
