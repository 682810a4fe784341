"""Paint what a tokenizer is to make look real: ``python -m training.painted --out FILE``.

The tokens that a decoder draws are never quite those of a picture, and a tokenizer that has seen
none but a picture's makes smears of them. `training.train_pixels` learns from these too. Their
seeds begin at FIRST_SEED: what is evaluated are others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track
from safetensors import safe_open
from safetensors.numpy import save_file

from handscroll import checkpoint
from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.cli import run
from handscroll.context import Codes
from handscroll.geometry import Region
from handscroll.paint import Painter
from training.pictures import Picture, Pixels
from training.samples import codes_of, view

FIRST_SEED = 100_000


@dataclass(frozen=True)
class Painted:
    """One view of a painted canvas.

    Attributes:
        picture: as it was decoded when it was painted, at every level.
        codes: its tokens (h, w, K) at every level.
    """

    picture: Picture
    codes: tuple[Codes, ...]


def load(path: Path) -> list[Painted]:
    """What was painted into a file."""
    found = []
    with safe_open(path, framework="np") as file:
        for number, about in enumerate(json.loads(file.metadata()["handscroll"])):
            pixels, codes = (
                tuple(file.get_tensor(f"{what}.{number}.{at}") for at in range(about["levels"]))
                for what in ("pixels", "codes")
            )
            found.append(Painted(Picture(f"{number}", about["world"], False, pixels), codes))
    return found


def paint(model: Checkpoint, world: str, seed: int, workers: int) -> list[tuple[Pixels, Codes]]:
    """Pixels and tokens of a canvas around pixel 0, at every level."""
    extent = model.world(world).extent
    canvas = Canvas(model.digest, world, seed, extent, sampling=model.sampling)
    found: list[tuple[Pixels, Codes]] = []
    with Painter(model.as_decoded(), canvas, workers) as painter:
        for level in range(extent.finest + 1):
            _, _, _, height, width, _ = view(extent, level)
            region = Region(level, 0, 0, height, width)
            pixels = np.concatenate(list(painter.region(region)))
            found.append((pixels, codes_of(painter, region)))
    return found


def main(
    out: Annotated[Path, typer.Option(help="file to write")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    number: Annotated[int, typer.Option("--samples", min=1, help="canvases of each world")] = 24,
    workers: Annotated[int, typer.Option(help="cores to use")] = 2,
) -> None:
    """Paint canvases of every world, and keep their tokens and pixels."""
    loaded = checkpoint.load(model)
    arrays: dict[str, NDArray[np.uint8]] = {}
    entries: list[dict[str, Any]] = []
    for world in loaded.worlds:
        for seed in track(range(FIRST_SEED, FIRST_SEED + number), f"painting {world}"):
            levels = paint(loaded, world, seed, workers)
            for level, (pixels, codes) in enumerate(levels):
                arrays[f"pixels.{len(entries)}.{level}"] = pixels
                arrays[f"codes.{len(entries)}.{level}"] = np.ascontiguousarray(codes)
            entries.append({"world": world, "levels": len(levels)})
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, out, metadata={"handscroll": json.dumps(entries)})


if __name__ == "__main__":
    run(lambda: typer.run(main))
