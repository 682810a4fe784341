"""Evaluate motion: ``python -m training.animation --data DATA --out FOLDER``.

Held-out pictures become the first frames of films, and films are painted from words alone. What
should stand still is looked at for flicker, what should move for whether it moves as the words say.
Leaves ``report.md`` and filmstrips. The made-up films that the words were learned from are measured
beside, as they are and through the tokenizer: no painter can do better than the latter. What is
painted is kept in a cache: a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from handscroll import checkpoint
from handscroll.canvas import Canvas, Known
from handscroll.checkpoint import Checkpoint
from handscroll.cli import run
from handscroll.context import Codes
from handscroll.geometry import MAX_FRAMES, PATCH_PX, Extent, Mask, Region
from handscroll.known import digest_of
from handscroll.paint import Painter
from handscroll.tokenizer import Tokenizer, from_rgb, to_rgb
from training import motion, pictures, samples
from training.evaluate import Report
from training.metrics import Estimate, Floats, bootstrap
from training.movement import (
    brightening,
    changes,
    displacement,
    sky_rows,
    token_changes,
    tokens_within,
)
from training.pictures import Picture, Pixels

EARTH_PX = (512, 1024)
VIDEO_PX = (704, 1408)
SURE = 0.98
"""Share of a pixel that must be sky, or water, to count as such."""
MOVES_GREY = 4
"""Snow comes or goes where a made-up film changes by more than this."""
LEAST_SKY_PX = 64
"""Of a lower sky it cannot be told where it moves."""
STRIP_HEIGHT_PX = 176

LEFT, RIGHT = motion.PANS
SIGNS = {
    motion.CLOUDS_RIGHT: 1,
    motion.CLOUDS_LEFT: -1,
    RIGHT: -1,
    LEFT: 1,
    motion.FREEZE: 1,
    motion.THAW: -1,
}
"""Which way words ask for: right and brighter are up. What a camera sees goes the other way."""
ASKED = {
    motion.CLOUDS_RIGHT: "px a frame to the right",
    motion.CLOUDS_LEFT: "px a frame to the left",
    RIGHT: "px a frame to the left",
    LEFT: "px a frame to the right",
    motion.WAVES: "grey levels that water changes by in a frame",
    motion.FREEZE: "grey levels that land brightens by in a frame",
    motion.THAW: "grey levels that land darkens by in a frame",
}
PROMPTS = {
    motion.CLOUDS_RIGHT: "White clouds in a blue sky over green hills",
    motion.CLOUDS_LEFT: "White clouds in a blue sky over green hills",
    motion.WAVES: "Waves roll in from a wide blue sea",
}
"""What films painted from words alone show."""

PAINTED, WORDLESS = "painted", "painted, nothing said of motion"
MADE, CODED = "made-up film", "made-up film, through the tokenizer"


class Scene(NamedTuple):
    """Something to make a film of.

    Attributes:
        name: of the picture, or of the seed.
        world: it belongs to.
        words: what is to move.
        prompt: what it shows.
        seed: of the canvas.
        first: the first frame (H, W, 3); None to paint it too.
        moving: what is to move (H, W).
        still: what is not.
        film: the made-up one; None where there is none.
    """

    name: str
    world: str
    words: str
    prompt: str
    seed: int
    first: Pixels | None
    moving: Mask
    still: Mask
    film: motion.Film | None


class Film(NamedTuple):
    """Frames (H, W, 3) and their tokens (F, h, w, K)."""

    frames: Sequence[Pixels]
    codes_FhwK: Codes


def photographed(held: Sequence[Picture], frames: int, count: int) -> Iterator[Scene]:
    """Scenes of held-out photographs that have what the words move, the first ones by name."""
    made: dict[str, int] = {}
    for picture in held:
        pixels, horizon, finest = picture.levels[-1], picture.horizon, len(picture.levels) - 1
        everywhere = np.ones(pixels.shape[:2], np.float32)
        films = [(motion.panned(pixels, words, finest), everywhere) for words in motion.PANS]
        if picture.clouds:
            for right in (False, True):
                drifting = motion.clouds(pixels, horizon, right, finest)
                if drifting is not None:
                    films.append((drifting, motion.sky(pixels, horizon)))
        if picture.water is not None:
            rolling = motion.waves(pixels, picture.water, horizon, finest)
            films.append((rolling, picture.water.astype(np.float32)))
        for film, share_HW in films:
            if made.get(film.words, 0) < count:
                seed = made[film.words] = made.get(film.words, 0) + 1
                yield Scene(
                    picture.name,
                    "scroll",
                    film.words,
                    picture.caption,
                    seed,
                    film.frame(0),
                    share_HW > SURE,
                    _spread(film, frames) == 0,
                    film,
                )


def mapped(held: Picture, frames: int, count: int) -> Iterator[Scene]:
    """Scenes of the held-out part of the relief map: where the most snow comes, or goes."""
    height, width = EARTH_PX
    finest, tall = len(held.levels) - 1, len(held.levels[-1])
    for freezes in (False, True):
        found = []
        for top in range(0, tall - height + 1, motion.EARTH_STEP_PX):
            part = motion.cut(held, top, 0, height, width)
            film = motion.seasons(part, freezes, finest)
            spread_HW = _spread(film, frames)
            found.append(((spread_HW > MOVES_GREY).mean(), top, film, spread_HW))
        found.sort(key=lambda one: one[:2], reverse=True)
        for seed, (_, top, film, spread_HW) in enumerate(found[:count], start=1):
            yield Scene(
                f"{held.name} {top}",
                "planet",
                film.words,
                "",
                seed,
                film.frame(0),
                spread_HW > MOVES_GREY,
                spread_HW == 0,
                film,
            )


def _spread(film: motion.Film, frames: int) -> NDArray[np.int16]:
    """How much each pixel (H, W) of a made-up film changes in all, in grey levels."""
    made = np.stack([film.frame(number) for number in range(frames)]).astype(np.int16)
    spread: NDArray[np.int16] = np.ptp(made, axis=0).max(axis=-1)
    return spread


def imagined(count: int) -> Iterator[Scene]:
    """Scenes from words alone: above lies what clouds are in, below what water is."""
    height, width = VIDEO_PX
    above = np.arange(height)[:, None] < height // 4
    below = np.arange(height)[:, None] >= height - height // 4
    for words, prompt in PROMPTS.items():
        parts = (below, above) if words == motion.WAVES else (above, below)
        moving, still = (np.repeat(part, width, axis=1) for part in parts)
        for seed in range(1, count + 1):
            yield Scene(f"seed {seed}", "scroll", words, prompt, seed, None, moving, still, None)


@dataclass(frozen=True)
class Cinema:
    """Paints films, and keeps what it painted: a second run finds it there.

    Attributes:
        model: what paints.
        folder: where films are kept, under their canvas' id.
        workers: cores to use.
    """

    model: Checkpoint
    folder: Path
    workers: int

    def canvas(self, scene: Scene, frames: int) -> Canvas:
        """The canvas of a scene: a picture as large as its masks."""
        height, width = scene.moving.shape
        known = None
        if scene.first is not None:
            known = Known(digest_of(scene.first), 0, 0, height, width)
        return Canvas(
            self.model.digest,
            scene.world,
            scene.seed,
            Extent("picture", self.model.world(scene.world).extent.finest, height, width),
            scene.prompt,
            frames=frames,
            sampling=self.model.sampling,
            known=known,
            motion=scene.words,
        )

    def film(self, scene: Scene, frames: int) -> Film:
        """A scene's film."""
        canvas = self.canvas(scene, frames)
        path = self.folder / f"{canvas.id}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".new")
            with aside.open("wb") as file:
                np.savez_compressed(file, **self._paint(canvas, scene)._asdict())
            aside.replace(path)
        with np.load(path) as found:
            return Film(list(found["frames"]), found["codes_FhwK"])

    def _paint(self, canvas: Canvas, scene: Scene) -> Film:
        height, width = scene.moving.shape
        region = Region(canvas.extent.finest, 0, 0, height, width, canvas.frames - 1)
        with (
            Progress(transient=True) as progress,
            Painter(
                self.model,
                canvas,
                self.workers,
                on_patch=lambda _: progress.advance(task),
                picture=scene.first,
            ) as painter,
        ):
            task = progress.add_task(f"{scene.name}: {scene.words}", total=None)
            progress.reset(task, total=len(painter.cone(region)))
            frames, codes = [], []
            for frame in range(canvas.frames):
                part = region._replace(frame=frame)
                frames.append(np.concatenate(list(painter.region(part))))
                codes.append(samples.codes_of(painter, part))
        return Film(frames, np.stack(codes))


