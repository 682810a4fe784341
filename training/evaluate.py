"""Evaluate a checkpoint on held-out pictures: ``python -m training.evaluate --data DATA --tokens
FILE --out FOLDER``.

Prints one table and leaves it in ``report.md``, pictures beside it:

- the tokenizer: PSNR and code usage for each world, originals beside reconstructions;
- what the decoder has learned: nats per code on held-out patches, against a unigram model, and
  with each source of context taken from another example instead; one-token raster mode beside
  group decoding;
- seams: gradient energy across patch borders over that beside them, by direction (from the patch
  drawn first to the one that saw it) and kind of border, and across tile borders; real photographs
  at the same places of the grid beside them; 1.00 is no seam. "Beside" is 16 and 32 px away, at the
  same place in a token, which tells the seam of patches from the texture of the token grid; that
  texture is its own line: borders of tokens inside patches over the pixels 5 to 10 px from them;
- samples of seeds 0 to 15, unselected, the nearest training crop under each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from handscroll import checkpoint
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.cli import run
from handscroll.context import Context, Source
from handscroll.decoder import Decoder
from handscroll.geometry import PATCH_PX, Patch, Region, tile_region, tiles_of
from handscroll.order import Lattice
from handscroll.sample import token_order
from training import pictures, samples
from training.examples import Dataset, Example, Examples
from training.pictures import Picture, Pixels
from training.train_decoder import evaluate as mean_loss
from training.train_tokenizer import evaluate as reconstruct
from training.train_tokenizer import sheet, to_float

FLAT = 0.1
PHASES = ("seed", "bridge", "fill")


def tokenizer_rows(model: Checkpoint, held: Sequence[Picture], out: Path) -> Iterable[str]:
    """PSNR and usage by world and level, and a sheet of both at the finest level."""
    rng = np.random.default_rng(0)
    shown = []
    for world in model.worlds:
        for level in range(pictures.LEVELS):
            crops = []
            for picture in (one for one in held if one.world == world):
                pixels = picture.levels[level]
                size = 160
                for _ in range(8 if world == "scroll" else 128):
                    top, left = (rng.integers(side - size + 1) for side in pixels.shape[:2])
                    crops.append(pixels[top : top + size, left : left + size])
            psnr, usage, again = reconstruct(model.tokenizer, to_float(crops, "cpu"))
            yield f"| reconstruction, {world}, level {level}: PSNR, dB | {psnr:.2f} |"
            if level == pictures.LEVELS - 1:
                yield f"| reconstruction, {world}: code values in use, worst of K | {usage:.0%} |"
                shown.append((to_float(crops[::8][:16], "cpu"), again[::8][:16]))
    real, painted = (torch.cat(part) for part in zip(*shown, strict=True))
    sheet(out / "reconstructions.png", real, painted)


def borrow(examples: Sequence[Example], source: str) -> list[Example]:
    """The same examples, one source of their context taken from the next one that has as much."""
    result = []
    for number, one in enumerate(examples):
        for other in (*examples[number + 1 :], *examples[:number]):
            mixed = _mixed(one, other, source)
            if mixed is not None:
                result.append(mixed)
                break
    return result


def _mixed(one: Example, other: Example, source: str) -> Example | None:
    """``one`` with a source of ``other``'s context; None if the two do not match."""
    mine, theirs = one.context, other.context
    if source == "text":
        same = one.text is not None and other.text is not None and one.world == other.world
        differ = same and not np.array_equal(one.text, other.text)  # type: ignore[arg-type]
        return one._replace(text=other.text) if differ else None
    if one.world != other.world or mine.patch.level != theirs.patch.level:
        return None
    if source == "field":
        if not len(mine.field_MV) or mine.field_MV.shape != theirs.field_MV.shape:
            return None
        return one._replace(context=replace(mine, field_MV=theirs.field_MV))
    wanted = Source[source.upper()]
    here, there = mine.source_N == wanted, theirs.source_N == wanted
    if not here.any() or not np.array_equal(mine.place_N2[here], theirs.place_N2[there]):
        return None
    codes = mine.codes_NK.copy()
    codes[here] = theirs.codes_NK[there]
    return one._replace(context=replace(mine, codes_NK=codes))


