"""Evaluate repainting: ``python -m training.repainting --out FOLDER``.

A rectangle in the middle of what each seed shows is painted anew, as another try and by other
words. Leaves ``report.md`` with the seams along its four sides, beside the same lines of the canvas
as it was, and contact sheets.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from handscroll import checkpoint
from handscroll.canvas import Branch, Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.cli import run
from handscroll.geometry import Region
from handscroll.paint import Painter
from training import samples
from training.evaluate import Report
from training.joins import WAYS, add_segments, strip
from training.pictures import Pixels
from training.seams import Seams

TRIES: dict[str, dict[str, str]] = {
    "scroll": {"another try": "", "other words": "snowy mountains under a blue sky"},
    "plane": {"another try": "", "other words": "a sandy desert"},
}
"""What the rectangle is painted anew by, by the extent of its world."""


def middle(shown: Region) -> Region:
    """The rectangle that is painted anew: half as high and as wide, on tokens of level 0."""
    step = 16 * 2**shown.level
    height, width = (size // (2 * step) * step for size in (shown.height, shown.width))
    top, left = (
        (start + size // 4) // step * step
        for start, size in ((shown.top, shown.height), (shown.left, shown.width))
    )
    return Region(shown.level, top, left, height, width)


def repainted(
    model: Checkpoint, canvas: Canvas, prompt: str, shown: Region, workers: int
) -> tuple[Pixels, Pixels]:
    """What is shown of a canvas, as it was and with its middle painted anew."""
    place = middle(shown)
    branch = Branch(canvas.id, place.top, place.left, place.height, place.width)
    again = replace(canvas, seed=canvas.seed + 1, prompt=prompt, branch=branch)
    with Painter(model, canvas, workers) as parent:
        before = np.concatenate(list(parent.region(shown)))
        with Painter(model, again, workers, parent=parent) as painter:
            return before, np.concatenate(list(painter.region(shown)))


def measure(
    report: Report, model: Checkpoint, world: str, name: str, number: int, workers: int, out: Path
) -> None:
    """Repaint the seeds of a world in one way: a section of the report, and a contact sheet."""
    extent = model.world(world).extent
    shown = samples.view(extent, extent.finest)
    place, prompt = middle(shown), TRIES[extent.kind][name]
    kinds = {"before": Seams(), "painted anew": Seams()}
    sheet = []
    for seed in range(number):
        canvas = Canvas(model.digest, world, seed, extent, sampling=model.sampling)
        made = repainted(model, canvas, prompt, shown, workers)
        for seams, pixels in zip(kinds.values(), made, strict=True):
            for way in WAYS:
                found = strip(pixels, shown, place, way)
                assert found is not None, "what is shown goes on in all directions"
                add_segments(seams, way, f"{seed}", found)
        sheet.append(samples.compared(*made, shown, place))
    file = f"{world}_{name.replace(' ', '_')}.webp"
    Image.fromarray(samples.rows(sheet, 4)).save(out / file, quality=90)
    found_by = {
        (kind, way): ratio for kind, seams in kinds.items() for way, _, ratio in seams.ratios()
    }
    for way in WAYS:
        ratio = found_by["painted anew", way]
        report.seam_target(f"{world}, {name}: seam {way}", ratio)
    report.section(
        f"{world}, {name}",
        f"{place.height} × {place.width} px in the middle of {number} seeds are painted anew"
        f"{f', by “{prompt}”' if prompt else ''} (`{file}`: before above after). How much changes "
        "across a side of the rectangle (squared step between pixels), over that 16 and 32 px to "
        "both sides of it; 1.00 is no seam. Beside it the same lines before.",
        ("direction", *kinds),
        [(way, *(found_by[kind, way].text() for kind in kinds)) for way in WAYS],
    )


def main(
    out: Annotated[Path, typer.Option(help="folder for the report")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    number: Annotated[int, typer.Option("--samples", min=2, help="seeds of each world")] = 8,
    workers: Annotated[int, typer.Option(help="cores to use")] = 2,
) -> None:
    """Evaluate how a checkpoint repaints."""
    out.mkdir(parents=True, exist_ok=True)
    loaded = checkpoint.load(model)
    report = Report(f"Repainting by model `{loaded.digest[:16]}…`")
    for world, about in loaded.worlds.items():
        for name in TRIES[about.extent.kind]:
            measure(report, loaded, world, name, number, workers, out)
    (out / "report.md").write_text(report.text(), encoding="utf-8")
    typer.echo(report.text())


if __name__ == "__main__":
    run(lambda: typer.run(main))
