"""The laws of `handscroll.seeds`: known answers, slices, distinct and even streams."""

import hashlib

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from handscroll.seeds import gumbels, patch_key, philox, uniforms

Patch = tuple[int, int, int, int]

WORD = st.integers(0, 2**32 - 1)
SEEDS = st.integers(0, 2**64 - 1)
COORDINATES = st.integers(-(2**62), 2**62)
PATCHES = st.tuples(st.integers(0, 8), st.integers(0, 31), COORDINATES, COORDINATES)
NAMES = st.tuples(SEEDS, PATCHES, st.integers(0, 7))


def words(text: str) -> NDArray[np.uint32]:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


# Random123, tests/kat_vectors, philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: str, key: str, expected: str) -> None:
    result = philox(words(counter), words(key))
    assert result.dtype == np.uint32
    np.testing.assert_array_equal(result, words(expected))


def philox_in_python(counter: list[int], key: list[int]) -> list[int]:
    """The paper's round, one counter at a time."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


@given(
    st.lists(st.lists(WORD, min_size=4, max_size=4), max_size=5),
    st.lists(WORD, min_size=2, max_size=2),
)
def test_philox_equals_the_plain_loop(counters: list[list[int]], key: list[int]) -> None:
    given_counters = np.array(counters, np.uint32).reshape(-1, 4)
    expected = np.array([philox_in_python(c, key) for c in counters], np.uint32).reshape(-1, 4)
    np.testing.assert_array_equal(philox(given_counters, np.array(key, np.uint32)), expected)


def test_philox_keeps_shape_and_arguments() -> None:
    counter = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    key = words("00000001 00000002")
    result = philox(counter, key)
    assert result.shape == (2, 3, 4)
    np.testing.assert_array_equal(result[1, 2], philox(counter[1, 2], key))
    np.testing.assert_array_equal(counter.ravel(), np.arange(24))
    np.testing.assert_array_equal(key, [1, 2])


@given(NAMES, NAMES)
def test_patch_key_distinct(one: tuple[int, Patch, int], other: tuple[int, Patch, int]) -> None:
    """A false alarm would need two equal hashes of 64 bits."""
    assume(one != other)
    assert patch_key(*one).tolist() != patch_key(*other).tolist()


def test_patch_key_distinct_around_the_origin() -> None:
    """Near coordinates, with their signs and with row and col swapped, are the likely clashes."""
    keys = {
        patch_key(seed, (level, frame, row, col), stream).tobytes()
        for seed in (0, 1)
        for level in (0, 1)
        for frame in (0, 1)
        for row in range(-3, 4)
        for col in range(-3, 4)
        for stream in (0, 1)
    }
    assert len(keys) == 2**4 * 7 * 7


def test_patch_key_takes_every_coordinate() -> None:
    """The same bits for Python's and for numpy's integers, up to the widest allowed."""
    patch = (6, 31, -(2**62), 2**62)
    key = patch_key(2**64 - 1, patch)
    assert key.shape == (2,)
    assert key.dtype == np.uint32
    as_numpy = np.array(patch, np.int64)
    level, frame, row, col = as_numpy
    np.testing.assert_array_equal(patch_key(2**64 - 1, (level, frame, row, col)), key)


@given(SEEDS, st.integers(0, 40) | st.integers(2**33, 2**33 + 40), st.integers(0, 40))
def test_uniforms_slice_alone(seed: int, start: int, n: int) -> None:
    key = patch_key(seed, (0, 0, 0, 0))
    aligned = start - start % 4
    longer = uniforms(key, start - aligned + n + 5, aligned)
    np.testing.assert_array_equal(
        uniforms(key, n, start), longer[start - aligned : start - aligned + n]
    )


def test_uniforms_element_is_named_by_block_and_word() -> None:
    """Element i is word i % 4 of counter i // 4, past 32 bits of counter too."""
    key = words("00000007 00000008")
    for i in (0, 6, 2**34 + 3):
        counter = np.array([(i // 4) % 2**32, (i // 4) >> 32, 0, 0], np.uint32)
        expected = (int(philox(counter, key)[i % 4]) + 0.5) / 2**32
        assert uniforms(key, 1, i).tolist() == [expected]


def test_uniforms_are_even_and_open() -> None:
    """Chi-squared over 256 bins: 255 degrees of freedom, and a fixed seed, so no false alarm."""
    n = 2**18
    draws = uniforms(patch_key(11, (0, 0, 3, -4)), n)
    assert 0 < draws.min() and draws.max() < 1
    counts = np.histogram(draws, bins=256, range=(0, 1))[0]
    chi_squared = float(((counts - n / 256) ** 2 / (n / 256)).sum())
    assert abs(chi_squared - 255) < 5 * np.sqrt(2 * 255)
    assert abs(float(np.corrcoef(draws[:-1], draws[1:])[0, 1])) < 5 / np.sqrt(n)


def test_streams_of_neighbours_are_unrelated() -> None:
    n = 2**16
    here = uniforms(patch_key(11, (2, 0, 5, 5)), n)
    for name in [(11, (2, 0, 5, 6), 0), (11, (3, 0, 5, 5), 0), (12, (2, 0, 5, 5), 0)]:
        there = uniforms(patch_key(*name), n)
        assert abs(float(np.corrcoef(here, there)[0, 1])) < 5 / np.sqrt(n)


def test_gumbels_slice_alone() -> None:
    key = patch_key(3, (1, 0, -2, 9))
    noise = gumbels(key, (16, 35))
    assert noise.dtype == np.float32
    for token in (0, 1, 7, 15):
        np.testing.assert_array_equal(gumbels(key, (35,), start=token * 35), noise[token])


def test_gumbels_mean_and_variance() -> None:
    """Mean is Euler's constant, variance pi**2 / 6; bounds of five standard errors."""
    n = 2**18
    noise = gumbels(patch_key(3, (0, 0, 0, 0)), (n,)).astype(np.float64)
    variance = np.pi**2 / 6
    assert abs(noise.mean() - 0.5772157) < 5 * np.sqrt(variance / n)
    # The excess kurtosis of a Gumbel variable is 12/5.
    assert abs(noise.var() - variance) < 5 * variance * np.sqrt((2 + 12 / 5) / n)


def test_gumbels_are_finite_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = np.array([[0, 2**32 - 1] * 2], np.uint32)
    monkeypatch.setattr("handscroll.seeds.philox", lambda counter, key: extremes)
    noise = gumbels(np.zeros(2, np.uint32), (4,))
    np.testing.assert_allclose(noise, [-3.12999, 22.87386] * 2, atol=1e-5)


def test_bits_never_change() -> None:
    """Golden bits: if this fails, every canvas ever made would be redrawn differently."""
    key = patch_key(20220720, (3, 1, -5, 2**40), stream=2)
    assert key.tolist() == [2257586557, 2416979052]
    counter = np.zeros((4096, 4), np.uint32)
    counter[:, 0] = np.arange(4096)
    digest = hashlib.sha256(philox(counter, key).astype("<u4").tobytes()).hexdigest()
    assert digest == "17e892f3687030e86bef0c5630e2e1bf9bacd632718ca7a9f72fb31fa576798c"


def test_gumbels_never_change() -> None:
    """Golden noise. A last bit may differ where a platform's logarithm does: about never."""
    noise = gumbels(patch_key(20220720, (3, 1, -5, 2**40), stream=2), (4096,)).astype("<f4")
    digest = hashlib.sha256(noise.tobytes()).hexdigest()
    assert digest == "eafa14867a76e9bf6ca58c7c927ea87a9b28df81d49d80bf95626863b7527183"