@torch.inference_mode()
def coded(tokenizer: Tokenizer, frames: Sequence[Pixels]) -> Film:
    """Frames, encoded and decoded again."""
    codes, pixels = [], []
    for frame in frames:
        found = tokenizer.encode(from_rgb(torch.from_numpy(frame.copy())[None]))
        height, width, _ = frame.shape
        inside = torch.ones(found.shape[:3], dtype=torch.bool)
        decoded = tokenizer.decode(found, inside, (slice(0, height), slice(0, width)))
        codes.append(found[0].to(torch.uint8).numpy())
        pixels.append(to_rgb(decoded[0]).numpy())
    return Film(pixels, np.stack(codes))


class Figures(NamedTuple):
    """What is measured of one film, over its steps.

    Attributes:
        still: change where nothing should, in grey levels a step.
        first: the same at the first step, from a given picture to what is painted; or NaN.
        tokens: share of the tokens there that change at a step.
        moving: change where something should.
        asked: how much it moves as the words ask, see ASKED.
        right: share of the steps at which it moves that way; NaN where there is no way.
    """

    still: float
    first: float
    tokens: float
    moving: float
    asked: float
    right: float


def figures(film: Film, scene: Scene, f: int) -> Figures:
    """Measure a film of a scene.

    Args:
        film: it.
        scene: what it is of.
        f: pixels to a token's side.
    """
    begin = 1 if scene.first is not None else 0  # the first is a photograph, not painted
    still = changes(film.frames, scene.still)
    tokens = token_changes(film.codes_FhwK, tokens_within(scene.still, f))
    moving = changes(film.frames, scene.moving)[begin:]
    asked = along(film.frames[begin:], scene)
    return Figures(
        float(still[begin:].mean()),
        float(still[0]) if begin else np.nan,
        float(tokens[begin:].mean()),
        float(moving.mean()),
        float(moving.mean() if asked is None else asked.mean()),
        np.nan if asked is None or np.isnan(asked).any() else float((asked > 0).mean()),
    )


