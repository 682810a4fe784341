"""Finish the tokenizer: ``python -m training.train_pixels --data DATA --tokenizer RUN --out RUN``.

What `training.train_tokenizer` leaves is true to the pixels and soft. Here what encodes is frozen,
so that every token keeps its meaning, and what decodes is trained further: on pixels, on the
perceptual distance, and against a critic that asks for texture (VQGAN, Esser et al., arXiv
2012.09841). Tokens are disturbed a little first, as drawn ones are never quite right. With
``--painted``, it also decodes what a decoder has drawn (`training.painted`): there is no picture
that it should equal, but the critic sees it too, and its tones are to stay. At last the grid that
this leaves on all pictures is taken away (`even`). Leaves what `training.train_tokenizer` does, in
a run folder of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from handscroll import cli
from handscroll.tokenizer import Tokenizer, split_cells
from training import pictures, train_tokenizer
from training.critic import Critic, balance, critic_loss
from training.painted import Painted
from training.painted import load as load_painted
from training.perceptual import Perceptual
from training.pictures import Pixels
from training.run import Run, precision
from training.train_tokenizer import CROP_PX, crop, evaluate, pixel_loss, place, sheet, to_float

SEEN_PX = 80
"""Side of the window of each crop that the perceptual distance looks at: it is dear."""
PERCEPTUAL_WEIGHT = 0.5
CRITIC_WEIGHT = 0.5
CRITIC_FROM = 0.1
"""The share of the run in which the critic only learns, before the decoder listens to it."""
TONE_PX, TONE_WEIGHT = 8, 1.0
"""What is decoded from drawn tokens keeps its mean colours of so many pixels to a side."""
DISTURBED = 0.1
"""At most this share of a crop's scalars is moved by a level."""
EVENED, RIDGE, PLAIN = 1024, 0.0001, 0.01
"""How many crops tell what all pictures have alike, how little of that is put down to colour, and
the spread of pixels below which a cell is plain."""