def bare(one: Example) -> Example:
    """An example with nothing to see but its prompt."""
    context = one.context
    return one._replace(
        context=replace(
            context,
            codes_NK=context.codes_NK[:0],
            place_N2=context.place_N2[:0],
            source_N=context.source_N[:0],
            field_MV=context.field_MV[:0],
            field_place_M2=context.field_place_M2[:0],
        )
    )


def has(one: Example, source: str) -> bool:
    """Whether an example's context has a source."""
    context: Context = one.context
    if source == "text":
        return one.text is not None
    if source == "field":
        return len(context.field_MV) > 0
    return bool((context.source_N == Source[source.upper()]).any())


def unigram(data: Dataset, examples: Sequence[Example], vocabulary: int) -> float:
    """Nats per code of held-out tokens under the training tokens' own frequencies, by world."""
    loss, count = 0.0, 0
    for world in range(len(data.worlds)):
        codes = np.concatenate(
            [
                grid.reshape(-1, grid.shape[-1])
                for one in data.pictures
                if one.world == world and not one.held_out
                for grid in one.codes
            ]
        )
        for slot in range(codes.shape[1]):
            seen = np.bincount(codes[:, slot], minlength=vocabulary) + 1
            nats = -np.log(seen / seen.sum())
            for one in examples:
                if one.world == world:
                    loss += float(nats[one.codes_TK[:, slot]].sum())
                    count += len(one.codes_TK)
    return loss / count


def decoder_rows(model: Decoder, data: Dataset) -> Iterable[str]:
    """What the decoder has learned, as held-out nats per code."""
    rng = np.random.default_rng(0)
    held = Examples(data, held_out=True, clean=True)
    examples = [held.draw(rng) for _ in range(192)]
    raster = []
    for one in examples:
        order = token_order(one.context.inside_ss, "raster")
        spread = token_order(one.context.inside_ss, "spread")
        codes = one.codes_TK[np.argsort(spread)]  # back to reading order
        place = np.stack(np.divmod(order, model.config.side), axis=-1).astype(np.float32)
        raster.append(one._replace(codes_TK=codes, place_T2=place, group_T=np.arange(len(order))))
    yield f"| decoder, uniform over codes: nats per code | {np.log(model.config.vocabulary):.3f} |"
    unigrams = unigram(data, examples, model.config.vocabulary)
    yield f"| decoder, unigram of each world | {unigrams:.3f} |"
    yield f"| decoder, group decoding (16 at a time, spread) | {nats(model, examples):.3f} |"
    yield f"| decoder, one-token raster mode, same weights | {nats(model, raster):.3f} |"
    alone = [bare(one) for one in examples if one.context.patch.level == 0]
    for name, some in (
        ("ring", examples),
        ("parent", examples),
        ("field", examples),
        ("text", examples),
        ("text with no other context, level 0", alone),
    ):
        source = name.split()[0]
        own = [one for one in some if has(one, source)]
        mixed = borrow(own, source)
        yield (
            f"| decoder, {name}: its own / another's ({len(mixed)} patches) | "
            f"{nats(model, own):.3f} / {nats(model, mixed):.3f} |"
        )


def nats(model: Decoder, examples: Sequence[Example]) -> float:
    """Held-out nats per code."""
    return mean_loss(model, examples, "cpu")


