"""The laws of `handscroll.field`: a pure function of seed and place, smooth, and never alien."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from handscroll.context import Floats
from handscroll.field import CELL_PX, MARGIN, Layout, Palette, ProceduralField, flowing, frayed
from handscroll.geometry import PATCH_PX, Extent, Patch

F = 16
CELLS = PATCH_PX // CELL_PX
LAYERS = 11
"""Rows of cells of the scroll: 704 px are 176 px high at level 0."""
PLANE = Extent("plane", 2)
SCROLL = Extent("scroll", 2, 704)
PICTURE = Extent("picture", 2, 704, 1216)

RNG = np.random.default_rng(11)
FLAT = RNG.uniform(-1, 1, (20, 1, 1, 4)).astype(np.float32)
LAYERED = RNG.uniform(-1, 1, (20, LAYERS, 1, 4)).astype(np.float32)
WIDE = RNG.uniform(-1, 1, (20, LAYERS, 7, 4)).astype(np.float32)

SPACING = 6
WORLD = ProceduralField(5, PLANE, Palette(FLAT, None, SPACING, layered=False), F)
LAND = ProceduralField(5, SCROLL, Palette(LAYERED, None, SPACING, layered=True), F)
FIELDS = st.sampled_from(
    [
        WORLD,
        LAND,
        ProceduralField(9, PICTURE, Palette(LAYERED, None, 4, layered=True), F),
        ProceduralField(9, SCROLL, Palette(WIDE, None, 8, layered=True), F),
    ]
)

PLACES = st.integers(-20, 20) | st.integers(-(10**9), 10**9)


def span(first: int, count: int) -> NDArray[np.int64]:
    return np.arange(first, first + count)


def rows_of(field: ProceduralField, first: int, count: int) -> NDArray[np.int64]:
    """Some rows of cells: the scroll's own where a palette says what stands in which."""
    return span(0, LAYERS) if field.palette.layered else span(first, count)


def cells_around(field: ProceduralField, patch: Patch) -> dict[tuple[int, int], bytes]:
    """What a patch sees, by absolute cell: places are turned back into cells here."""
    values, places = field.around(patch)
    assert values.dtype == places.dtype == np.float32
    pixels = (places.astype(np.float64) + 0.5) * F + np.array([patch.row, patch.col]) * PATCH_PX
    cells = pixels / CELL_PX - 0.5
    assert (cells == np.round(cells)).all()
    found = {
        (int(row), int(col)): value.tobytes()
        for (row, col), value in zip(cells, values, strict=True)
    }
    assert len(found) == len(values)
    return found


@settings(max_examples=20)
@given(FIELDS, PLACES, PLACES, st.integers(1, 4), st.integers(1, 4))
def test_cells_of_a_block_are_those_of_its_cells(
    field: ProceduralField, row: int, col: int, height: int, width: int
) -> None:
    """Bit by bit: nothing depends on what else is asked for."""
    rows, cols = rows_of(field, row, height), span(col, width)
    block = field.cells(rows, cols)
    assert block.shape == (len(rows), width, 4)
    for i, one_row in enumerate(rows):
        for j, one_col in enumerate(cols):
            alone = field.cells(span(int(one_row), 1), span(int(one_col), 1))
            np.testing.assert_array_equal(block[i, j], alone[0, 0])


@settings(max_examples=25)
@given(PLACES, PLACES, st.sampled_from([(0, 1), (1, 0), (1, 1), (1, -1)]))
def test_neighbouring_patches_agree(row: int, col: int, step: tuple[int, int]) -> None:
    here = cells_around(WORLD, Patch(0, 0, row, col))
    there = cells_around(WORLD, Patch(0, 0, row + step[0], col + step[1]))
    shared = here.keys() & there.keys()
    along, across = 2 * MARGIN, CELLS + 2 * MARGIN if 0 in step else 2 * MARGIN
    assert len(shared) == along * across
    assert all(here[cell] == there[cell] for cell in shared)


