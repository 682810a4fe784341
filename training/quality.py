"""How good what a model paints is: closeness to real pictures, drift, memorisation, prompts.

Everything is measured on blocks of pictures (see `training.features`), with intervals that come
from resampling pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from handscroll.geometry import Region
from training.features import Change, Lite0, as_jpeg, blocks_of, blurred, cut, lively, noised
from training.metrics import (
    Blocks,
    Estimate,
    Floats,
    Probe,
    auc,
    bootstrap,
    fit_probe,
    frechet,
    kid,
    nearest,
)
from training.pictures import Picture, Pixels
from training.samples import PLANE_PX, STEP_PX, Studio, view

ENOUGH_PICTURES = 5
"""Fewer real pictures tell nothing about how real pictures differ."""

ENOUGH_BLOCKS = 50
"""The Fréchet distance of fewer is mostly noise."""

YARDSTICK = blurred(2)
DAMAGES = (blurred(1), YARDSTICK, blurred(3), blurred(6), noised(16), as_jpeg(20))
"""What the distance of samples is compared with; the yardstick is their target."""

DISTANCES_PX = (10_000, 1_000_000, 1_000_000_000)
LOOKS = ("brightness", "contrast", "saturation", "detail")

PROMPTS = {
    "sea": "Waves roll in from a wide blue sea",
    "mountain": "Rugged mountain peaks rise under a blue sky",
    "forest": "A dense green forest of tall trees",
    "desert": "A dry sandy desert stretches to the horizon",
    "snow": "Snow covers the ground and the mountains",
    "sunset": "The sun sets in a glowing orange sky",
}
"""What is asked for, by the tag of the real pictures that show it."""
BESIDE = {
    "sea": "sunset",
    "mountain": "snow",
    "forest": "mountain",
    "desert": "sunset",
    "snow": "mountain",
    "sunset": "sea",
}
"""For what each tag is, in turn, not wanted: of which other tag's prompt it is the negative one."""
PROMPT_LEVEL = 1
FOLDS = 5

THUMBNAIL = 8
"""Cells to a side of what blocks look like from afar."""


def bands(picture: Picture) -> list[Picture]:
    """A map as pictures about PLANE_PX wide, so that it can be resampled; others as they are."""
    width_px = picture.levels[0].shape[1]
    count = picture.levels[-1].shape[1] // PLANE_PX
    if count < 2:
        return [picture]
    found = []
    for number in range(count):
        levels = []
        for level, pixels in enumerate(picture.levels):
            width = width_px // count << level
            levels.append(pixels[:, number * width : (number + 1) * width])
        found.append(replace(picture, name=f"{picture.name} {number}", levels=tuple(levels)))
    return found


class Closeness(NamedTuple):
    """How far a set of blocks is from real ones, by level; None where there are too few."""

    name: str
    kid: list[Estimate | None]
    frechet: list[float | None]


def closeness(
    lite0: Lite0,
    painted: Sequence[Picture],
    real: Sequence[Picture],
    changes: Sequence[tuple[str, Change]],
) -> tuple[list[Closeness], list[int]]:
    """Distances to real pictures: of painted ones, and of changed copies of the real ones.

    Returns:
        the samples first, then the changes by the names they come with; and how many blocks the
        Fréchet distances of each level stand on.
    """
    rows = [Closeness(name, [], []) for name in ("samples", *(name for name, _ in changes))]
    counts = []
    for level in range(len(real[0].levels)):
        wanted = lite0.describe(real, level)
        sets = [lite0.describe(painted, level)]
        sets += [lite0.describe(real, level, change) for _, change in changes]
        counts.append(min(len(sets[0]), len(wanted)))
        rng = np.random.default_rng(0)
        drawn = [rng.permutation(len(one))[: counts[-1]] for one in (wanted, *sets)]
        target_ND = wanted.features_ND[drawn[0]]
        for row, found, some in zip(rows, sets, drawn[1:], strict=True):
            row.kid.append(_kid(found, wanted))
            enough = counts[-1] >= ENOUGH_BLOCKS
            row.frechet.append(frechet(found.features_ND[some], target_ND) if enough else None)
    return rows, counts


def _kid(one: Blocks, other: Blocks) -> Estimate | None:
    enough = min(len(set(part.groups_N)) for part in (one, other)) >= ENOUGH_PICTURES
    return kid(one, other) if enough else None


