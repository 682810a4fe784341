"""Evaluate outpainting: ``python -m training.outpainting --data DATA --out FOLDER``.

The middle of held-out pictures is given and a model paints what lies around it, in two ways:
without end, in the lattice order that is served, and as a picture with an end on all sides, ring by
ring (the paper's order). Leaves ``report.md`` and contact sheets. The same figures of the real
pictures, in which nothing is painted, are the floor, and those of the same pictures through the
tokenizer what no painter can do better than. What is painted is kept in a cache: a run that was
stopped goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from PIL import Image

from handscroll import checkpoint
from handscroll.canvas import Canvas, Known
from handscroll.checkpoint import Checkpoint
from handscroll.cli import run
from handscroll.geometry import Extent, Region
from handscroll.known import digest_of
from training import pictures, samples
from training.evaluate import Report
from training.features import Lite0, reconstructed
from training.joins import BAND_PX, DISTANCES_PX, WAYS, Joins
from training.pictures import Picture, Pixels
from training.quality import LOOKS
from training.samples import Studio

CASE_PX = {"scroll": (704, 1408), "plane": (512, 1024)}
"""Height and width of a real picture, by the extent of its world."""
REACH_PX = 1152
"""How far from the given picture an endless canvas is looked at."""
PAINTED, CODED, REAL = "painted", "real, through the tokenizer", "real"
NOTHING_GREY = 40


class Case(NamedTuple):
    """A real picture, the middle of which is given.

    Attributes:
        name: the picture's.
        seed: of the canvas.
        pixels: the whole of it (H, W, 3), at pixel 0 of the canvas.
    """

    name: str
    seed: int
    pixels: Pixels


class Setup(NamedTuple):
    """How pictures of a world are gone on from.

    Attributes:
        name: for titles.
        extent: of the canvas.
        order: of the canvas.
        given: the part of a picture that is given.
        views: what is painted and looked at, the one to be shown first.
    """

    name: str
    extent: Extent
    order: str
    given: Region
    views: tuple[Region, ...]


def setups(extent: Extent) -> list[Setup]:
    """The two ways in which pictures of a world are gone on from."""
    finest, size = extent.finest, CASE_PX[extent.kind]
    if extent.kind == "scroll":
        wide, small = Region(finest, 0, 384, 704, 640), Region(finest, 192, 384, 320, 640)
    else:
        wide = small = Region(finest, 128, 384, 256, 256)
    sideways = wide._replace(left=wide.left - REACH_PX, width=wide.width + 2 * REACH_PX)
    views = [sideways]
    if extent.height_px is None:
        views.append(wide._replace(top=wide.top - REACH_PX, height=wide.height + 2 * REACH_PX))
    return [
        Setup("without end", extent, "lattice", wide, tuple(views)),
        Setup(
            "ring by ring",
            Extent("picture", finest, *size),
            "outward",
            small,
            (Region(finest, 0, 0, *size),),
        ),
    ]


def cases(held: Sequence[Picture], shape: tuple[int, int], count: int) -> list[Case]:
    """Held-out pictures, the first ones by name; of a map, parts spread evenly from north to south.

    Args:
        held: of one world.
        shape: height and width of a case in pixels.
        count: how many.
    """
    height, width = shape
    if len(held) > 1:
        finest = [(one.name, one.levels[-1]) for one in held[:count]]
    else:
        whole = held[0].levels[-1]
        middles = (np.arange(count) + 0.5) * (len(whole) / count)
        tops = [int(middle) - height // 2 for middle in middles]
        finest = [(f"{held[0].name} {top}", whole[top : top + height]) for top in tops]
    return [Case(name, seed, pixels[:height, :width]) for seed, (name, pixels) in enumerate(finest)]


def painted(studio: Studio, world: str, setup: Setup, case: Case) -> list[Pixels]:
    """The views of a case, painted around what is given of it."""
    given = setup.given
    picture = np.ascontiguousarray(_part(case.pixels, given))
    known = Known(digest_of(picture), given.top, given.left, given.height, given.width)
    canvas = Canvas(
        studio.model.digest,
        world,
        case.seed,
        setup.extent,
        order=setup.order,
        sampling=studio.model.sampling,
        known=known,
    )
    return studio.paint(canvas, setup.views, picture)


def _part(pixels: Pixels, given: Region) -> Pixels:
    """Where a picture's middle is given: a view of it."""
    rows = slice(given.top, given.top + given.height)
    return pixels[rows, given.left : given.left + given.width]


def shown(case: Case, setup: Setup, pixels: Pixels) -> Pixels:
    """What was given, outlined where it lies, above what was made of it."""
    view, given = setup.views[0], setup.given
    above = Image.new("RGB", (view.width, view.height), (NOTHING_GREY,) * 3)
    above.paste(
        Image.fromarray(_part(case.pixels, given)), (given.left - view.left, given.top - view.top)
    )
    return samples.compared(np.asarray(above), pixels, view, given)


