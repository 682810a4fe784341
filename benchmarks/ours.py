"""What is measured of ours: patches in every way they can be drawn, and tiles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import nn

from benchmarks.machine import seconds
from handscroll.canvas import Canvas, Dtype, Sampling
from handscroll.checkpoint import Checkpoint, World
from handscroll.context import Codes, Context, gather
from handscroll.decoder import Decoder, DecoderConfig
from handscroll.field import CELL_VALUES, Palette
from handscroll.geometry import Extent, Patch, Tile, tile_region
from handscroll.order import Lattice
from handscroll.paint import Painter
from handscroll.sample import PatchSampler
from handscroll.tokenizer import Tokenizer, TokenizerConfig

_FAR = 1000  # tiles from one fresh place to the next: nothing is shared between them


def random_model(config: DecoderConfig) -> Checkpoint:
    """A model with one endless plane and random weights, also where training starts from zero."""
    torch.manual_seed(0)
    tokenizer, decoder = Tokenizer(TokenizerConfig(codes=config.codes)), Decoder(config)
    for weight in chain(tokenizer.parameters(), decoder.parameters()):
        if not weight.any():
            nn.init.normal_(weight, std=0.02)
    for network in (tokenizer, decoder):
        network.eval().requires_grad_(False)
    palette_BRCV = np.random.default_rng(0).random((16, 1, 1, CELL_VALUES), np.float32)
    world = World(
        "plane", 0, Extent("plane", finest=2), Palette(palette_BRCV, None, 4, layered=False)
    )
    return Checkpoint("", tokenizer, decoder, {world.name: world}, "")


def decoder_in(model: Checkpoint, dtype: Dtype) -> Decoder:
    """The model's decoder in a number format."""
    return deepcopy(model.decoder).to(getattr(torch, dtype))


def codes_of(config: DecoderConfig) -> Callable[[Patch], Codes]:
    """Stands in for drawn patches: codes that cost nothing."""
    shape = (config.side, config.side, config.codes)
    codes = np.random.default_rng(0).integers(config.vocabulary, size=shape).astype(np.uint8)
    return lambda patch: codes


class Patches:
    """Fills of the finest level, which see all eight neighbours and the level above."""

    def __init__(self, decoder: Decoder, world: World, sampling: Sampling) -> None:
        config = decoder.config
        self.sampler = PatchSampler(decoder, 0, world.index, sampling)
        fill = Patch(world.extent.finest, 0, 1, 1)
        context = gather(fill, Lattice(world.extent), config.side, codes_of(config), None)
        self.batch: list[Context] = [context] * sampling.rows

    def draw(self) -> object:
        """Draw one batch."""
        return self.sampler.draw(self.batch)

    def alone(self) -> float:
        """Seconds a patch, one batch at a time."""
        return seconds(self.draw) / len(self.batch)

    def beside(self, workers: ThreadPoolExecutor, count: int) -> float:
        """Seconds a patch, as many batches at a time as there are workers."""

        def draw_all() -> None:
            for drawn in [workers.submit(self.draw) for _ in range(count)]:
                drawn.result()

        return seconds(draw_all) / len(self.batch) / count


class Tiles:
    """Tiles of the finest level, asked for at places where nothing has been painted yet."""

    def __init__(self, model: Checkpoint, world: World, dtype: Dtype, workers: int) -> None:
        sampling = replace(model.sampling, dtype=dtype)
        canvas = Canvas(model.digest, world.name, 0, world.extent, sampling=sampling)
        self.painter = Painter(model, canvas, workers)
        self.codes_of = codes_of(model.decoder.config)
        self.tile = Tile(world.extent.finest, 0, 0)

    def cold(self) -> float:
        """Seconds for a tile of which nothing is there."""
        self._move()
        return self.warm()

    def over_parents(self) -> float:
        """Seconds for a tile of which all coarser levels are there."""
        self._move()
        coarse = [patch for patch in self.cone() if patch.level < self.tile.level]
        self.painter.pool.expect(coarse)
        for patch in coarse:
            self.painter.pool.add(patch, self.codes_of(patch))
        return self.warm()

    def warm(self) -> float:
        """Seconds for the same tile again: its pixels only."""
        return seconds(lambda: self.painter.tile(self.tile))

    def cone(self) -> set[Patch]:
        """The patches that the tile still needs."""
        return self.painter.cone(tile_region(self.tile, self.painter.canvas.extent))

    def _move(self) -> None:
        self.tile = self.tile._replace(col=self.tile.col + _FAR)