@settings(max_examples=15)
@given(PLACES, PLACES)
def test_around_is_the_patch_and_the_cells_beside_it(row: int, col: int) -> None:
    found = cells_around(WORLD, Patch(0, 0, row, col))
    rows, cols = (span(CELLS * index - MARGIN, CELLS + 2 * MARGIN) for index in (row, col))
    assert list(found) == [(r, c) for r in rows.tolist() for c in cols.tolist()]
    block = WORLD.cells(rows, cols).reshape(-1, 4)
    assert [value.tobytes() for value in block] == list(found.values())


@settings(max_examples=15)
@given(PLACES)
def test_cells_outside_the_canvas_are_absent(col: int) -> None:
    found = cells_around(LAND, Patch(0, 0, 0, col))
    cols = span(CELLS * col - MARGIN, CELLS + 2 * MARGIN).tolist()
    assert list(found) == [(r, c) for r in range(LAYERS) for c in cols]
    picture = ProceduralField(5, PICTURE, Palette(LAYERED, None, SPACING, layered=True), F)
    assert {c for _, c in cells_around(picture, Patch(0, 0, 0, 0))} == set(range(18))
    assert {c for _, c in cells_around(picture, Patch(0, 0, 0, 1))} == set(range(14, 19))


@settings(max_examples=25)
@given(FIELDS, PLACES, PLACES)
def test_values_lie_in_the_hull_of_the_palette(field: ProceduralField, row: int, col: int) -> None:
    values = field.cells(rows_of(field, row, 9), span(col, 9))
    low, high = hull(field.palette.blocks_BRCV)
    assert (values >= low - 1e-6).all() and (values <= high + 1e-6).all()


