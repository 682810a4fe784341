"""Random numbers that depend on nothing but their names.

A patch's tokens must be a pure function of the canvas and the patch, so there is no generator
with a state here. Philox is a *counter-based* generator: a keyed bijection from counters to words
that look random. A number is named by (key, index), and can be computed alone, on any machine, in
any order:

    (seed, patch, stream)  -- patch_key -->  key
    (key, index)           -- uniforms, gumbels -->  number

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11), with
the constants of their Random123 library.
"""

import math
import struct

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
# Weyl sequences that give each round its own key: the golden ratio and sqrt(3) - 1.
_KEY_STEPS = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)


def philox(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Encrypt counters with Philox4x32-10: one key, any number of counters at once.

    32-bit words are held in 64-bit integers, so that a product keeps both of its halves, and the
    four words of a counter in two pairs, so that a round is a few operations on whole arrays.

    Args:
        counter: (..., 4) uint32, word 0 the least significant.
        key: (2,) uint32.

    Returns:
        (..., 4) uint32: four random words per counter.
    """
    words = counter.reshape(-1, 4).T.astype(np.uint64, order="C")
    round_key = key.astype(np.uint64)[:, None]
    even, odd = words[0::2], words[1::2]  # words 0 and 2 are multiplied, 1 and 3 are masked
    high = np.empty_like(even)
    for _ in range(_ROUNDS):
        even *= _MULTIPLIERS
        np.right_shift(even, np.uint64(32), out=high)
        odd ^= high[::-1]
        odd ^= round_key
        even &= _LOW
        even, odd = odd, even[::-1]
        round_key = (round_key + _KEY_STEPS) & _LOW
    result = np.empty((words.shape[1], 4), np.uint32)
    result[:, 0::2] = even.T
    result[:, 1::2] = odd.T
    return result.reshape(counter.shape)


def patch_key(seed: int, patch: tuple[int, int, int, int], stream: int = 0) -> NDArray[np.uint32]:
    """Hash a seed, a patch and a stream number into the key of that patch's random numbers.

    Philox is its own hash, in two links of a chain: the seed encrypts (level, frame, stream),
    which gives the key that encrypts (row, col), which gives the result. Each link is a bijection
    of its 128 bits cut to 64, so among n patches some two share a key with probability
    n**2 / 2**65: one in 37 million for a canvas of a million patches.

    Args:
        seed: unsigned, 64 bits.
        patch: (level, frame, row, col): signed, 32, 32, 64 and 64 bits.
        stream: unsigned, 32 bits; numbers for different purposes come from different streams.

    Returns:
        (2,) uint32 key.

    Raises:
        struct.error: a number does not fit its width.
    """
    level, frame, row, col = patch
    key = _words("<Q", seed)
    key = philox(_words("<iiII", level, frame, stream, 0), key)[:2]
    return philox(_words("<qq", row, col), key)[:2]


def uniforms(key: NDArray[np.uint32], n: int, start: int = 0) -> NDArray[np.float64]:
    """Draw numbers from the open interval (0, 1).

    Number i is (w + 0.5) / 2**32, exactly, with w word i % 4 of the counter i // 4: never 0 or 1,
    and any slice can be drawn alone.

    Args:
        key: (2,) uint32, from `patch_key`.
        n: how many.
        start: index of the first.

    Returns:
        (n,) float64.
    """
    first, skipped = divmod(start, 4)
    blocks = np.arange(first, first + math.ceil((skipped + n) / 4), dtype=np.uint64)
    counter = np.zeros((len(blocks), 4), np.uint32)
    counter[:, 0] = blocks & _LOW
    counter[:, 1] = blocks >> np.uint64(32)
    words = philox(counter, key).reshape(-1)[skipped : skipped + n]
    result = words.astype(np.float64)
    result += 0.5
    result *= 2.0**-32
    return result


def gumbels(key: NDArray[np.uint32], shape: tuple[int, ...], start: int = 0) -> NDArray[np.float32]:
    """Draw standard Gumbel noise: the argmax of logits + noise is a draw from their softmax.

    -log(-log(u)) of `uniforms`, in float64 and rounded once, which hides the last bits in which
    the logarithms of two platforms may differ.

    Args:
        key: (2,) uint32, from `patch_key`.
        shape: of the result.
        start: flat index of its first element in the stream.

    Returns:
        shape, float32.
    """
    result = uniforms(key, math.prod(shape), start)
    for _ in range(2):
        np.log(result, out=result)
        np.negative(result, out=result)
    return result.astype(np.float32).reshape(shape)


def _words(layout: str, *numbers: int) -> NDArray[np.uint32]:
    """Pack integers into 32-bit words, least significant first, whatever the platform."""
    return np.frombuffer(struct.pack(layout, *numbers), "<u4").astype(np.uint32)