def looks(pixels: Pixels) -> Floats:
    """What LOOKS names, in grey levels (4,): mean, spread, colourfulness, step between pixels."""
    grey = pixels.mean(axis=-1)
    steps = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
    colour = np.ptp(pixels.astype(np.int16), axis=-1).mean()
    return np.array([grey.mean(), grey.std(), colour, np.mean(steps)])


class Drift(NamedTuple):
    """What a place far away differs by from the origin, over seeds.

    Attributes:
        distance_px: how far, at the finest level.
        shifts: of each of LOOKS, in grey levels.
        kid: kernel distance to the origin.
    """

    distance_px: int
    shifts: list[Estimate]
    kid: Estimate | None


def drift(lite0: Lite0, studio: Studio, near: Sequence[Picture], level: int = 1) -> list[Drift]:
    """Views of the same seeds at growing distances, against those at the origin, at a level."""
    world = near[0].world
    at_origin = [Picture(one.name, world, False, (one.levels[level],)) for one in near]
    here_GL = np.array([looks(one.levels[0]) for one in at_origin])
    found = []
    for distance in DISTANCES_PX:
        away = []
        for seed, one in enumerate(near):
            canvas = studio.canvas(world, seed)
            place = view(canvas.extent, level, distance + STEP_PX * seed)
            pixels = studio.paint(canvas, [place])
            away.append(Picture(f"{one.name}, far", world, False, tuple(pixels)))
        shift_GL = np.array([looks(one.levels[0]) for one in away]) - here_GL
        shifts = [_mean(shift_G) for shift_G in shift_GL.T]
        features = [lite0.describe(part, 0) for part in (away, at_origin)]
        found.append(Drift(distance, shifts, _kid(*features)))
    return found


def _mean(values_G: Floats) -> Estimate:
    return bootstrap(lambda drawn: float(values_G[drawn].mean()), len(values_G))


def trend(scroll: Pixels, section_px: int = 1000) -> Iterator[tuple[str, list[float], Estimate]]:
    """Along one continuous scroll: each of LOOKS by quarters, and its trend from end to end."""
    starts = range(0, scroll.shape[1] - section_px + 1, section_px)
    values_SL = np.array([looks(scroll[:, start : start + section_px]) for start in starts])
    along_S = np.linspace(-0.5, 0.5, len(values_SL))

    for name, values_S in zip(LOOKS, values_SL.T, strict=True):

        def slope(drawn: NDArray[np.int64], values_S: Floats = values_S) -> float:
            place = along_S[drawn] - along_S[drawn].mean()
            return float(place @ values_S[drawn] / (place @ place))

        quarters = [float(part.mean()) for part in np.array_split(values_S, 4)]
        yield name, quarters, bootstrap(slope, len(values_S))


class Copies(NamedTuple):
    """How near samples lie to training pictures, in one measure.

    Attributes:
        measure: features, or pixels from afar.
        share: of samples nearer to training than all but 1 % of held-out blocks are.
        ratio: the median distance of samples to training over that of held-out blocks.
        blocks: how many samples and how many held-out blocks this is about.
        pairs: the most suspicious samples, each with the training block it is nearest to.
    """

    measure: str
    share: Estimate
    ratio: float
    blocks: tuple[int, int]
    pairs: list[tuple[Pixels, Pixels]]


def memorisation(
    lite0: Lite0,
    painted: Sequence[Picture],
    held: Sequence[Picture],
    train: Sequence[Picture],
    mirrored: bool,
    shown: int = 8,
) -> list[Copies]:
    """The nearest training block of every lively sample and held-out block, level by level.

    Args:
        lite0: the features.
        painted, held, train: pictures.
        mirrored: training saw its pictures mirrored too.
        shown: how many pairs of the finest level to return.
    """
    searches: dict[str, Search] = {
        "features": partial(_by_features, lite0),
        "pixels": partial(_by_pixels, mirrored),
    }
    result = []
    for measure, search in searches.items():
        near, ratios, groups, others = [], [], [], 0
        for level in range(len(train[0].levels)):
            samples = search(painted, train, level)
            found = [_lively(part, level) for part in (painted, held)]
            sample_N = samples.distance_N[found[0]]
            real_M = search(held, train, level).distance_N[found[1]]
            near.append(sample_N < np.percentile(real_M, 1))
            ratios.append(sample_N / np.median(real_M))
            groups.append(lite0.describe(painted, level).groups_N[found[0]])
            others += len(real_M)
        suspicious = np.flatnonzero(found[0])[sample_N.argsort()[:shown]]
        pairs = [(_blocks(painted, level)[one], samples.crop(one)) for one in suspicious]
        near_N = np.concatenate(near)
        share = _share(near_N, np.concatenate(groups))
        ratio = float(np.median(np.concatenate(ratios)))
        result.append(Copies(measure, share, ratio, (len(near_N), others), pairs))
    return result


