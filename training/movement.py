"""Movement: what changes from frame to frame of a film, and whether it is what words asked for.

A film is a list of frames (H, W, 3). Where it is to stand still nothing should change: identical
tokens are decoded to identical pixels, so 0 is possible.

Shape suffixes: F frames, H W pixels, h w tokens, K codes of a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handscroll.context import Codes
from handscroll.geometry import Mask
from training.metrics import Floats
from training.pictures import Pixels

REACH_PX = 48
"""The furthest that anything is taken to move in a frame."""
FINEST_CYCLES = 1 / 16
"""Per pixel: what is finer than this tells little of where things move, since it is drawn anew."""


def changes(frames: Sequence[Pixels], mask_HW: Mask) -> Floats:
    """Mean absolute change of the pixels of a mask at each step (F - 1,), in grey levels.

    NaN where the mask is empty.
    """
    if not mask_HW.any():
        return np.full(len(frames) - 1, np.nan)
    seen = [frame[mask_HW].astype(np.int16) for frame in frames]
    return np.array(
        [np.abs(after - before).mean() for before, after in zip(seen, seen[1:], strict=False)]
    )


def token_changes(codes_FhwK: Codes, mask_hw: Mask) -> Floats:
    """Share of the tokens of a mask that change in any of their codes, at each step (F - 1,).

    NaN where the mask is empty.
    """
    if not mask_hw.any():
        return np.full(len(codes_FhwK) - 1, np.nan)
    changed: Floats = (codes_FhwK[1:] != codes_FhwK[:-1]).any(-1)[:, mask_hw].mean(axis=1)
    return changed


def brightening(frames: Sequence[Pixels], mask_HW: Mask) -> Floats:
    """How much brighter the pixels of a mask become at each step (F - 1,), in grey levels.

    NaN where the mask is empty.
    """
    if not mask_HW.any():
        return np.full(len(frames) - 1, np.nan)
    return np.diff([float(frame[mask_HW].mean()) for frame in frames])


def displacement(before: Pixels, after: Pixels) -> tuple[int, int]:
    """How far a picture moved down and to the right, in pixels: its phase correlation's peak.

    Edges are faded out and fine detail is left out, since a painter draws it anew.

    Args:
        before, after: (H, W, 3).
    """
    if np.array_equal(before, after):  # an empty sky among them, in which there is nothing to find
        return 0, 0
    height, width, _ = before.shape
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    spectra = []
    for pixels in (before, after):
        grey = pixels.mean(axis=-1)
        spectra.append(np.fft.fft2((grey - grey.mean()) * window))
    cross = np.conj(spectra[0]) * spectra[1]
    cycles = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    coarse = np.exp(-0.5 * (cycles / FINEST_CYCLES) ** 2)
    peaks = np.fft.ifft2(coarse * cross / (np.abs(cross) + 1e-6)).real
    reach = [min(REACH_PX, size // 2 - 1) for size in (height, width)]
    near = np.roll(peaks, reach, axis=(0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    down, right = np.unravel_index(int(near.argmax()), near.shape)
    return int(down) - reach[0], int(right) - reach[1]


def sky_rows(mask_HW: Mask, share: float = 0.9) -> int:
    """How many rows from the top down lie in a mask, but for a few of their pixels."""
    whole = mask_HW.mean(axis=1) >= share
    return int(whole.argmin()) if not whole.all() else len(whole)


def tokens_within(mask_HW: Mask, f: int) -> Mask:
    """The tokens (h, w) all pixels of which lie in a mask."""
    height, width = (size // f for size in mask_HW.shape)
    whole = mask_HW[: height * f, : width * f].reshape(height, f, width, f)
    return np.asarray(whole.all(axis=(1, 3)))
