"""Evaluate a checkpoint: ``python -m training.evaluate --data DATA --tokens FILE --out FOLDER``.

Leaves ``report.md``, every figure explained in a line and the targets on top, and pictures beside
it, unselected unless they say so. Painted pictures and features are kept in a cache under the
model's digest: a run that was stopped goes on, and one repeated only computes the figures.

What is measured is in `training.likelihood` (tokenizer and decoder by themselves),
`training.seams` and `training.quality` (what is painted).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from handscroll import checkpoint
from handscroll.cli import run
from handscroll.geometry import Extent, Region
from handscroll.order import Lattice
from training import pictures, quality, samples
from training.captions import landscapes
from training.examples import Dataset
from training.features import Lite0, reconstructed
from training.likelihood import decoder_rows, tokenizer_rows
from training.metrics import Estimate
from training.pictures import Picture, Pixels
from training.samples import STEP_PX, Studio, view
from training.seams import Seams, lattice_kind, line_kind, measure_seams, tile_seams

SCROLL_PX, STRIP_PX = 20_000, 2_000
PLANE_PX = 4_096
SEAM = (0.95, 1.05)
COPIES = 0.02
FOLLOWED = 0.8
PROMPTED = 6


@dataclass
class Report:
    """A Markdown file in the making: targets, if any, then sections as they were added."""

    title: str
    targets: list[tuple[str, str, str, bool]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def section(
        self, title: str, text: str, header: Sequence[str], rows: Iterable[Sequence[str]]
    ) -> None:
        """A title, what the figures mean, and a table of them."""
        self.parts += [f"\n## {title}\n\n{text}\n", table(header, rows)]
        typer.echo(f"measured: {title}")

    def target(self, what: str, wanted: str, measured: str, met: bool) -> None:
        """One thing aimed at."""
        self.targets.append((what, wanted, measured, met))

    def seam_target(self, what: str, ratio: Estimate) -> None:
        """One kind of border, at which as much is to change as beside it."""
        low, high = SEAM
        met = low <= ratio.value <= high
        self.target(what, f"{low} to {high}", ratio.text(), met)

    def text(self) -> str:
        """The file."""
        head = [f"# {self.title}\n\nIn brackets: 5 % and 95 % of a bootstrap over pictures.\n"]
        if self.targets:
            rows = [(*row, "met" if met else "**missed**") for *row, met in self.targets]
            head.append(table(("target", "wanted", "measured", ""), rows))
        return "\n".join([*head, *self.parts]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def closeness_section(
    report: Report,
    lite0: Lite0,
    studio: Studio,
    painted: Sequence[Picture],
    held: Sequence[Picture],
    train: Sequence[Picture],
) -> None:
    """KID and Fréchet distance of samples, damages and reconstructions, by level."""
    world = painted[0].world
    enough = len(held) >= quality.ENOUGH_PICTURES
    real, which = (held, "held-out") if enough else (train, "training")
    changes = [(change.name, change) for change in quality.DAMAGES]
    changes.append(("the tokenizer's reconstructions", reconstructed(studio.model.tokenizer)))
    rows, counts = quality.closeness(lite0, painted, real, changes)
    named = {row.name: row for row in rows}
    for level in range(len(counts)):
        sample, bar = (named[name].kid[level] for name in ("samples", quality.YARDSTICK.name))
        if sample is not None and bar is not None:
            report.target(
                f"{world}, level {level}: KID of samples",
                f"≤ {bar.value * 1000:.2f}, that of blur of 2 px",
                sample.text(scale=1000),
                sample.value <= bar.value,
            )
    sample_row, *damages = rows
    sample_row = sample_row._replace(name="**samples**")
    lines = [sample_row, *damages]
    if enough:
        (seen,), _ = quality.closeness(lite0, painted, train, ())
        lines.insert(1, seen._replace(name="samples, against training pictures"))
    report.section(
        f"Closeness to real pictures, {world}",
        "KID × 1000: kernel distance of EfficientNet-Lite0 features between blocks (224 px, or as "
        f"wide as a lower picture is high) of {len(painted)} painted pictures and of {len(real)} "
        f"real {which} ones; 0 is the same kind of picture, above is worse. Damaged copies of the "
        "same real pictures give the scale; what the tokenizer cannot reconstruct, no sample can "
        "have.",
        ("", *(f"level {level}" for level in range(len(counts)))),
        [(row.name, *(one.text(scale=1000) if one else "–" for one in row.kid)) for row in lines],
    )
    report.section(
        f"Fréchet distance (EfficientNet-Lite0), {world}",
        "The same features, compared by mean and covariance. It is larger the fewer blocks there "
        "are, so it is comparable within a column only; it has no interval.",
        ("", *(f"level {level}, {count} blocks" for level, count in enumerate(counts))),
        [
            (row.name, *(f"{one:.2f}" if one is not None else "–" for one in row.frechet))
            for row in (sample_row, *damages)
        ],
    )


def seam_view(extent: Extent, at_px: int) -> Region:
    """Four times as much as `view`: that has three borders of a kind, of which each is another."""
    level, top, left, height, width, frame = view(extent, extent.finest, at_px)
    if extent.kind == "scroll":
        return Region(level, top, left - 3 * width // 2, height, 4 * width, frame)
    return Region(level, top - height // 2, left - width // 2, 2 * height, 2 * width, frame)


def seam_section(
    report: Report, studio: Studio, world: str, number: int, held: Sequence[Picture]
) -> None:
    """Seam ratios at the finest level of so many seeds, and of real pictures."""
    extent = studio.model.world(world).extent
    found, real = Seams(), Seams()
    kind = lattice_kind(Lattice(extent), extent.finest)
    for seed in range(number):
        region = seam_view(extent, STEP_PX * seed)
        (pixels,) = studio.paint(studio.canvas(world, seed), [region])
        measure_seams(found, f"seed {seed}", pixels, region, kind)
        tile_seams(found, f"seed {seed}", pixels, region, extent)
    for picture in held:
        pixels = picture.levels[-1][:2048]
        region = Region(extent.finest, 0, 0, *pixels.shape[:2])
        measure_seams(real, picture.name, pixels, region, line_kind)
    rows = []
    for name, segments, ratio in found.ratios():
        rows.append((name, str(segments), ratio.text()))
        if "-" in name:
            report.seam_target(f"{world}: seam {name}", ratio)
    rows += [
        (f"real pictures: {name}", str(count), one.text()) for name, count, one in real.ratios()
    ]
    report.section(
        f"Seams, {world}",
        "How much changes across a border (squared step between pixels), over that 16 and 32 px "
        f"beside it; 1.00 is no seam. Of views of {number} seeds, four times as large as the "
        "pictures. The way goes from the patch drawn first to the one that saw it. Borders of "
        "tokens are compared with the pixels 5 to 10 px from them.",
        ("border", "segments", "ratio"),
        rows,
    )


def drift_section(report: Report, lite0: Lite0, studio: Studio, painted: Sequence[Picture]) -> None:
    """Whether places far away look as those at the origin do."""
    world = painted[0].world
    found = quality.drift(lite0, studio, painted)
    for one in found[-1:]:
        if one.kid:
            report.target(
                f"{world}: KID between {one.distance_px:,} px away and the origin",
                "0 within its interval",
                one.kid.text(scale=1000),
                one.kid.low <= 0,
            )
    report.section(
        f"Drift with distance, {world}",
        f"The same {len(painted)} seeds far from the origin, less near to it, level 1. In grey "
        "levels of 0 to 255: the mean, the spread, the range of the three colours, the step from "
        "pixel to pixel. KID × 1000 between the two.",
        ("distance at level 2", *quality.LOOKS, "KID"),
        [
            (
                f"{one.distance_px:,} px",
                *(shift.text(1) for shift in one.shifts),
                one.kid.text(scale=1000) if one.kid else "–",
            )
            for one in found
        ],
    )


def trend_section(report: Report, studio: Studio, world: str, out: Path) -> None:
    """One long scroll, looked at in sections, and in strips as a picture."""
    canvas = studio.canvas(world, 0)
    level = canvas.extent.finest
    height = canvas.extent.size(level)[0]
    assert height is not None
    (scroll,) = studio.paint(canvas, [Region(level, 0, 0, height, SCROLL_PX)])
    strips = [scroll[:, start : start + STRIP_PX] for start in range(0, SCROLL_PX, STRIP_PX)]
    Image.fromarray(samples.rows(strips, 1)).save(out / f"long_{world}.webp", quality=90)
    report.section(
        f"Along one {world} of {SCROLL_PX:,} px",
        "Seed 0, in sections of 1,000 px; the trend is the change from end to end of a straight "
        "line through them, its interval from resampling sections. Sections beside each other are "
        "alike, so the interval is too narrow.",
        ("grey levels", "1st quarter", "2nd", "3rd", "4th", "trend"),
        [
            (name, *(f"{value:.1f}" for value in quarters), change.text(1))
            for name, quarters, change in quality.trend(scroll)
        ],
    )


def copies_section(
    report: Report,
    lite0: Lite0,
    painted: Sequence[Picture],
    held: Sequence[Picture],
    train: Sequence[Picture],
    mirrored: bool,
    out: Path,
) -> None:
    """Whether samples lie too near to training pictures, and those that lie nearest."""
    world = painted[0].world
    found = quality.memorisation(lite0, painted, held, train, mirrored)
    shown: list[Pixels] = []
    for one in found:
        report.target(
            f"{world}: copies, by {one.measure}",
            f"≤ {COPIES:.0%}",
            f"{one.share.text(1, 100)} %",
            one.share.value <= COPIES,
        )
        shown += [sample for sample, _ in one.pairs] + [crop for _, crop in one.pairs]
    Image.fromarray(samples.rows(shown, len(found[0].pairs))).save(out / f"nearest_{world}.png")
    report.section(
        f"Memorisation, {world}",
        "For each painted block that shows something the nearest training block of its level: in "
        f"EfficientNet-Lite0 features, and as {quality.THUMBNAIL} × {quality.THUMBNAIL} mean "
        f"colours at all places{', mirrored too' if mirrored else ''}, up to brightness and "
        "contrast. A copy is one nearer than the nearest 1 % of held-out blocks are, so 1 % is "
        "what real pictures score. The ratio is that of median distances: below 1, samples lie "
        "nearer to training than other real pictures do. Smooth blocks lie near to much without "
        f"being copies: `nearest_{world}.png` has the nearest ones of each measure above their "
        "training blocks.",
        ("measure", "copies, %", "ratio", "painted blocks", "held-out blocks"),
        [
            (one.measure, one.share.text(1, 100), f"{one.ratio:.2f}", *map(str, one.blocks))
            for one in found
        ],
    )


def prompt_section(
    report: Report,
    lite0: Lite0,
    studio: Studio,
    world: str,
    real: Sequence[Picture],
    tags: dict[str, tuple[str, ...]],
    seeds: int,
    out: Path,
) -> None:
    """Whether prompts change what is painted into what they ask for, and what they do."""
    found = list(quality.following(lite0, studio, world, real, tags, seeds))
    said = {
        "prompts": [(prompt, "") for prompt in ("", *quality.PROMPTS.values())],
        "negatives": [
            (quality.PROMPTS[other], negative)
            for tag, other in quality.BESIDE.items()
            for negative in ("", quality.PROMPTS[tag])
        ],
    }
    few = min(seeds, PROMPTED)
    for name, pairs in said.items():
        shown = [
            square
            for prompt, negative in pairs
            for square in quality.asked(studio, world, prompt, few, negative)
        ]
        Image.fromarray(samples.rows(shown, few)).save(out / f"{name}.webp")
    for one in found:
        report.target(
            f"{world}: “{one.tag}” is followed, AUC",
            f"≥ {FOLLOWED:.2f}",
            one.painted.text(),
            one.painted.value >= FOLLOWED,
        )
    report.section(
        f"Prompts, {world}",
        f"{seeds} seeds painted with a prompt and with none, told apart by a linear classifier of "
        "EfficientNet-Lite0 features fitted on real photographs with and without the tag. AUC: how "
        "often it scores the picture with the prompt higher; 0.50 is chance. Its own AUC is on "
        "photographs that it was not fitted on: what it cannot see there, it cannot judge here. "
        "As a negative prompt each is taken from another tag's prompt, the same seeds painted with "
        "and without it; below 0.50, less is seen of it. `prompts.webp` has a row for no prompt "
        "and for each; `negatives.webp`, for each, one of the other prompt and one without it.",
        (
            "tag",
            "photographs",
            "AUC of the classifier",
            "AUC of the prompt",
            "AUC as a negative prompt",
            "of",
            "prompt",
        ),
        [
            (
                one.tag,
                str(one.photographs),
                one.judge.text(),
                one.painted.text(),
                quality.shunned(lite0, studio, world, one, seeds).text(),
                quality.BESIDE[one.tag],
                prompt,
            )
            for one, prompt in zip(found, quality.PROMPTS.values(), strict=True)
        ],
    )


def sheets(studio: Studio, painted: Sequence[Picture], out: Path) -> None:
    """Seeds 0 to 15 at every level, unselected; a large region of a plane."""
    world = painted[0].world
    for level in range(len(painted[0].levels)):
        shown = samples.rows([one.levels[level] for one in painted[:16]], 4)
        Image.fromarray(shown).save(out / f"seeds_{world}_{level}.webp", quality=90)
    canvas = studio.canvas(world, 0)
    if canvas.extent.kind == "plane":
        region = Region(canvas.extent.finest, -PLANE_PX // 2, -PLANE_PX // 2, PLANE_PX, PLANE_PX)
        (pixels,) = studio.paint(canvas, [region])
        Image.fromarray(pixels).save(out / f"large_{world}.webp", quality=90)


def main(
    data: Annotated[Path, typer.Option(help="packed data set")],
    tokens: Annotated[Path, typer.Option(help="file written by training.encode")],
    out: Annotated[Path, typer.Option(help="folder for the report")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    number: Annotated[
        int, typer.Option("--samples", min=2, help="pictures painted of each world")
    ] = 16,
    cache: Annotated[
        Path | None,
        typer.Option(help="folder for what is painted and seen; OUT/cache if not given"),
    ] = None,
    workers: Annotated[int, typer.Option(help="cores to use")] = 2,
) -> None:
    """Evaluate a checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    cache = cache or out / "cache"
    loaded = checkpoint.load(model)
    studio = Studio(loaded, cache / "pictures", workers)
    lite0 = Lite0(cache / "features", workers)
    everything = pictures.load(data)
    report = Report(f"Model `{loaded.digest[:16]}…`")
    held_out = [one for one in everything if one.held_out]
    report.section(
        "Tokenizer",
        "Held-out crops of 160 px, encoded and decoded again: `reconstructions.png`.",
        ("what", "measured"),
        tokenizer_rows(loaded, held_out, out),
    )
    report.section(
        "Decoder",
        "Surprise at the codes of held-out patches, in nats per code; lower is better. Below, one "
        "source of what a patch sees is hidden, or another patch's: the rise is what it is worth.",
        ("what", "nats per code"),
        decoder_rows(loaded.decoder, Dataset.load(tokens)),
    )
    tags = data / "landscapes" / "captions.csv"
    for world, about in loaded.worlds.items():
        real = [band for one in everything if one.world == world for band in quality.bands(one)]
        held = [one for one in real if one.held_out]
        train = [one for one in real if not one.held_out]
        scroll = about.extent.kind == "scroll"
        painted = studio.pictures(world, number)
        sheets(studio, painted, out)
        closeness_section(report, lite0, studio, painted, held, train)
        seam_section(report, studio, world, number, held)
        drift_section(report, lite0, studio, painted[: max(2, number // 2)])
        if scroll:
            trend_section(report, studio, world, out)
        copies_section(report, lite0, painted, held, train, scroll, out)
        if scroll and tags.exists():
            prompt_section(
                report,
                lite0,
                studio,
                world,
                real,
                {name: one.tags for name, one in landscapes(tags).items()},
                number,
                out,
            )
        (out / "report.md").write_text(report.text(), encoding="utf-8")
    typer.echo(report.text())


if __name__ == "__main__":
    run(lambda: typer.run(main))