def along(frames: Sequence[Pixels], scene: Scene) -> Floats | None:
    """How much each step goes the way that the words name; None where they name none."""
    if scene.words not in SIGNS:
        return None
    if scene.world == "planet":
        return SIGNS[scene.words] * brightening(frames, scene.moving)
    rows = sky_rows(scene.moving)
    if rows < LEAST_SKY_PX:
        return np.full(len(frames) - 1, np.nan)
    steps = zip(frames, frames[1:], strict=False)
    moved = [displacement(before[:rows], after[:rows])[1] for before, after in steps]
    return SIGNS[scene.words] * np.array(moved, np.float64)


@dataclass
class Table:
    """The figures of all films of some words, by what made them."""

    films: dict[str, list[Figures]] = field(default_factory=dict)

    def add(self, kind: str, found: Figures) -> None:
        """One film's."""
        self.films.setdefault(kind, []).append(found)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Lines of a report."""
        digits = {"still": 2, "first": 2, "tokens": 1, "moving": 2, "asked": 2, "right": 0}
        scale = {"tokens": 100.0, "right": 100.0}
        for kind, found in self.films.items():
            cells = []
            for name in Figures._fields:
                estimate = self.estimate(kind, name)
                cells.append(estimate.text(digits[name], scale.get(name, 1.0)) if estimate else "–")
            yield kind, str(len(found)), *cells

    def estimate(self, kind: str, name: str) -> Estimate | None:
        """The mean of one figure over the films that have it; None if fewer than two do."""
        values = np.array([getattr(one, name) for one in self.films[kind]])
        values = values[~np.isnan(values)]
        if len(values) < 2:
            return None
        return bootstrap(lambda drawn: float(values[drawn].mean()), len(values))


def filmstrip(films: Sequence[Film]) -> Pixels:
    """Films below each other, the frames of each from left to right."""
    sheet = []
    for film in films:
        for frame in film.frames:
            height, width, _ = frame.shape
            size = (width * STRIP_HEIGHT_PX // height, STRIP_HEIGHT_PX)
            sheet.append(np.asarray(Image.fromarray(frame).resize(size)))
    return samples.rows(sheet, len(films[0].frames))


def measure(
    report: Report, cinema: Cinema, title: str, scenes: Sequence[Scene], frames: int, out: Path
) -> None:
    """Paint films of scenes with the same words, and add their section to the report."""
    words, table, shown = scenes[0].words, Table(), []
    f = PATCH_PX // cinema.model.decoder.config.side
    for scene in scenes:
        shown.append(cinema.film(scene, frames))
        table.add(PAINTED, figures(shown[-1], scene, f))
        silent = cinema.film(scene._replace(words=""), frames)
        table.add(WORDLESS, figures(silent, scene, f))
        if scene.film is not None:
            made = [scene.film.frame(number) for number in range(frames)]
            through = coded(cinema.model.tokenizer, made)
            table.add(MADE, figures(through._replace(frames=made), scene, f))
            table.add(CODED, figures(through, scene, f))
    name = f"{title} {words}".replace(" ", "_") + ".webp"
    Image.fromarray(filmstrip(shown)).save(out / name, quality=90)
    agreement = table.estimate(PAINTED, "right")
    if agreement is not None:
        report.target(
            f"{title}: “{words}” is followed",
            "above 50 % of steps with its interval",
            f"{agreement.text(0, 100)} %",
            agreement.low > 0.5,
        )
    report.section(
        f"“{words}”, {title}",
        f"{len(scenes)} films of {frames} frames, `{name}`. Change in grey levels a step, where "
        "nothing should change, at the first step (from a photograph to what is painted) and at "
        "the others; share of the tokens there that change; change where the words move something; "
        f"how much it moves as asked: {ASKED[words]}; share of the steps that go that way.",
        (
            "",
            "films",
            "still",
            "still, first step",
            "still tokens, %",
            "moving",
            "as asked",
            "steps, %",
        ),
        table.rows(),
    )


def scenes(
    data: Path, worlds: Sequence[str], frames: int, count: int
) -> dict[tuple[str, str], list[Scene]]:
    """All scenes that films are made of, by what they begin with and what moves in them."""
    held = [one for one in pictures.load(data) if one.held_out and one.world in worlds]
    photographs = [one for one in held if one.heights is None]
    kinds = {
        "photographs": photographed(photographs, frames, count),
        "relief map": chain.from_iterable(
            mapped(one, frames, count) for one in held if one.heights is not None
        ),
        "from words": imagined(count) if photographs else iter(()),
    }
    found: dict[tuple[str, str], list[Scene]] = {}
    for kind, some in kinds.items():
        for scene in some:
            found.setdefault((kind, scene.words), []).append(scene)
    return found


def main(
    data: Annotated[Path, typer.Option(help="packed data set")],
    out: Annotated[Path, typer.Option(help="folder for the report")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    number: Annotated[int, typer.Option("--films", min=2, help="of each thing that moves")] = 6,
    frames: Annotated[int, typer.Option(min=3, max=MAX_FRAMES, help="of each film")] = 8,
    cache: Annotated[
        Path | None, typer.Option(help="folder for what is painted; OUT/cache if not given")
    ] = None,
    workers: Annotated[int, typer.Option(help="cores to use")] = 2,
) -> None:
    """Evaluate how a checkpoint's films move."""
    out.mkdir(parents=True, exist_ok=True)
    loaded = checkpoint.load(model)
    cinema = Cinema(loaded, (cache or out / "cache") / "films", workers)
    report = Report(f"Motion by model `{loaded.digest[:16]}…`")
    for (title, _), some in scenes(data, list(loaded.worlds), frames, number).items():
        measure(report, cinema, title, some, frames, out)
        (out / "report.md").write_text(report.text(), encoding="utf-8")
    typer.echo(report.text())


if __name__ == "__main__":
    run(lambda: typer.run(main))
