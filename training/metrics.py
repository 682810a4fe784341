"""The statistics of an evaluation: distances between sets of blocks, and intervals for them.

Blocks cut from one picture are alike, so pictures, not blocks, are what is drawn at random: the
bootstrap resamples pictures, and the kernel distance leaves out all pairs of blocks from the same
picture, which makes it unbiased however few pictures there are. For the same reason a set may be
compared with a damaged copy of itself.

Shape suffixes: N, M blocks, G pictures ("groups"), D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

DRAWS = 1000
QUANTILES = (5, 95)
RIDGE = 3.0
"""Of `fit_probe`, in mean squared distances of a block from the middle of all."""


class Estimate(NamedTuple):
    """A figure, and the 5 % and 95 % quantiles of its bootstrap."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """For a table, multiplied by ``scale``: "1.23 (1.10 to 1.40)"."""
        value, low, high = (f"{one * scale + 0.0:.{digits}f}" for one in self)
        return f"{value} ({low} to {high})"


@dataclass(frozen=True)
class Blocks:
    """What is known of a set of blocks.

    Attributes:
        features_ND: one row each.
        groups_N: the name of the picture that each was cut from.
    """

    features_ND: Floats
    groups_N: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.groups_N)


def bootstrap(statistic: Callable[[NDArray[np.int64]], float], groups: int) -> Estimate:
    """A statistic of pictures, given by their numbers, and its interval.

    Args:
        statistic: takes the numbers (0 to ``groups - 1``) of the pictures to count, some more than
            once.
        groups: how many pictures there are.
    """
    rng = np.random.default_rng(0)
    draws = [statistic(rng.integers(groups, size=groups)) for _ in range(DRAWS)]
    low, high = np.percentile(draws, QUANTILES)
    return Estimate(statistic(np.arange(groups)), float(low), float(high))


def kid(one: Blocks, other: Blocks) -> Estimate:
    """Kernel distance: unbiased MMD² with the kernel (x·y / D + 1)³ (arXiv 1801.01401).

    0 for pictures of the same kind, and then as often below it as above. Pictures that are in both
    sets under the same name are resampled together.

    Raises:
        ValueError: a set has blocks of fewer than two pictures.
    """
    names, ends = np.unique([*one.groups_N, *other.groups_N], return_inverse=True)
    members = [np.eye(len(names))[part] for part in np.split(ends, [len(one)])]
    sizes = [part.sum(axis=0) for part in members]
    if min((size > 0).sum() for size in sizes) < 2:
        raise ValueError("blocks of one picture have no distance: at least two are needed")
    features = [part.features_ND.astype(np.float64) for part in (one, other)]

    def pairs(a: int, b: int) -> tuple[Floats, Floats]:
        kernel = (features[a] @ features[b].T / features[a].shape[1] + 1) ** 3
        kernels = members[a].T @ kernel @ members[b]
        counts = np.outer(sizes[a], sizes[b])
        np.fill_diagonal(kernels, 0)
        np.fill_diagonal(counts, 0)
        return kernels, counts

    within, beside, across = pairs(0, 0), pairs(1, 1), pairs(0, 1)

    def distance(here: Floats, there: Floats) -> float:
        terms = ((within, here, here), (beside, there, there), (across, here, there))
        means = [
            left @ sums @ right / (left @ counts @ right) for (sums, counts), left, right in terms
        ]
        return float(means[0] + means[1] - 2 * means[2])

    rng = np.random.default_rng(0)
    present = [np.flatnonzero(size) for size in sizes]
    same = np.array_equal(present[0], present[1])
    draws: list[float] = []
    while len(draws) < DRAWS:
        drawn = [
            np.bincount(rng.choice(part, len(part)), minlength=len(names)).astype(np.float64)
            for part in present
        ]
        if same:
            drawn[1] = drawn[0]
        if min((count > 0).sum() for count in drawn) > 1:
            draws.append(distance(drawn[0], drawn[1]))
    low, high = np.percentile(draws, QUANTILES)
    once = [(size > 0).astype(np.float64) for size in sizes]
    return Estimate(distance(once[0], once[1]), float(low), float(high))


def frechet(one_ND: Floats, other_MD: Floats) -> float:
    """Fréchet distance between the normal distributions that fit two sets of features.

    With covariances AᵀA and BᵀB, the trace of the root of their product is the sum of the singular
    values of ABᵀ. Sampling makes this distance larger than it is: compare only between sets of
    equal sizes.
    """
    sets = [part.astype(np.float64) for part in (one_ND, other_MD)]
    apart = sets[0].mean(axis=0) - sets[1].mean(axis=0)
    centred = [(part - part.mean(axis=0)) / np.sqrt(len(part) - 1) for part in sets]
    spread = sum(float((part**2).sum()) for part in centred)
    small = [np.asarray(np.linalg.qr(part, mode="r")) for part in centred]
    root = np.linalg.svd(small[0] @ small[1].T, compute_uv=False).sum()
    return float(apart @ apart) + spread - 2 * float(root)


def auc(with_N: Floats, without_M: Floats) -> float:
    """How often a score of the first set is above one of the second; 0.5 is chance."""
    difference = with_N[:, None] - without_M[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


class Probe(NamedTuple):
    """A linear classifier of features: the higher the score, the more it says yes."""

    mean_D: Floats
    weights_D: Floats

    def score(self, features_ND: Floats) -> Floats:
        """The scores (N,)."""
        return (features_ND - self.mean_D) @ self.weights_D


def fit_probe(features_ND: Floats, yes_N: NDArray[np.bool_]) -> Probe:
    """Ridge regression of yes and no on features, of which there may be more than blocks."""
    mean_D = features_ND.mean(axis=0)
    rows_ND = features_ND - mean_D
    kernel_NN = rows_ND @ rows_ND.T
    ridge_NN = RIDGE * np.trace(kernel_NN) / len(yes_N) * np.eye(len(yes_N))
    return Probe(mean_D, rows_ND.T @ np.linalg.solve(kernel_NN + ridge_NN, yes_N))


def nearest(wanted_ND: Floats, among_MD: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Euclidean distance (N,) of each row to the nearest of another set, and that one's number."""
    squares = (among_MD**2).sum(axis=1)
    best, number = np.empty(len(wanted_ND)), np.empty(len(wanted_ND), np.int64)
    for start in range(0, len(wanted_ND), 256):
        part = wanted_ND[start : start + 256]
        found = squares - 2 * part @ among_MD.T
        number[start : start + 256] = found.argmin(axis=1)
        best[start : start + 256] = found.min(axis=1) + (part**2).sum(axis=1)
    return np.sqrt(np.maximum(best, 0)), number
