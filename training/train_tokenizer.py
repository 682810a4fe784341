"""Train the tokenizer: ``python -m training.train_tokenizer --data DATA --out runs/tokenizer``.

Loss: L1 on pixels, and L1 on their differences to the right and downwards, which weighs edges
and texture. Crops come from every level of every picture, flat ones rarely. Leaves
``tokenizer.safetensors`` and ``tokenizer.json``, the curves, and a sheet of held-out originals
beside reconstructions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from handscroll import cli
from handscroll.errors import InvalidRequest
from handscroll.tokenizer import Tokenizer, TokenizerConfig, from_rgb, to_rgb
from training import pictures
from training.pictures import Picture, Pixels
from training.run import Run, precision

CROP_PX = 160
LEVEL_ODDS = (0.2, 0.3, 0.5)
"""How often each level is looked at, the finest last."""


class Place(NamedTuple):
    """Where a crop lies: in which of the pictures, at which level, and its first pixel there."""

    number: int
    level: int
    top: int
    left: int

    def cut(self, levels: Sequence[Pixels]) -> Pixels:
        """The crop (CROP_PX, CROP_PX, 3) of that picture."""
        rows, cols = (slice(start, start + CROP_PX) for start in (self.top, self.left))
        return levels[self.level][rows, cols]


def place(rng: np.random.Generator, sources: Sequence[Picture], step_px: int = 1) -> Place:
    """Somewhere to look: worlds equally often, finer levels more often, flat places rarely.

    Args:
        rng: draws it.
        sources: pictures.
        step_px: its pixel is a multiple of.
    """
    while True:
        worlds = sorted({picture.world for picture in sources})
        world = worlds[rng.integers(len(worlds))]
        choice = [number for number, picture in enumerate(sources) if picture.world == world]
        number = choice[rng.integers(len(choice))]
        levels = sources[number].levels
        odds = np.array(LEVEL_ODDS[-len(levels) :])
        level = int(rng.choice(len(odds), p=odds / odds.sum()))
        top, left = (
            step_px * int(rng.integers((size - CROP_PX) // step_px + 1))
            for size in levels[level].shape[:2]
        )
        found = Place(number, level, top, left)
        flat = found.cut(levels)[::8, ::8].std(axis=(0, 1)).max() < 6
        if not flat or rng.random() >= 0.8:  # open sea and clear sky teach little
            return found


def crop(rng: np.random.Generator, sources: Sequence[Picture]) -> Pixels:
    """One crop (CROP_PX, CROP_PX, 3), mirrored or not."""
    at = place(rng, sources)
    found = at.cut(sources[at.number].levels)
    return found[:, ::-1] if rng.random() < 0.5 else found


def to_float(pixels: Pixels | list[Pixels], device: str) -> Tensor:
    """uint8 pixels to float in [-1, 1]."""
    return from_rgb(torch.from_numpy(np.array(pixels)).to(device))


def pixel_loss(painted: Tensor, real: Tensor) -> Tensor:
    """L1 on pixels and on their first differences; both (B, H, W, 3)."""
    error = painted.float() - real
    right, down = error.diff(dim=2), error.diff(dim=1)
    return error.abs().mean() + right.abs().mean() + down.abs().mean()


@torch.inference_mode()
def evaluate(model: Tokenizer, real_BHWC: Tensor) -> tuple[float, float, Tensor]:
    """PSNR in dB, the share of code values in use (worst of the K codes), reconstructions."""
    painted, used = [], []
    for real in real_BHWC.split(8):
        again, codes = model(real)
        painted.append(again.clamp(-1, 1))
        used.append(codes.flatten(0, 2))
    found = torch.cat(painted)
    squared = (found - real_BHWC).square().mean(dim=(1, 2, 3)) / 4
    vocabulary = model.config.vocabulary
    usage = min(len(column.unique()) / vocabulary for column in torch.cat(used).T)
    return float(-10 * squared.log10().mean()), usage, found


def sheet(path: Path, real_BHWC: Tensor, painted_BHWC: Tensor, columns: int = 8) -> None:
    """Originals above their reconstructions, a row of each in turn."""
    rows = []
    for start in range(0, len(real_BHWC), columns):
        for part in (real_BHWC, painted_BHWC):
            rows.append(torch.cat(list(part[start : start + columns]), dim=1))
    pixels = to_rgb(torch.cat(rows)).cpu().numpy()
    Image.fromarray(pixels).save(path)


def save(model: Tokenizer, folder: Path) -> None:
    """Leave a finished tokenizer in its run's folder."""
    save_file(model.state_dict(), folder / "tokenizer.safetensors")
    (folder / "tokenizer.json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")


def load(folder: Path) -> Tokenizer:
    """The tokenizer that a finished run left in its folder."""
    config = json.loads((folder / "tokenizer.json").read_text())
    model = Tokenizer(TokenizerConfig(**{**config, "levels": tuple(config["levels"])}))
    model.load_state_dict(load_file(folder / "tokenizer.safetensors"))
    return model.eval()


def main(
    data: Annotated[Path, typer.Option(help="packed data set, or any folder of pictures")],
    out: Annotated[Path, typer.Option(help="run folder; an earlier run there is resumed")],
    world: Annotated[str | None, typer.Option(help="world of a plain folder")] = None,
    downsampling: Annotated[
        int, typer.Option(help="pixels to a token's side")
    ] = TokenizerConfig.downsampling,
    codes: Annotated[int, typer.Option(help="of a token")] = TokenizerConfig.codes,
    steps: int = 6000,
    batch: int = 12,
    learning_rate: float = 2e-3,
    minutes: Annotated[float, typer.Option(help="stop, resumable, after this long")] = 1e9,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
) -> None:
    """Train the tokenizer, or go on training it."""
    try:
        config = TokenizerConfig(downsampling, codes)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
    train, held = pictures.split(data, world)
    torch.manual_seed(0)
    run = Run(out, Tokenizer(config), steps, learning_rate, device)
    average = Tokenizer(config).to(device)
    fixed = np.random.default_rng(1)
    real = to_float([crop(fixed, held or train) for _ in range(64)], device)
    for step in run.steps_left(minutes):
        rng = np.random.default_rng((2, step))
        crops = to_float([crop(rng, train) for _ in range(batch)], device)
        with precision(device):
            painted, _ = run.model(crops)
        loss = pixel_loss(painted, crops)
        run.update(loss)
        if run.step % 250 == 0 or run.step == steps:
            psnr, usage, again = evaluate(run.averaged(average), real)
            run.log(loss=loss.item(), psnr=psnr, usage=usage)
            sheet(out / "sheet.png", real[:32], again[:32])
    save(run.averaged(average), out)


if __name__ == "__main__":
    cli.run(lambda: typer.run(main))
