"""Encode the pictures once: ``python -m training.encode --data DATA --tokenizer RUN --out FILE``.

Writes one safetensors file with, for every picture and variant (mirrored photographs, shifts
against the token grid), the codes of every level, statistics of level 0 for the field, and
captions with their embeddings; and the worlds' palettes. What `training.train_decoder` reads.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from safetensors.numpy import save_file

from handscroll.cli import run
from handscroll.field import CELL_PX, cell_values, statistics
from handscroll.geometry import PATCH_PX, Extent
from handscroll.text import TextEncoder
from handscroll.tokenizer import Tokenizer, from_rgb
from training import pictures, train_tokenizer
from training.captions import earth_caption
from training.folder import WorldKind
from training.pictures import Picture, Pixels

CAPTION_STRIDE_PX = 128
PALETTE = 256
ANCHOR_SPACING = {"scroll": 16, "plane": 6}
VARIANTS = {
    "scroll": ((False, 0, 0), (True, 0, 24)),
    "plane": ((False, 0, 0), (False, 24, 40)),
}
"""Mirrored or not, and pixels cut off at the top and the left, where a patch is left below them."""


def variants(picture: Picture) -> list[tuple[Pixels, ...]]:
    """The levels of a picture, shifted against the token grid, photographs mirrored too.

    Maps are not mirrored: their relief is lit from one side.
    """
    if picture.held_out:
        return [picture.levels]
    found = []
    whole, finest = picture.levels[-1], picture.extent.finest
    step = 16 << finest
    for mirror, *cuts in VARIANTS[picture.kind]:
        sides = zip(cuts, whole.shape[:2], strict=True)
        down, right = (cut if size - cut >= PATCH_PX << finest else 0 for cut, size in sides)
        part = whole[down:, right:]
        part = part[:, ::-1] if mirror else part
        height, width = (size // step * step for size in part.shape[:2])
        image = Image.fromarray(part[:height, :width])
        found.append(pictures.pyramid(image, len(picture.levels)))
    return found


@torch.inference_mode()
def encode(tokenizer: Tokenizer, pixels: Pixels, device: str, band: int = 1024) -> Pixels:
    """Codes (h, w, K) of a picture, band by band with enough around for the same result."""
    f, margin = tokenizer.config.downsampling, 8 * tokenizer.config.downsampling
    found = []
    for top in range(0, len(pixels), band):
        first, last = max(0, top - margin), min(len(pixels), top + band + margin)
        part = from_rgb(torch.from_numpy(pixels[first:last].copy()).to(device))
        with torch.autocast(device, torch.bfloat16):
            codes = tokenizer.encode(part[None])[0].to(torch.uint8).cpu().numpy()
        found.append(codes[(top - first) // f : (min(len(pixels), top + band) - first) // f])
    return np.concatenate(found)


def captions(picture: Picture, level: int, sentences: dict[str, int]) -> NDArray[np.int32]:
    """Index of the caption of the patch at each place, every CAPTION_STRIDE_PX; -1 for none."""
    pixels = picture.levels[level]
    rows, cols = (max(1, size // CAPTION_STRIDE_PX - 1) for size in pixels.shape[:2])
    found = np.full((rows, cols), -1, np.int32)
    if picture.caption:
        found[:] = sentences.setdefault(picture.caption, len(sentences))
    elif picture.heights is not None:
        scale = 2**level
        for row in range(rows):
            for col in range(cols):
                top, left = row * CAPTION_STRIDE_PX, col * CAPTION_STRIDE_PX
                colour = pixels[top : top + PATCH_PX, left : left + PATCH_PX]
                part = picture.heights[
                    top // scale : (top + PATCH_PX) // scale,
                    left // scale : (left + PATCH_PX) // scale,
                ]
                south = (top + PATCH_PX / 2) / pixels.shape[0]
                latitude = picture.north_deg + south * (picture.south_deg - picture.north_deg)
                sentence = earth_caption(colour, part, latitude)
                found[row, col] = sentences.setdefault(sentence, len(sentences))
    return found


def palette(extent: Extent, found: list[NDArray[np.float32]], f: int) -> NDArray[np.float32]:
    """Real cells to draw the field from, cool to warm: (PALETTE, R, 4).

    On a plane three in four are of the livelier half, so that open sea does not cover all.
    """
    cell = CELL_PX // f
    rng = np.random.default_rng(0)
    entries = []
    for one in found:
        height, width = (size // cell for size in one.shape[:2])
        blocks = one[: height * cell, : width * cell].reshape(height, cell, width, cell, 4)
        cells = cell_values(blocks.mean(axis=(1, 3)))
        if extent.kind == "scroll":
            rest = one[height * cell :, : width * cell]
            if len(rest):
                below = rest.reshape(len(rest), width, cell, 4).mean(axis=(0, 2))
                cells = np.concatenate((cells, cell_values(below)[None]))
            entries.append(cells.transpose(1, 0, 2))
        else:
            entries.append(cells.reshape(-1, 1, 4))
    every = np.concatenate(entries)
    if extent.kind != "scroll":
        lively = np.argsort(every[:, 0, 3])[len(every) // 2 :]
        picked = [rng.choice(lively, 3 * PALETTE // 4), rng.choice(len(every), PALETTE // 4)]
    else:
        picked = [rng.choice(len(every), PALETTE)]
    chosen = every[np.concatenate(picked)]
    light = (chosen[..., :3].mean(axis=1) + 1) / 2
    warmth = (light[:, 0] - light[:, 2]) / (light.sum(axis=1) + 0.2)
    return chosen[np.argsort(warmth, kind="stable")]


def main(
    data: Annotated[Path, typer.Option(help="packed data set, or any folder of pictures")],
    tokenizer: Annotated[Path, typer.Option(help="run folder of training.train_tokenizer")],
    out: Annotated[Path, typer.Option(help="file to write")],
    world: Annotated[str | None, typer.Option(help="world of a plain folder")] = None,
    kind: Annotated[
        WorldKind | None, typer.Option(help="of that world; default: scroll if it is called so")
    ] = None,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
) -> None:
    """Encode every picture with a trained tokenizer."""
    model = train_tokenizer.load(tokenizer).to(device)
    config = model.config
    everything = pictures.load(data, world, kind)
    extents = {picture.world: picture.extent for picture in everything}
    worlds = sorted(extents)
    arrays: dict[str, NDArray[Any]] = {}
    sentences: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    level0: dict[str, list[NDArray[np.float32]]] = {name: [] for name in worlds}
    for picture in track(everything, "encoding"):
        depth = range(len(picture.levels))
        caption_grids = [captions(picture, level, sentences) for level in depth]
        for levels in variants(picture):
            number = len(entries)
            for level, pixels in enumerate(levels):
                arrays[f"codes.{number}.{level}"] = encode(model, pixels, device)
                arrays[f"captions.{number}.{level}"] = caption_grids[level]
            arrays[f"statistics.{number}"] = statistics(levels[0], config.downsampling)
            if not picture.held_out:
                level0[picture.world].append(arrays[f"statistics.{number}"])
            entries.append(
                {"name": picture.name, "world": picture.world, "held_out": picture.held_out}
            )
    for name in worlds:
        arrays[f"palette.{name}"] = palette(extents[name], level0[name], config.downsampling)
    if sentences:
        arrays["text"] = TextEncoder().embed(list(sentences))
    metadata = {
        "worlds": [
            {
                "name": name,
                "extent": asdict(extents[name]),
                "spacing": ANCHOR_SPACING[extents[name].kind],
            }
            for name in worlds
        ],
        "entries": entries,
        "sentences": list(sentences),
        "tokenizer": asdict(config),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, out, metadata={"handscroll": json.dumps(metadata)})


if __name__ == "__main__":
    run(lambda: typer.run(main))
