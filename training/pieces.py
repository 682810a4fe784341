"""Pieces of training pictures, which a checkpoint keeps as examples of what the tokenizer loses.

See `handscroll.detail`. Of level 0 there are none: what is lost there is seen on its way down, and
given back it made samples no more like real pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from handscroll.detail import Pieces
from handscroll.tokenizer import RADIUS_TOK, Tokenizer, from_rgb, to_rgb
from training.pictures import Picture, Pixels

COUNT = 128
"""Pieces of a level, about as many of each picture, or one of every second or third."""
SIDE_PX = 96
AROUND_TOK = 2 * RADIUS_TOK
"""How far around a piece its picture decides what is decoded of it: tokens see, and are seen."""


def pieces_of(tokenizer: Tokenizer, found: Sequence[Picture], level: int) -> Pieces | None:
    """Pieces of a level of pictures of one world; None if the level is too small for any.

    Args:
        tokenizer: what loses.
        found: the pictures that may be shown: none that is held out.
        level: above 0.
    """
    rng = np.random.default_rng((23, level))
    large = [one.levels[level] for one in found if min(one.levels[level].shape[:2]) >= SIDE_PX]
    if not large:
        return None
    chosen = (large[number * len(large) // COUNT] for number in range(COUNT))
    cut = [_at_random(tokenizer, pixels, rng) for pixels in chosen]
    return Pieces(*(np.stack(parts) for parts in zip(*cut, strict=True)))


@torch.inference_mode()
def _at_random(
    tokenizer: Tokenizer, pixels: Pixels, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """A piece of a picture, and what is decoded of it, seen with all around that matters."""
    f, seen, inner = tokenizer.config.downsampling, [], []
    for size_px in pixels.shape[:2]:
        start = f * int(rng.integers((size_px - SIDE_PX) // f + 1))
        first = max(0, start - AROUND_TOK * f)
        seen.append(slice(first, min(size_px // f * f, start + SIDE_PX + AROUND_TOK * f)))
        inner.append(slice(start - first, start - first + SIDE_PX))
    part = np.ascontiguousarray(pixels[seen[0], seen[1]])
    codes = tokenizer.encode(from_rgb(torch.from_numpy(part)[None]))
    decoded = to_rgb(tokenizer.decode(codes, crop=(inner[0], inner[1]))[0]).numpy()
    return part[inner[0], inner[1]], decoded