def test_layers_are_stretched_over_a_picture_of_another_height() -> None:
    """Sky above, ground below, whatever the height; a height that was learned is left as it is."""
    palette = Palette(
        np.linspace([[[0.0] * 4]], [[[1.0] * 4]], LAYERS, axis=1, dtype=np.float32),
        None,
        SPACING,
        layered=True,
    )

    def column(height: int) -> Floats:
        extent = Extent("picture", 2, height, 1216)
        rows = -(-extent.size(0)[0] // CELL_PX)  # type: ignore[operator]
        return ProceduralField(5, extent, palette, F).cells(span(0, rows), span(0, 1))[:, 0, 0]

    np.testing.assert_allclose(column(704), np.linspace(0, 1, LAYERS), atol=1e-6)
    for height in (384, 1024, 1408):
        found = column(height)
        assert (np.diff(found) > 0).all() or len(found) < 3
        assert found[0] < 0.2 and found[-1] > 0.8


def test_an_anchor_lays_its_block_around_itself() -> None:
    """As it was cut from its picture, and beyond that mirrored."""
    block = RNG.uniform(-1, 1, (1, LAYERS, 5, 4)).astype(np.float32)
    field = ProceduralField(5, SCROLL, Palette(block, None, 140, layered=True), F)
    cells = field.cells(span(0, LAYERS), span(280 - 4, 9))
    index = [1, 0, 0, 1, 2, 3, 4, 4, 3]
    np.testing.assert_array_equal(cells, block[0][:, index])
    flat = ProceduralField(5, PLANE, Palette(block, None, 140, layered=False), F)
    cells = flat.cells(span(-280 - LAYERS // 2, LAYERS), span(-2, 5))
    np.testing.assert_array_equal(cells, block[0])


def hull(blocks_BRCV: Floats) -> tuple[Floats, Floats]:
    """The least and the most of each value: (V,)."""
    return blocks_BRCV.min(axis=(0, 1, 2)), blocks_BRCV.max(axis=(0, 1, 2))


@pytest.mark.parametrize("far", [0, -(10**9)])
def test_most_of_a_field_is_of_one_entry(far: int) -> None:
    """As some picture is; the rest passes from one into another."""
    for field, rows in ((WORLD, span(far, 60)), (LAND, span(0, LAYERS))):
        cells = field.cells(rows, span(far, 60))
        entries = field.palette.blocks_BRCV[:, :, 0]
        if field.palette.layered:
            own = (cells[:, :, None] == entries.swapaxes(0, 1)[:, None]).all(axis=-1).any(axis=-1)
        else:
            own = (cells[:, :, None] == entries[:, 0]).all(axis=-1).any(axis=-1)
        assert 0.25 < own.mean() < 0.9


def test_borders_are_bent() -> None:
    """Along no row and no column does all of it change at once."""
    values = np.array([-1, 1], np.float32).reshape(2, 1, 1, 1).repeat(4, axis=-1)
    palette = Palette(values, None, 12, layered=False)
    for seed in range(2):
        cells = ProceduralField(seed, PLANE, palette, F).cells(span(0, 72), span(0, 72))[..., 0]
        for axis in (0, 1):
            changes = np.abs(np.diff(cells, axis=axis))
            crossing = changes.max(axis=1 - axis) > 0
            at_once = (changes > changes.max() / 2).mean(axis=1 - axis)
            assert crossing.any() and at_once.max() < 0.35


@settings(max_examples=25)
@given(PLACES, PLACES)
def test_a_field_of_maps_is_smooth(row: int, col: int) -> None:
    """The blend's slope is at most 3/2 of the palette's range over two fifths of the way between
    anchors, both ways at once where a border is bent; and bends are as smooth."""
    values = WORLD.cells(span(row, 9), span(col, 9)).astype(np.float64)
    low, high = (edge.astype(np.float64) for edge in hull(FLAT))
    bend = 2 * 1.5 * (0.3 / (1 / 2) + 0.15 / (1 / 4))  # anchors an anchor, at most
    step = 1.5 / 0.4 * (1 + 2 * bend) / SPACING * (high - low).max() + 1e-5
    for axis in (0, 1):
        assert np.abs(np.diff(values, axis=axis)).max() <= step


def horizons(*heights: int) -> Palette:
    """Scenes of blue over brown, in two shades each, by the rows that sky takes."""
    rng = np.random.default_rng(1)
    layers = np.arange(LAYERS)[:, None, None]
    sky, land = np.array([-0.2, 0.2, 0.8, 0.1]), np.array([0.3, -0.1, -0.5, 0.4])
    blocks = [np.where(layers < one, sky, land) + rng.uniform(-0.1, 0.1, 4) for one in heights]
    blocks_BRCV = np.stack(blocks).repeat(12, axis=2).astype(np.float32)
    return Palette(blocks_BRCV, None, SPACING, layered=True)


@given(st.integers(1, LAYERS - 1), st.integers(1, LAYERS - 1), PLACES)
def test_one_horizon_rises_to_another(first: int, second: int, col: int) -> None:
    """Sky stays above land all the way, and no more than one row is anything between."""
    field = ProceduralField(3, SCROLL, horizons(first, second), F)
    blue = field.cells(span(0, LAYERS), span(col, 4 * SPACING))[..., 2]
    assert (np.diff(blue, axis=0) < 1e-6).all()
    assert ((blue > -0.35) & (blue < 0.65)).sum(axis=0).max() <= 1
    height = (blue > 0.15).sum(axis=0)
    low, high = min(first, second), max(first, second)
    assert height.min() >= low and height.max() <= high
    assert np.abs(np.diff(height)).max() <= math.ceil((high - low) * 1.5 / 0.8 / SPACING) + 1


@given(st.integers(0, 2**20), st.integers(1, 14))
def test_all_layers_of_scenes_beside_each_other_are_joined_in_their_order(
    seed: int, rows: int
) -> None:
    blocks = np.random.default_rng(seed).uniform(-1, 1, (3, rows, 16, 4)).astype(np.float32)
    palette = Palette(blocks, None, SPACING, layered=True)
    pairs = palette.joined(0, 3)
    assert pairs[0].tolist() == [0, 0] and pairs[-1].tolist() == [rows - 1, rows - 1]
    steps = np.diff(pairs, axis=0)
    assert ((steps >= 0) & (steps <= 1)).all() and steps.any(axis=1).all()
    alike = palette.joined(2, 3)  # a block, and to its right its mirror image: the same edge
    np.testing.assert_array_equal(alike, np.arange(rows)[:, None].repeat(2, axis=1))


@given(st.floats(0, 1), st.integers(1, 14), st.integers(0, 2**20))
def test_flowing_begins_at_one_entry_and_ends_at_the_other(
    share: float, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.uniform(-1, 1, (2, rows, 3, 4)).astype(np.float32)
    steps = rng.integers(0, 3, 2 * rows)
    path = [(0, 0)]
    for step in steps:
        down = (step != 1, step != 2)
        path.append(tuple(min(at + one, rows - 1) for at, one in zip(path[-1], down, strict=True)))
    path += [(rows - 1, rows - 1)] if path[-1] != (rows - 1, rows - 1) else []
    joined = np.array(list(dict.fromkeys(path)))
    found = flowing(left, right, np.array([0.0, share, 1.0]), joined)
    np.testing.assert_array_equal(found[:, 0], left[:, 0])
    np.testing.assert_array_equal(found[:, 2], right[:, 2])
    both = np.concatenate((left[:, 1], right[:, 1]))
    assert (found[:, 1] >= both.min(axis=0) - 1e-6).all()
    assert (found[:, 1] <= both.max(axis=0) + 1e-6).all()
    ends = (1 - share) * left[[0, -1], 1] + share * right[[0, -1], 1]
    np.testing.assert_allclose(found[[0, -1], 1], ends, atol=1e-5)


@pytest.mark.parametrize("far", [0, 10**9, -(10**9), 2**40])
def test_field_varies_wherever_it_is(far: int) -> None:
    """Over 64 anchors nearly all of 20 entries appear, as near pixel 0 so far away."""
    for field, rows, count in ((WORLD, span(far, 48), 48), (LAND, span(0, LAYERS), 384)):
        values = field.cells(rows, span(far, count))
        assert np.isfinite(values).all()
        low, high = hull(field.palette.blocks_BRCV)
        spread = values.max(axis=(0, 1)) - values.min(axis=(0, 1))
        assert (spread > 0.5 * (high - low).max(axis=0)).all()


def test_field_does_not_repeat() -> None:
    """Other places, other seeds and mirrored places have other values."""
    blocks = [WORLD.cells(span(row, 12), span(col, 12)) for row in (-12, 0, 12) for col in (0, 24)]
    palette = Palette(FLAT, None, SPACING, layered=False)
    blocks += [
        ProceduralField(seed, PLANE, palette, F).cells(span(0, 12), span(0, 12))
        for seed in (6, 2**64 - 1)
    ]
    blocks.append(WORLD.cells(span(0, 12), span(0, 12)).transpose(1, 0, 2))
    assert len({block.tobytes() for block in blocks}) == len(blocks)


def entries(row: int, col: int, count: int) -> NDArray[np.int64]:
    """Which entries of the palette a square of anchors picks."""
    return np.array(
        [
            [WORLD._entry(Layout(), r * SPACING, c * SPACING) for c in range(col, col + count)]
            for r in range(row, row + count)
        ]
    )


def test_anchors_pick_all_of_the_palette() -> None:
    """Over 100 climates every entry appears, none much more often than its share."""
    counts = np.bincount(entries(-20, -20, 40).ravel(), minlength=len(WORLD.palette))
    share = 40 * 40 / len(WORLD.palette)
    assert len(counts) == len(WORLD.palette)
    assert counts.min() > share / 4 and counts.max() < 3 * share


def test_anchors_near_each_other_share_a_climate() -> None:
    """They pick from one part of the sorted palette; far ones differ more. Bridges pick what joins
    them, from wherever it is."""
    for far in (0, 10**9):
        picked = entries(far, -far, 28)
        picks_itself = np.add.outer(np.arange(28), np.arange(28)) % 2 == 0
        near, apart = (
            np.abs(picked[step:, step:] - picked[:-step, :-step])[picks_itself[step:, step:]].mean()
            for step in (1, 14)
        )
        assert 0 < near < apart * 0.75


@settings(max_examples=20)
@given(PLACES, st.integers(0, 2**32))
def test_every_second_scene_joins_the_two_beside_it(at: int, seed: int) -> None:
    """Of scenes that rise or fall from left to right, that which goes from one to the other."""
    ends = [(left, right) for left in range(-3, 4) for right in range(-3, 4)]
    rise = np.array([np.linspace(*pair, 2 * SPACING) / 3 for pair in ends])
    scenes = np.tile(rise[:, None, :, None], (1, LAYERS, 1, 4)).astype(np.float32)
    palette = Palette(scenes, np.eye(len(ends), dtype=np.float32), 2 * SPACING, layered=True)
    field = ProceduralField(seed, SCROLL, palette, F)
    first = 2 * at * palette.spacing
    before, bridge, after = (
        field._entry(Layout(), 0, first + step * palette.spacing) for step in range(3)
    )
    assert bridge not in (before, after)

    def ends_of(entry: int) -> tuple[int, int]:
        left, right = ends[entry // 2]
        return (right, left) if entry % 2 else (left, right)

    def gap(one: int) -> int:
        left, right = ends_of(one)
        return (left - ends_of(before)[1]) ** 2 + (right - ends_of(after)[0]) ** 2

    # Of the four that join best, without the two ways of each of the two scenes beside it.
    assert gap(bridge) <= sorted(map(gap, range(len(palette))))[7]


@settings(max_examples=20)
@given(PLACES, PLACES, st.integers(0, 2**32))
def test_every_second_part_of_a_map_joins_the_four_around_it(row: int, col: int, seed: int) -> None:
    """Laid beside them, its colours differ less from theirs than those of nearly all others do."""
    apart, half = 12, 6
    noise = np.random.default_rng(3).normal(size=(12, 4, 4, 4)).astype(np.float32)
    palette = Palette(noise.repeat(5, axis=1).repeat(5, axis=2), None, apart, layered=False)
    field = ProceduralField(seed, PLANE, palette, F)
    col += (row + col + 1) % 2  # an anchor that is a bridge

    def picked(down: int, right: int) -> int:
        return field._entry(Layout(), (row + down) * apart, (col + right) * apart)

    def gap(entry: int) -> float:
        middle, total = len(palette[0]) // 2, 0.0
        for axis in (0, 1):
            for way in (-1, 1):
                other = palette[picked(*((way, 0) if axis == 0 else (0, way)))]
                edges = []
                for block, to in ((palette[entry], way), (other, -way)):
                    turned = block.swapaxes(0, axis)[..., :3].astype(np.float64)
                    first = middle + to * half - 2
                    edges.append(turned[first : first + 4, middle - half : middle + half].mean(0))
                total += float(((edges[0] - edges[1]) ** 2).sum())
        return total

    assert round(gap(picked(0, 0)), 5) <= round(sorted(map(gap, range(len(palette))))[3], 5)


def test_scenes_are_bridged_by_what_words_leave() -> None:
    """And by another picture of it than those beside it show, unless there is none."""
    scenes = RNG.uniform(-1, 1, (24, LAYERS, 8, 4)).astype(np.float32)
    captions = np.eye(6, dtype=np.float32)[np.arange(24) // 4]
    palette, which = Palette(scenes, captions, SPACING, layered=True), np.arange(48) // 8
    about = np.array([0, 0.2, 0.4, 0.6, 0.8, 1], np.float32)
    left = palette.alike(about)
    for col in range(1, 100, 2):
        picked = [
            ProceduralField(5, SCROLL, palette, F)._entry(Layout(about), 0, SPACING * one)
            for one in (col - 1, col, col + 1)
        ]
        assert set(picked) <= set(left)
        assert which[picked[1]] not in which[picked[::2]]
    assert set(palette.between({(0, -1): 0, (0, 1): 40}, np.arange(8))) == set(range(8))


def test_field_never_changes() -> None:
    """Golden bits: sums and products of doubles, the same on every platform."""
    digest = hashlib.sha256()
    for field, rows in ((WORLD, span(-9, 20)), (LAND, span(0, LAYERS))):
        digest.update(field.cells(rows, span(2**33 - 9, 20)).astype("<f4").tobytes())
    assert digest.hexdigest() == "573be2666998fa0aa2875f29e902d354efd59d0a5c3f3fd82666bf0bfaf7dd2b"


def test_words_leave_only_what_was_described_alike() -> None:
    rng = np.random.default_rng(0)
    entries = rng.uniform(-1, 1, (100, 1, 1, 4)).astype(np.float32)
    which = rng.integers(20, size=100)
    captions = np.eye(20, dtype=np.float32)[which]
    about = np.zeros(20, np.float32)
    about[[3, 4, 9, 11, 17]] = 1.0, 0.9, 0.8, 0.7, 0.6
    alike = np.flatnonzero(about[which] > 0)
    palette = Palette(entries, captions, SPACING, layered=False)
    cells = ProceduralField(5, PLANE, palette, F, (Layout(about),)).cells(
        span(-50, 100), span(-50, 100)
    )
    low, high = hull(entries[alike])
    assert (cells >= low - 1e-5).all() and (cells <= high + 1e-5).all()
    untold = Palette(entries, None, SPACING, layered=False)
    nobody_knows = ProceduralField(5, PLANE, untold, F, (Layout(about),))
    np.testing.assert_array_equal(
        nobody_knows.cells(span(-50, 100), span(-50, 100)),
        ProceduralField(5, PLANE, untold, F).cells(span(-50, 100), span(-50, 100)),
    )


def test_blocks_are_laid_out_from_both_sides() -> None:
    """Their belts stay level; and what begins as one ends is joined to it."""
    blocks = RNG.uniform(-1, 1, (3, LAYERS, 8, 4)).astype(np.float32)
    palette = Palette(blocks, None, SPACING, layered=True)
    for number, block in enumerate(blocks):
        np.testing.assert_array_equal(palette[2 * number], block)
        np.testing.assert_array_equal(palette[2 * number + 1], block[:, ::-1])
        beside = {(0, -1): 2 * number, (0, 1): 2 * number}
        assert palette.between(beside, np.arange(6))[0] == 2 * number + 1


def test_all_that_was_described_about_as_nearly_is_left() -> None:
    nearness = np.array([0.5, 0.8, 0.78, 0.76, 0.79, 0.2, 0.775, 0.78, 0.795], np.float32)
    palette = Palette(FLAT[:9], np.eye(9, dtype=np.float32), SPACING, layered=False)
    assert set(palette.alike(nearness) // 2) == {1, 2, 4, 6, 7, 8}


@given(st.integers(0, 2**32))
def test_descriptions_that_words_leave_are_picked_as_often(seed: int) -> None:
    """However many entries each has; and all its entries are there. At least five are left."""
    rng = np.random.default_rng(seed)
    which = rng.permutation(np.concatenate((np.arange(8), rng.integers(8, size=30))))
    captions = np.eye(8, dtype=np.float32)[which]
    palette = Palette(np.zeros((38, 1, 1, 4), np.float32), captions, SPACING, layered=False)
    about = rng.permutation(np.linspace(0.1, 0.8, 8, dtype=np.float32))
    found = palette.alike(about)
    assert (np.diff(found) >= 0).all()
    which = which.repeat(2)  # an entry for each way
    counts = np.bincount(which[found], minlength=8)
    nearest = np.argsort(about)[-5:]
    assert len(set(counts[nearest])) == 1 and counts.sum() == counts[nearest].sum()
    assert set(found) == set(np.flatnonzero(np.isin(which, nearest)))


@settings(max_examples=20)
@given(PLACES, PLACES, st.booleans())
def test_a_region_is_laid_out_by_its_own_words(row: int, col: int, layered: bool) -> None:
    """Around its middle, however small it is; where it ends nothing of it is left."""
    captions = np.eye(20, dtype=np.float32)
    palette = Palette(LAYERED if layered else FLAT, captions, SPACING, layered)
    extent = SCROLL if layered else PLANE
    # Of what is said, five descriptions are left: here all of one entry.
    about = np.full(20, -1, np.float32)
    about[[2, 3, 5, 7, 11]] = 1
    alone = LAYERED if layered else FLAT
    rows = span(0, LAYERS) if layered else span(row - 4, 9)

    def down(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return (rows >= 0 if layered else np.abs(rows - row) <= 1).astype(np.float64)

    def right(cols: NDArray[np.int64]) -> NDArray[np.float64]:
        return (np.abs(cols - col) <= 1).astype(np.float64)

    bare = ProceduralField(5, extent, palette, F).cells(rows, span(col - 4, 9))
    region = Layout(about, (row, col), down, right, (col - 1, col + 2))
    both = ProceduralField(5, extent, palette, F, (Layout(), region)).cells(rows, span(col - 4, 9))
    inside = np.outer(down(rows), right(span(col - 4, 9))) > 0
    np.testing.assert_array_equal(both[~inside], bare[~inside])
    low, high = hull(alone[[2, 3, 5, 7, 11]])
    within = (both >= low - 1e-6) & (both <= high + 1e-6)
    assert within[inside].all()


@given(st.integers(1, LAYERS - 1), st.integers(1, LAYERS - 1), st.integers(1, 20), PLACES)
def test_at_the_soft_sides_of_a_region_one_horizon_rises_to_another(
    outside: int, inside: int, soft: int, col: int
) -> None:
    """In one scene, as between scenes; and any part of it may be asked for by itself."""
    palette = replace(horizons(*[outside] * 5, *[inside] * 5), captions_BW=np.eye(10, dtype="f4"))
    said = np.repeat([[1.0, 0.0], [0.0, 1.0]], 5, axis=1).astype(np.float32)
    half = 15 + soft

    def right(cols: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.clip((half - np.abs(cols + 0.5 - col)) / soft + 0.5, 0, 1)

    region = Layout(said[1], (0, col), right=right, sides=(col - half, col + half))
    field = ProceduralField(3, SCROLL, palette, F, (Layout(said[0]), region))
    rows, cols = span(0, LAYERS), span(col - 60, 120)
    cells = field.cells(rows, cols)
    blue = cells[..., 2]
    assert (np.diff(blue, axis=0) < 1e-6).all()
    assert ((blue > -0.35) & (blue < 0.65)).sum(axis=0).max() <= 1
    height = (blue > 0.15).sum(axis=0)
    assert set(height[right(cols) == 0]) == {outside}
    assert set(height[right(cols) == 1]) == {inside}
    for begin in (0, 17, 50):
        again = replace(field).cells(rows[3:], cols[begin : begin + 19])
        np.testing.assert_array_equal(again, cells[3:, begin : begin + 19])


def test_later_layouts_lie_on_top() -> None:
    captions = np.eye(20, dtype=np.float32)
    palette = Palette(FLAT, captions, SPACING, layered=False)
    layouts = tuple(Layout(one) for one in captions[:3])
    rows, cols = span(-9, 20), span(5, 20)
    alone = ProceduralField(5, PLANE, palette, F, layouts[2:]).cells(rows, cols)
    np.testing.assert_array_equal(
        ProceduralField(5, PLANE, palette, F, layouts).cells(rows, cols), alone
    )


@settings(max_examples=20)
@given(PLACES, PLACES, st.integers(0, 2**63), st.integers(1, 6))
def test_a_cover_is_frayed_where_it_is_soft(row: int, col: int, seed: int, soft: int) -> None:
    """Nothing is added to what is bare, nor taken from what is covered; it is asked in any part."""
    rows, cols = span(row, 40), span(col, 40)
    depth = np.minimum(np.arange(40), np.arange(40)[::-1]) - 8
    cover = np.outer(*[np.clip(depth / soft, 0, 1)] * 2)
    found = frayed(cover, seed, rows, cols)
    assert (found[cover == 0] == 0).all() and (found[cover == 1] == 1).all()
    assert ((found >= 0) & (found <= 1)).all()
    part = (slice(5, 21), slice(7, 30))
    np.testing.assert_allclose(
        frayed(cover[part], seed, rows[part[0]], cols[part[1]]), found[part], atol=1e-9
    )


def test_the_border_of_a_cover_is_no_straight_line() -> None:
    """Along a side, it is now farther out and now farther in."""
    cover = np.outer(np.clip(np.arange(12) / 8, 0, 1), np.ones(60))
    for seed in range(3):
        begins = (frayed(cover, seed, span(0, 12), span(0, 60)) > 0.5).argmax(axis=0)
        assert begins.max() - begins.min() >= 3


def test_places_of_the_same_words_look_different() -> None:
    palette = Palette(FLAT, np.eye(20, dtype=np.float32), SPACING, layered=False)
    about = np.eye(20, dtype=np.float32)[3]
    fields = [
        ProceduralField(5, PLANE, palette, F, (Layout(about, (0, at)),)) for at in range(0, 60, 3)
    ]
    middles = {
        field.cells(span(0, 1), span(field.layouts[0].middle[1], 1)).tobytes() for field in fields
    }
    assert len(middles) > 3