@dataclass
class Seams:
    """Gradient energy at borders and beside them, summed by kind."""

    at: dict[str, list[float]]
    beside: dict[str, list[float]]

    def add(
        self,
        kind: str,
        grey_HW: NDArray[np.float64],
        column: int,
        gaps: Sequence[int] = (16, 32),
    ) -> None:
        """One border segment, between ``column - 1`` and ``column``, against ``gaps`` px away."""
        steps = np.diff(grey_HW, axis=1) ** 2
        self.at.setdefault(kind, []).append(float(steps[:, column - 1].mean()))
        away = [column - 1 + side * gap for side in (-1, 1) for gap in gaps]
        self.beside.setdefault(kind, []).append(float(steps[:, away].mean()))

    def rows(self) -> Iterable[str]:
        """Geometric mean over segments, and a bootstrap interval.

        Energies are in squared grey levels. Segments with less than 0.1 beside the border are left
        out: in a clear sky the ratio would be one of rounding errors.
        """
        rng = np.random.default_rng(0)
        for kind in sorted(self.at):
            at, beside = np.array(self.at[kind]), np.array(self.beside[kind])
            logs = np.log(at[beside >= FLAT] / beside[beside >= FLAT])
            if not len(logs):
                continue
            draws = rng.integers(len(logs), size=(500, len(logs)))
            low, high = np.exp(np.percentile(logs[draws].mean(axis=1), (5, 95)))
            yield (
                f"| seam ratio, {kind} ({len(logs)} segments) | "
                f"{np.exp(logs.mean()):.2f} ({low:.2f} to {high:.2f}) |"
            )