def measure(
    report: Report,
    lite0: Lite0,
    studio: Studio,
    world: str,
    setup: Setup,
    found: Sequence[Case],
    out: Path,
) -> None:
    """Paint a setup's cases and add its sections to the report; leaves its contact sheet."""
    joins = {kind: Joins(lite0) for kind in (PAINTED, CODED, REAL)}
    code, sheet = reconstructed(studio.model.tokenizer).apply, []
    for case in found:
        made = painted(studio, world, setup, case)
        for view, pixels in zip(setup.views, made, strict=True):
            joins[PAINTED].add(case.name, pixels, view, setup.given)
        coded = code(case.pixels[None])[0]
        _part(coded, setup.given)[:] = _part(case.pixels, setup.given)
        whole = Region(setup.given.level, 0, 0, *case.pixels.shape[:2])
        joins[CODED].add(case.name, coded, whole, setup.given)
        joins[REAL].add(case.name, case.pixels, whole, setup.given)
        sheet.append(shown(case, setup, made[0]))
    name = f"{world}_{setup.name.replace(' ', '_')}.webp"
    columns = 2 if setup.views[0].width < 2048 else 1
    Image.fromarray(samples.rows(sheet, columns)).save(out / name, quality=90)
    title = f"{world}, {setup.name}"
    seam_section(report, title, joins, setup, name)
    drift_section(report, title, joins)


def seam_section(
    report: Report, title: str, joins: Mapping[str, Joins], setup: Setup, sheet: str
) -> None:
    """The joins' seam ratios, and those of the same lines in the real pictures."""
    found = {
        (side, kind, way): (count, ratio)
        for kind, one in joins.items()
        for side, seams in enumerate((one.around, one.inside))
        for way, count, ratio in seams.ratios()
    }
    rows = []
    for way in (way for way in WAYS if (0, PAINTED, way) in found):
        count, ratio = found[0, PAINTED, way]
        report.seam_target(f"{title}: seam {way}", ratio)
        cells = [found.get((side, kind, way)) for side in (0, 1) for kind in joins]
        rows.append((way, str(count), *(cell[1].text() if cell else "–" for cell in cells)))
    given = setup.given
    report.section(
        f"Seams, {title}",
        f"{given.height} × {given.width} px are given ({setup.order}; `{sheet}`: what is given "
        "above what is made of it). How much changes across the join (squared step between "
        "pixels), over that 16 and 32 px to both sides of it, and over that in the given picture "
        "alone; 1.00 is no seam. A painting softer than the photograph has less than 1.00 over the "
        "photograph alone. Beside it the same line where the real picture goes on, encoded and "
        "decoded by the tokenizer, which no painter can do better than, or as it is.",
        ("direction", "segments", *joins, *(f"{kind}, over the given" for kind in joins)),
        rows,
    )


def drift_section(report: Report, title: str, joins: Mapping[str, Joins]) -> None:
    """How what is painted moves away from the given picture, and how real pictures do."""
    found = {
        (one.way, one.distance_px, kind): one
        for kind, made in joins.items()
        for one in made.drift()
    }
    rows = [
        (
            f"{way}, {distance} px",
            kind,
            str(one.pictures),
            *(shift.text(1) for shift in one.shifts),
            one.features.text(),
        )
        for way in WAYS
        for distance in DISTANCES_PX
        for kind in joins
        if (one := found.get((way, distance, kind))) is not None
    ]
    report.section(
        f"Drift from the join, {title}",
        f"Bands of {BAND_PX} px, {', '.join(map(str, DISTANCES_PX))} px from the join as far as "
        "there are any, against the given picture's own band along it: shifts in grey levels of "
        "the mean, the spread, the range of the three colours and the step from pixel to pixel, "
        "and the distance of mean EfficientNet-Lite0 features. Real pictures change too: up is "
        "sky. What is painted should move as far as they do.",
        ("band", "", "pictures", *LOOKS, "features"),
        rows,
    )


def evaluate(
    model: Checkpoint, lite0: Lite0, studio: Studio, data: Path, count: int, out: Path
) -> Report:
    """Every world's outpainting.

    Args:
        model: what paints.
        lite0: the features.
        studio: where it paints.
        data: the packed data set.
        count: pictures of each world.
        out: folder for the contact sheets.
    """
    report = Report(f"Outpainting by model `{model.digest[:16]}…`")
    held = [one for one in pictures.load(data) if one.held_out]
    for world, about in model.worlds.items():
        own = [one for one in held if one.world == world]
        if not own:
            continue
        found = cases(own, CASE_PX[about.extent.kind], count)
        for setup in setups(about.extent):
            measure(report, lite0, studio, world, setup, found, out)
    return report


def main(
    data: Annotated[Path, typer.Option(help="packed data set")],
    out: Annotated[Path, typer.Option(help="folder for the report")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    number: Annotated[
        int, typer.Option("--pictures", min=2, help="held-out pictures of each world")
    ] = 10,
    cache: Annotated[
        Path | None,
        typer.Option(help="folder for what is painted and seen; OUT/cache if not given"),
    ] = None,
    workers: Annotated[int, typer.Option(help="cores to use")] = 2,
) -> None:
    """Evaluate a checkpoint's outpainting."""
    out.mkdir(parents=True, exist_ok=True)
    cache = cache or out / "cache"
    loaded = checkpoint.load(model)
    studio = Studio(loaded, cache / "pictures", workers)
    lite0 = Lite0(cache / "features", workers)
    report = evaluate(loaded, lite0, studio, data, number, out)
    (out / "report.md").write_text(report.text(), encoding="utf-8")
    typer.echo(report.text())


if __name__ == "__main__":
    run(lambda: typer.run(main))
