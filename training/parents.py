"""Draw what finer levels stand on: ``python -m training.parents --tokens FILE --out FILE``.

A level is painted over one that was painted too, and a decoder that has learned it over tokens of
real pictures alone takes each slip of the level above for a shape. So the coarser levels of the
pictures that it learns from are drawn by a decoder here, except for every fourth token: they keep
to the picture, and slip where a painted level slips. Cascades of diffusion models disturb what
they stand on for the same reason (Ho et al., arXiv 2106.15282, conditioning augmentation). What
`training.train_decoder --parents` reads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from safetensors.numpy import save_file

from handscroll import checkpoint, cli
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes, NearbyContextPool
from handscroll.errors import SpecMismatch
from handscroll.geometry import Mask, Patch
from handscroll.order import Lattice
from handscroll.render import render
from handscroll.sample import PatchSampler
from training.examples import Dataset, Encoded, PictureField, Placed, block

SHARE = 0.25
"""Of the pictures that are drawn: it takes long."""


@dataclass(frozen=True)
class EveryFourth:
    """One token of every two by two is given (`handscroll.context.Given`).

    Attributes:
        levels: the codes of a picture.
        extent: where it lies.
        side: tokens to a patch's side.
        phase: which of four.
    """

    levels: tuple[Codes, ...]
    extent: Placed
    side: int
    phase: int

    def tokens(self, patch: Patch) -> tuple[Codes, Mask]:
        """Codes (side, side, K) of a patch, and which of them are given (side, side)."""
        row, col = divmod(self.phase, 2)
        given = np.zeros((self.side, self.side), bool)
        given[row::2, col::2] = True
        return block(self.levels, self.extent, patch, self.side), given

    def whole(self, patch: Patch) -> bool:
        """None is."""
        return False


def drawn(model: Checkpoint, picture: Encoded, number: int) -> list[Codes]:
    """The levels of a picture but its finest, drawn one over the other.

    Args:
        model: what draws.
        picture: a still.
        number: names the draw: the same one, the same codes.
    """
    world = next(one for one in model.worlds.values() if one.index == picture.world)
    side, f = model.decoder.config.side, model.tokenizer.config.downsampling
    coarser = world.extent.finest + 1 - len(picture.codes)
    height, width = (size * f << coarser for size in picture.codes[-1].shape[:2])
    extent = Placed(world.extent.kind, world.extent.finest, height, width)
    field = PictureField(picture.statistics, extent, side)
    given = EveryFourth(picture.codes, extent, side, number % 4)
    pool = NearbyContextPool(Lattice(extent), side, field, given=given)
    sampler = PatchSampler(model.decoder, number, world.index, model.sampling)
    found = [codes.copy() for codes in picture.codes[:-1]]  # what is no patch's stays
    places = (
        Patch(level, 0, row, col)
        for level, codes in enumerate(found)
        for row in range(-(-codes.shape[0] // side))
        for col in range(-(-codes.shape[1] // side))
    )
    wanted = [patch for patch in places if extent.contains(patch)]
    for patch, codes in render(wanted, pool.order, pool, sampler):
        part = found[patch.level][patch.row * side :, patch.col * side :][:side, :side]
        part[:] = codes[: part.shape[0], : part.shape[1]]
    return found


def main(
    tokens: Annotated[Path, typer.Option(help="file written by training.encode")],
    out: Annotated[Path, typer.Option(help="file to write")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    workers: Annotated[int, typer.Option(help="cores to use")] = 2,
) -> None:
    """Draw the coarser levels of some of the pictures to learn from."""
    loaded, data = checkpoint.load(model), Dataset.load(tokens)
    if [one.extent for one in data.worlds] != [one.extent for one in loaded.worlds.values()]:
        raise SpecMismatch(f"{tokens} and {model} are of different worlds")
    stills = [
        number
        for number, one in enumerate(data.pictures)
        if one.moves is None and not one.held_out and len(one.codes) > 1
    ]
    some = np.random.default_rng(7).random(len(stills)) < SHARE
    stills = [number for number, chosen in zip(stills, some, strict=True) if chosen]
    torch.set_num_threads(1)
    arrays: dict[str, Codes] = {}
    with ThreadPoolExecutor(workers) as pool:
        every = pool.map(lambda number: drawn(loaded, data.pictures[number], number), stills)
        for number, levels in zip(stills, track(every, "drawing", len(stills)), strict=True):
            arrays.update({f"drawn.{number}.{at}": codes for at, codes in enumerate(levels)})
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, out)


if __name__ == "__main__":
    cli.run(lambda: typer.run(main))