def disturb(rng: np.random.Generator, values_BhwS: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Quantised scalars, some of them a level off; each crop has its own share of them."""
    shape = tuple(values_BhwS.shape)
    share = rng.uniform(0, DISTURBED, (shape[0], 1, 1, 1))
    moved = (rng.random(shape) < share) * rng.choice((-1, 1), shape)
    step = 2 / np.resize(np.array(levels), shape[-1])
    limit = torch.from_numpy(1 - step / 2).to(values_BhwS)
    off = values_BhwS + torch.from_numpy(moved * step).to(values_BhwS)
    return torch.maximum(torch.minimum(off, limit), -limit)


def tones(painted_BHWC: Tensor, before_BHWC: Tensor) -> Tensor:
    """How far mean colours of TONE_PX have come off."""
    parts = (painted_BHWC - before_BHWC).permute(0, 3, 1, 2)
    return F.avg_pool2d(parts, TONE_PX).abs().mean()


def drawn(
    rng: np.random.Generator, sources: Sequence[Painted], count: int, f: int
) -> tuple[Tensor, list[Pixels]]:
    """Tokens (count, h, w, K) of crops of what was painted, and as they were decoded then."""
    codes, pixels = [], []
    for _ in range(count):
        at = place(rng, [one.picture for one in sources], f)
        one = sources[at.number]
        rows, cols = (slice(start // f, (start + CROP_PX) // f) for start in (at.top, at.left))
        codes.append(torch.from_numpy(one.codes[at.level][rows, cols]))
        pixels.append(at.cut(one.picture.levels))
    return torch.stack(codes), pixels


def window(rng: np.random.Generator) -> tuple[slice, slice, slice]:
    """A random window of SEEN_PX in every crop of a batch."""
    top, left = rng.integers(CROP_PX - SEEN_PX + 1, size=2)
    return slice(None), slice(top, top + SEEN_PX), slice(left, left + SEEN_PX)


@torch.no_grad()
def even(model: Tokenizer, crops_BHWC: Iterable[Tensor]) -> None:
    """Take from the last layer what it is wrong by in every cell alike.

    A critic does not mind a grid that is a grey level deep, and people see it in every sky. How far
    a pixel differs from its cell's mean in vain goes, on average, by its place in the cell and, to
    second order, by the cell's colour: the deepest is in red skies, which are rare. As far as what
    the last layer reads tells of colours to second order, it can answer without that. Cells count
    by how plain they are: there it is seen, and little else wrong. Those beside a crop's border do
    not count: tiles are decoded with what lies around them.

    Args:
        model: is changed.
        crops_BHWC: pictures, batch by batch.
    """
    side, margin = model.config.downsampling // model.cells, 2 * model.config.downsampling
    near, inner = (slice(size, -size) for size in (margin // side, margin))
    rows, cols = torch.triu_indices(4, 4)
    reads, colours = 1 + model.config.cell_width, len(rows)
    gram = torch.zeros(reads + colours, reads + colours, dtype=torch.float64)
    wrong = torch.zeros(colours, 3 * side**2, dtype=torch.float64)
    read: list[Tensor] = []
    with model.to_pixels.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])):
        for crops in crops_BHWC:
            found = model.pixels(model.quantizer.values(model.encode(crops)))
            own, real = (
                split_cells(one, side).flatten(0, 2).unflatten(-1, (-1, 3)).double().cpu()
                for one in (found[:, inner, inner], crops[:, inner, inner])
            )
            means = own.mean(1)
            colour = F.pad(means, (1, 0), value=1.0)
            squares = colour[:, rows] * colour[:, cols]  # 1, the colour, and all products of two
            cells = read.pop().permute(0, 2, 3, 1)[:, near, near].flatten(0, 2).double().cpu()
            told = torch.cat((F.pad(cells, (1, 0), value=1.0), squares), dim=1)
            counted = (told / (real.var(1).mean(1, keepdim=True) + PLAIN**2)).T
            grid = (own - means[:, None]) - (real - real.mean(1, keepdim=True))
            gram += counted @ told
            wrong += counted[reads:] @ grid.flatten(1)
    by_colour = _least_squares(gram[reads:, reads:], wrong)
    by_read = _least_squares(gram[:reads, :reads], gram[:reads, reads:]) @ by_colour
    weight, bias = model.to_pixels.parameters()
    weight[:, :, 1, 1].sub_(by_read[1:].T.to(weight))
    bias.sub_(by_read[0].to(bias))


def _least_squares(gram: Tensor, wanted: Tensor) -> Tensor:
    """What is to be multiplied by, kept small by RIDGE."""
    return torch.linalg.solve(gram + RIDGE * gram.diag().diag(), wanted)


def main(
    data: Annotated[Path, typer.Option(help="packed data set, or any folder of pictures")],
    tokenizer: Annotated[Path, typer.Option(help="run folder of training.train_tokenizer")],
    out: Annotated[Path, typer.Option(help="run folder; an earlier run there is resumed")],
    world: Annotated[str | None, typer.Option(help="world of a plain folder")] = None,
    painted: Annotated[
        Path | None, typer.Option(help="file written by training.painted, to be decoded too")
    ] = None,
    steps: int = 3000,
    batch: int = 8,
    learning_rate: float = 5e-4,
    perceptual_weight: Annotated[float, typer.Option(help="0: no such loss")] = PERCEPTUAL_WEIGHT,
    critic_weight: Annotated[float, typer.Option(help="0: no critic")] = CRITIC_WEIGHT,
    minutes: Annotated[float, typer.Option(help="stop, resumable, after this long")] = 1e9,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
) -> None:
    """Train what decodes, or go on training it."""
    train, held = pictures.split(data, world)
    torch.manual_seed(0)
    run = Run(out, train_tokenizer.load(tokenizer), steps, learning_rate, device)
    judge = Run(out / "critic", Critic(), steps, learning_rate, device)
    perceptual = Perceptual().to(device)
    average = Tokenizer(run.model.config).to(device)
    f, share = run.model.config.downsampling, batch // run.processes
    sources = load_painted(painted) if painted else []
    fixed = np.random.default_rng(1)
    real = to_float([crop(fixed, held or train) for _ in range(64)], device)
    for step in run.steps_left(minutes, beside=judge):
        rng = np.random.default_rng((3, step, run.rank))
        crops = to_float([crop(rng, train) for _ in range(share)], device)
        seen = window(rng)
        codes = run.model.encode(crops)
        values = disturb(rng, run.model.quantizer.values(codes), run.model.config.levels)
        if sources:
            codes, shown = drawn(rng, sources, share, f)
            values = torch.cat((values, run.model.quantizer.values(codes.to(device))))
        with precision(device):
            decoded = run.model.pixels(values).float()
            own = decoded[:share]
            loss = pixel_loss(own, crops)
            told = {"pixels": loss}
            if perceptual_weight:
                told["perceptual"] = perceptual(own[seen], crops[seen])
                loss = loss + perceptual_weight * told["perceptual"]
            if sources:
                loss = loss + TONE_WEIGHT * tones(decoded[share:], to_float(shown, device))
            if critic_weight and step >= CRITIC_FROM * steps:
                judge.model.requires_grad_(False)
                adversarial = -judge.model(decoded).mean()
                judge.model.requires_grad_(True)
                last = run.model.to_pixels.weight
                loss = loss + critic_weight * balance(loss, adversarial, last) * adversarial
        run.update(loss)
        if critic_weight:
            with precision(device):
                told["critic"] = critic_loss(judge.model(crops), judge.model(decoded.detach()))
            judge.update(told["critic"])
        if not run.rank and (run.step % 250 == 0 or run.step == steps):
            psnr, _, again = evaluate(run.averaged(average), real)
            run.log(**{name: value.item() for name, value in told.items()}, psnr=psnr)
            sheet(out / "sheet.png", real[:32], again[:32])
            if sources:
                codes, shown = drawn(np.random.default_rng(1), sources, 32, f)
                after = average.pixels(run.model.quantizer.values(codes.to(device))).detach()
                sheet(out / "painted.png", to_float(shown, device), after.clamp(-1, 1))
    if not run.rank:
        finished = run.averaged(average)
        rng = np.random.default_rng(4)
        some = (to_float([crop(rng, train) for _ in range(8)], device) for _ in range(EVENED // 8))
        even(finished, some)
        train_tokenizer.save(finished, out)


if __name__ == "__main__":
    cli.run(lambda: typer.run(main))