class Nearest(NamedTuple):
    """The nearest training blocks of some blocks: how far away, and what each shows."""

    distance_N: Floats
    crop: Callable[[int], Pixels]


Search = Callable[[Sequence[Picture], Sequence[Picture], int], Nearest]


def _by_features(
    lite0: Lite0, pictures: Sequence[Picture], train: Sequence[Picture], level: int
) -> Nearest:
    among_ND = lite0.describe(train, level).features_ND
    distance_N, number_N = nearest(lite0.describe(pictures, level).features_ND, among_ND)
    blocks = [blocks_of(picture, level) for picture in train]
    starts = np.cumsum([0, *map(len, blocks)])

    def crop(block: int) -> Pixels:
        number = number_N[block]
        picture = int(np.searchsorted(starts, number, side="right")) - 1
        return blocks[picture][number - starts[picture]]

    return Nearest(distance_N, crop)


def _by_pixels(
    mirrored: bool, pictures: Sequence[Picture], train: Sequence[Picture], level: int
) -> Nearest:
    """Training blocks at all places a cell apart, seen as THUMBNAIL by THUMBNAIL cells.

    Blocks are compared up to their mean colour and contrast.
    """
    blocks = _blocks(pictures, level)
    side = blocks.shape[1]
    cell = side // THUMBNAIL
    wanted_ND = _standard(np.stack([_cells(block, cell).transpose(2, 0, 1) for block in blocks]))
    distance_N = np.full(len(blocks), np.inf)
    crops = list(blocks)
    for picture in train:
        for way in (1, -1) if mirrored else (1,):
            pixels = picture.levels[level][:, ::way]
            windows = sliding_window_view(_cells(pixels, cell), (THUMBNAIL, THUMBNAIL), axis=(0, 1))
            cols = windows.shape[1]
            found_N, number_N = nearest(
                wanted_ND, _standard(windows.reshape(-1, *windows.shape[2:]))
            )
            for better in np.flatnonzero(found_N < distance_N):
                top, left = (cell * int(place) for place in divmod(number_N[better], cols))
                distance_N[better] = found_N[better]
                crops[better] = pixels[top : top + side, left : left + side]
    return Nearest(distance_N, crops.__getitem__)


def _standard(cells_N3hw: Floats) -> Floats:
    """Cells as rows (N, D) of length 1, less their mean colour."""
    centred = cells_N3hw - cells_N3hw.mean(axis=(2, 3), keepdims=True)
    rows_ND = centred.reshape(len(centred), -1)
    return rows_ND / (np.linalg.norm(rows_ND, axis=1, keepdims=True) + 1e-6)


def _blocks(pictures: Sequence[Picture], level: int) -> Pixels:
    return np.concatenate([blocks_of(one, level) for one in pictures])


def _lively(pictures: Sequence[Picture], level: int) -> NDArray[np.bool_]:
    return lively(_blocks(pictures, level))