def measure_seams(seams: Seams, pixels: Pixels, region: Region, name: Callable[..., str]) -> None:
    """All borders of the patch grid inside a painted region, vertical and horizontal ones."""
    grey = pixels.mean(axis=-1)
    for turned in (False, True):
        along, across = (region.left, region.top) if turned else (region.top, region.left)
        picture = grey.T if turned else grey
        height, width = picture.shape
        for line in range(-(-(across + 34) // PATCH_PX), (across + width - 34) // PATCH_PX + 1):
            for start in range(-(-along // PATCH_PX), (along + height) // PATCH_PX):
                top = start * PATCH_PX - along
                part = picture[top : top + PATCH_PX]
                first, second = (start, line - 1), (start, line)
                if turned:
                    first, second = first[::-1], second[::-1]
                column = line * PATCH_PX - across
                seams.add(name(first, second, turned), part, column)
                if 64 <= column <= width - 64:
                    seams.add("token border inside a patch", part, column + 48, range(5, 11))


def lattice_kind(order: Lattice, level: int) -> Callable[..., str]:
    """Names a border by its phases, and by the way from the patch drawn first to the other."""

    def name(first: tuple[int, int], second: tuple[int, int], turned: bool) -> str:
        ranks = [order.rank(Patch(level, 0, *place))[0] for place in (first, second)]
        forward = ranks[0] < ranks[1]
        way = ("down" if forward else "up") if turned else ("right" if forward else "left")
        return f"{PHASES[min(ranks)]}-{PHASES[max(ranks)]} {way}"

    return name


def line_kind(first: tuple[int, int], second: tuple[int, int], turned: bool) -> str:
    """Names a line across a photograph, which nobody drew in an order."""
    return "horizontal" if turned else "vertical"


def tile_seams(seams: Seams, pixels: Pixels, region: Region, canvas: Canvas) -> None:
    """Vertical borders of tiles inside a painted region."""
    grey = pixels.mean(axis=-1)
    for tile in tiles_of(region, canvas.extent):
        corner = tile_region(tile, canvas.extent)
        top, left = corner.top - region.top, corner.left - region.left
        if top >= 0 and 34 <= left <= region.width - 34 and top + PATCH_PX <= region.height:
            seams.add("tile border", grey[top : top + PATCH_PX], left)


def seam_rows(
    model: Checkpoint, held: Sequence[Picture], seeds: int, workers: int, out: Path
) -> Iterable[str]:
    """Seam ratios of painted regions of every world at its finest level, and of photographs."""
    for name, world in model.worlds.items():
        painted, tiles, real = Seams({}, {}), Seams({}, {}), Seams({}, {})
        level, (height, _) = world.extent.finest, world.extent.size(world.extent.finest)
        region = Region(
            level, 0 if height else -640, -900, height or 1100, 1800 if height else 1100
        )
        for seed in track(range(seeds), f"seams, {name}"):
            canvas = Canvas(model.digest, name, seed, world.extent, sampling=model.sampling)
            pixels = samples.paint(model, canvas, region, workers)
            Image.fromarray(pixels).save(out / f"region_{name}_{seed}.png")
            measure_seams(painted, pixels, region, lattice_kind(Lattice(world.extent), level))
            tile_seams(tiles, pixels, region, canvas)
        for picture in (one for one in held if one.world == name):
            found = picture.levels[level][:2048]
            size = Region(level, 0, 0, *found.shape[:2])
            measure_seams(real, found, size, line_kind)
        yield from (row.replace("ratio,", f"ratio, {name},") for row in painted.rows())
        yield from (row.replace("ratio,", f"ratio, {name},") for row in tiles.rows())
        yield from (row.replace("ratio,", f"ratio, {name}, real,") for row in real.rows())


def sample_sheets(
    model: Checkpoint,
    train: Sequence[Picture],
    sampling: Sampling,
    levels: Sequence[int],
    workers: int,
    path: str,
) -> None:
    """Seeds 0 to 15 of every world, the nearest training crop under each."""
    for name in model.worlds:
        for level in levels:
            shown = samples.seeds(model, name, level, range(16), sampling, workers)
            below = nearest(shown, [one.levels[level] for one in train if one.world == name])
            parts = [*shown[:8], *below[:8], *shown[8:], *below[8:]]
            Image.fromarray(samples.rows(parts, 8)).save(f"{path}_{name}_{level}.png")


def nearest(samples: Sequence[Pixels], sources: Sequence[Pixels]) -> list[Pixels]:
    """For each sample the training crop of its size most like it, as thumbnails of 16 by 16."""
    size = samples[0].shape[0]
    best = [np.inf] * len(samples)
    found = list(samples)
    small = np.stack([_thumbnail(one) for one in samples])
    for pixels in sources:
        for top in range(0, pixels.shape[0] - size + 1, size // 2):
            for left in range(0, pixels.shape[1] - size + 1, size // 2):
                crop = pixels[top : top + size, left : left + size]
                distance = ((small - _thumbnail(crop)) ** 2).mean(axis=(1, 2, 3))
                for number in np.flatnonzero(distance < best):
                    best[number], found[number] = float(distance[number]), crop
    return found


def _thumbnail(pixels: Pixels) -> NDArray[np.float64]:
    return np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BOX), float)


def main(
    data: Annotated[Path, typer.Option(help="packed data set")],
    tokens: Annotated[Path, typer.Option(help="file written by training.encode")],
    out: Annotated[Path, typer.Option(help="folder for the report")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    seeds: Annotated[int, typer.Option(help="regions painted for the seams, each world")] = 16,
    workers: int = 2,
) -> None:
    """Evaluate a checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    loaded = checkpoint.load(model)
    everything = pictures.load(data)
    held = [one for one in everything if one.held_out]
    train = [one for one in everything if not one.held_out]
    rows = [f"model `{loaded.digest}`", "", "| what | measured |", "| --- | --- |"]
    for part in (
        tokenizer_rows(loaded, held, out),
        decoder_rows(loaded.decoder, Dataset.load(tokens)),
        seam_rows(loaded, held, seeds, workers, out),
    ):
        for row in part:
            rows.append(row)
            typer.echo(row)
    (out / "report.md").write_text("\n".join(rows) + "\n")
    levels = (0, pictures.LEVELS - 1)
    sample_sheets(loaded, train, loaded.sampling, levels, workers, str(out / "samples"))
    raster = replace(loaded.sampling, group=1, token_order="raster")
    sample_sheets(loaded, train, raster, levels[:1], workers, str(out / "raster"))


if __name__ == "__main__":
    run(lambda: typer.run(main))