def _cells(pixels: Pixels, cell_px: int) -> NDArray[np.float32]:
    """Mean colours of whole cells (rows, columns, 3)."""
    height, width = (size // cell_px * cell_px for size in pixels.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(pixels[:height, :width]))
    return np.asarray(image.reduce(cell_px), np.float32)


def _share(found_N: NDArray[np.bool_], groups_N: NDArray[np.str_]) -> Estimate:
    """The share of blocks for which something holds; pictures are resampled."""
    parts = [found_N[groups_N == name] for name in np.unique(groups_N)]

    def mean(drawn: NDArray[np.int64]) -> float:
        return float(np.concatenate([parts[number] for number in drawn]).mean())

    return bootstrap(mean, len(parts))


class Following(NamedTuple):
    """Whether a prompt changes what is painted.

    Attributes:
        tag: what is asked for.
        photographs: how many real ones show it.
        judge: how well the classifier knows it in real photographs that it was not fitted on: AUC.
        painted: how well it tells pictures painted with the prompt from those without: AUC.
        probe: the classifier.
    """

    tag: str
    photographs: int
    judge: Estimate
    painted: Estimate
    probe: Probe


def asked(studio: Studio, world: str, prompt: str, seeds: int, negative: str = "") -> list[Pixels]:
    """What seeds paint of a prompt, and not of another: squares as high as a scroll is."""
    canvases = [studio.canvas(world, seed, prompt, negative) for seed in range(seeds)]
    extent = canvases[0].extent
    height, _ = extent.size(PROMPT_LEVEL)
    assert height is not None
    _, left = extent.shift_px(PROMPT_LEVEL)
    region = Region(PROMPT_LEVEL, 0, left, height, height)  # from a tile's edge: fewer patches
    return [studio.paint(canvas, [region])[0] for canvas in canvases]


def following(
    lite0: Lite0,
    studio: Studio,
    world: str,
    real: Sequence[Picture],
    tags: Mapping[str, Sequence[str]],
    seeds: int,
) -> Iterator[Following]:
    """For each of PROMPTS, seeds painted with it and with none, told apart by a classifier.

    The classifier is fitted on real photographs; it is judged on the fifth of them, in turn, that
    it has not seen.

    Args:
        lite0: the features.
        studio: what paints.
        world: a scroll's.
        real: photographs of that world.
        tags: what each shows, by name.
        seeds: how many to paint.
    """
    height = real[0].levels[PROMPT_LEVEL].shape[0]
    squares = [cut(one.levels[PROMPT_LEVEL], height) for one in real]
    features = [lite0.look(part) for part in squares]
    fold = np.arange(len(real)) % FOLDS
    without_ND = _features(lite0, asked(studio, world, "", seeds))
    for tag, prompt in PROMPTS.items():
        yes = np.array([tag in tags[one.name] for one in real])
        scores: list[Floats] = [np.empty(0)] * len(real)
        for left_out in range(FOLDS):
            judge = _judge(features, yes, np.flatnonzero(fold != left_out))
            for number in np.flatnonzero(fold == left_out):
                scores[number] = judge.score(features[number])
        own = bootstrap(partial(_own_auc, scores, yes), len(real))
        judge = _judge(features, yes, np.arange(len(real)))
        with_ND = _features(lite0, asked(studio, world, prompt, seeds))
        yield Following(tag, int(yes.sum()), own, _apart(judge, with_ND, without_ND), judge)


def shunned(lite0: Lite0, studio: Studio, world: str, one: Following, seeds: int) -> Estimate:
    """How well a tag's classifier tells another prompt's pictures without it from those with it.

    The AUC of `BESIDE`'s prompt with the tag's as the negative one, against that prompt alone:
    below 0.5, less is seen of what is not wanted.
    """
    other = PROMPTS[BESIDE[one.tag]]
    with_ND, without_ND = (
        _features(lite0, asked(studio, world, other, seeds, negative))
        for negative in (PROMPTS[one.tag], "")
    )
    return _apart(one.probe, with_ND, without_ND)


def _features(lite0: Lite0, squares: Sequence[Pixels]) -> Floats:
    return np.concatenate([lite0.look(square[None]) for square in squares])


def _apart(judge: Probe, with_ND: Floats, without_ND: Floats) -> Estimate:
    """How well a classifier tells seeds painted in one way from the same in another: AUC."""
    scores = judge.score(with_ND), judge.score(without_ND)
    return bootstrap(partial(_paired_auc, *scores), len(with_ND))


def _judge(features: Sequence[Floats], yes: NDArray[np.bool_], chosen: NDArray[np.int64]) -> Probe:
    views = np.concatenate([np.full(len(features[number]), yes[number]) for number in chosen])
    return fit_probe(np.concatenate([features[number] for number in chosen]), views)


def _own_auc(scores: Sequence[Floats], yes: NDArray[np.bool_], drawn: NDArray[np.int64]) -> float:
    return auc(
        *(
            np.concatenate([scores[number] for number in drawn if yes[number] == wanted])
            for wanted in (True, False)
        )
    )


def _paired_auc(with_N: Floats, without_N: Floats, drawn: NDArray[np.int64]) -> float:
    return auc(with_N[drawn], without_N[drawn])
