"""Laws of the metrics: right where the answer is known, worse for damage, honest about pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handscroll import checkpoint
from handscroll.geometry import Extent, Region
from training import quality
from training.evaluate import seam_view
from training.features import Change, Lite0, as_jpeg, blocks_of, blurred, cut, lively, noised
from training.metrics import (
    Blocks,
    auc,
    bootstrap,
    fit_probe,
    frechet,
    kid,
    nearest,
)
from training.pictures import Picture, Pixels
from training.samples import PLANE_PX, Studio, rows, view
from training.seams import TOKENS, Seams, line_kind, measure_seams

FEATURES = 16

PLANE = Extent("plane", 2)


def drawn(
    seed: int, pictures: int = 8, each: int = 4, shift: float = 0.0, name: str = ""
) -> Blocks:
    """Blocks whose picture decides most of what they show."""
    rng = np.random.default_rng(seed)
    pictures_GD = rng.normal(shift, 1, (pictures, FEATURES))
    features_ND = np.repeat(pictures_GD, each, axis=0) + rng.normal(
        0, 0.3, (pictures * each, FEATURES)
    )
    return Blocks(features_ND, np.repeat([f"{name}{number}" for number in range(pictures)], each))


def textured(seed: int, height: int, width: int, coarse: int = 8) -> Pixels:
    """Coloured clouds."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (height // coarse + 1, width // coarse + 1, 3))
    return cells.repeat(coarse, 0).repeat(coarse, 1)[:height, :width].astype(np.uint8)


def picture(seed: int, width: int = 896, name: str | None = None, world: str = "scroll") -> Picture:
    levels = tuple(textured(seed, 704 >> down, width >> down, 32 >> down) for down in (2, 1, 0))
    return Picture(name or f"picture {seed}", world, False, levels)


class Plain(Lite0):
    """Features that need no network: the block at 4 by 4, and how much its pixels differ."""

    def __init__(self) -> None:
        pass

    def look(self, blocks: Pixels, change: Change | None = None) -> NDArray[np.float32]:
        changed = (change.apply(blocks) if change else blocks).astype(np.float32) / 64
        cell = changed.shape[1] // 4
        means = changed.reshape(len(blocks), 4, cell, 4, cell, 3).mean(axis=(2, 4))
        steps = np.abs(np.diff(changed, axis=2)).mean(axis=(1, 2))
        return np.concatenate((means.reshape(len(blocks), -1), 20 * steps), axis=1)


def test_kid_of_one_kind_of_picture_is_zero_on_average() -> None:
    values = np.array(
        [kid(drawn(2 * n, name="a"), drawn(2 * n + 1, name="b")).value for n in range(40)]
    )
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    assert (values < 0).mean() > 0.2


def test_kid_grows_with_the_difference_and_its_interval_holds_it() -> None:
    here = drawn(0, pictures=40, name="a")
    found = [kid(drawn(1, pictures=40, shift=shift, name="b"), here) for shift in (0, 0.5, 1)]
    assert found[0].value < found[1].value < found[2].value
    assert all(one.low < one.value < one.high for one in found)
    assert found[0].low < 0 < found[1].low


def test_kid_to_itself_is_zero_and_to_its_damaged_copy_precise() -> None:
    here = drawn(0)
    assert kid(here, here).value == pytest.approx(0, abs=1e-12)
    moved = Blocks(here.features_ND + 0.5, here.groups_N)
    paired, apart = kid(moved, here), kid(drawn(1, shift=0.5, name="b"), here)
    assert paired.low > 0
    assert paired.high - paired.low < apart.high - apart.low


def test_kid_of_a_single_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        kid(drawn(0, pictures=1), drawn(1))


def test_frechet_of_moved_and_of_stretched_features_is_exact() -> None:
    rng = np.random.default_rng(0)
    here_ND = rng.normal(size=(40, 64))  # fewer blocks than features, as with the real ones
    assert frechet(here_ND, here_ND) == pytest.approx(0, abs=1e-9)
    assert frechet(here_ND + 3, here_ND) == pytest.approx(9 * 64)
    variance = here_ND.var(axis=0, ddof=1).sum()
    mean = (here_ND.mean(axis=0) ** 2).sum()
    assert frechet(2 * here_ND, here_ND) == pytest.approx(variance + mean)


def test_frechet_of_two_gaussians_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    spreads = np.array([[1.0, 2.0, 0.5], [2.0, 0.5, 1.5]])
    one, other = (rng.normal(0, spread, (4000, 3)) for spread in spreads)
    assert frechet(one, other) == pytest.approx(((spreads[0] - spreads[1]) ** 2).sum(), rel=0.05)


def test_auc_counts_pairs_and_halves_ties() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert auc(np.array([0.0]), np.array([1.0, 2.0])) == 0
    assert auc(np.array([1.0, 2.0]), np.array([1.0])) == 0.75


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        values = rng.normal(size=30)
        found = bootstrap(lambda drawn, values=values: float(values[drawn].mean()), 30)  # type: ignore[misc]
        held += found.low < 0 < found.high
    assert 80 <= held <= 97  # 90 are meant


def test_probe_finds_a_rare_property_among_more_features_than_pictures() -> None:
    rng = np.random.default_rng(0)
    yes_N = np.arange(120) % 6 == 0
    features_ND = rng.normal(size=(120, 300))
    features_ND[yes_N, :20] += 1.5
    judge = fit_probe(features_ND[:60], yes_N[:60])
    scores = judge.score(features_ND[60:])
    assert auc(scores[yes_N[60:]], scores[~yes_N[60:]]) > 0.9
    known = judge.score(features_ND[:60])
    assert known[yes_N[:60]].min() > known[~yes_N[:60]].max()


def test_nearest_is_the_nearest() -> None:
    rng = np.random.default_rng(0)
    wanted, among = rng.normal(size=(300, 5)), rng.normal(size=(50, 5))
    distance, number = nearest(wanted, among)
    every = np.linalg.norm(wanted[:, None] - among[None], axis=-1)
    np.testing.assert_allclose(distance, every.min(axis=1))
    np.testing.assert_array_equal(number, every.argmin(axis=1))


def test_blocks_cover_a_picture_to_its_edges_without_overlap() -> None:
    pixels = np.arange(60 * 120 * 3).reshape(60, 120, 3)
    blocks = cut(pixels, 19)  # type: ignore[arg-type]
    assert blocks.shape == (18, 19, 19, 3)
    assert len(np.unique(blocks)) == blocks.size
    assert blocks[0, 0, 0, 0] == 0
    assert blocks[-1, -1, -1, -1] == pixels[-1, -1, -1]


def test_flat_blocks_are_not_lively() -> None:
    one = picture(0)
    one.levels[2][:224, :224] = 77
    found = lively(blocks_of(one, 2))
    assert not found[0]
    assert found[1:].all()


def test_bands_of_a_map_are_the_same_places_at_all_levels() -> None:
    finest = textured(0, 64, 3392, 1)
    world = Picture("map", "planet", False, (finest[::4, ::4], finest[::2, ::2], finest))
    found = quality.bands(world)
    assert [one.name for one in found] == ["map 0", "map 1", "map 2"]
    for one in found:
        assert one.levels[2].shape[1] >= PLANE_PX
        np.testing.assert_array_equal(one.levels[2][::4, ::4], one.levels[0])
        np.testing.assert_array_equal(one.levels[2][::2, ::2], one.levels[1])
    assert found[0].levels[2].shape[1] * 3 > 3392 - 12


@pytest.mark.parametrize(
    "change", [blurred(2), noised(16), as_jpeg(20)], ids=lambda change: change.name
)
def test_damage_changes_blocks_the_same_way_each_time(change: Change) -> None:
    blocks = cut(textured(0, 224, 448), 224)
    before = blocks.copy()
    damaged = change.apply(blocks)
    assert damaged.shape == blocks.shape
    assert damaged.dtype == np.uint8
    assert (damaged != blocks).any()
    np.testing.assert_array_equal(change.apply(blocks), damaged)
    np.testing.assert_array_equal(blocks, before)


def test_damage_moves_pictures_further_from_the_real_ones_the_stronger_it_is() -> None:
    real = [picture(seed) for seed in range(6)]
    others = [picture(seed) for seed in range(50, 56)]
    changes = [(str(sigma), blurred(sigma)) for sigma in (1, 2, 6)]
    found, counts = quality.closeness(Plain(), others, real, changes)
    assert [row.name for row in found] == ["samples", "1", "2", "6"]
    assert counts[2] == 6 * 12
    samples, *damages = (row.kid[2] for row in found)
    values = [one.value for one in damages if one is not None]
    assert 0 < values[0] < values[1] < values[2]
    assert samples is not None
    assert samples.low < 0 < samples.high
    assert found[0].frechet[0] is None  # 18 blocks of 176 px
    assert found[1].frechet[2] is not None


@pytest.mark.parametrize("mirror", [1, -1])
def test_copies_of_training_pictures_are_found_where_they_are(mirror: int) -> None:
    train, held = [picture(seed) for seed in range(4)], [picture(seed) for seed in range(10, 14)]
    fresh = [picture(seed, name=f"seed {seed}") for seed in range(20, 24)]
    stolen = train[2].levels[2][:, ::mirror]
    fresh[1].levels[2][:, :448] = stolen[:, 28 * 3 : 28 * 3 + 448]  # a whole number of cells off
    found = quality.memorisation(Plain(), fresh, held, train, mirrored=True)
    pixels = next(one for one in found if one.measure == "pixels")
    assert pixels.share.value >= 6 / pixels.blocks[0]
    for sample, crop in pixels.pairs[:6]:
        assert (sample == crop).all(axis=-1).mean() > 0.5  # half a cell off, each way, at most
    clean = quality.memorisation(Plain(), [fresh[0], *fresh[2:]], held, train, mirrored=True)
    assert max(one.share.value for one in clean) < 0.1


def test_copies_mirrored_are_none_where_training_did_not_mirror() -> None:
    train, held = [picture(seed) for seed in range(2)], [picture(seed) for seed in range(10, 14)]
    turned = Picture("seed 0", "x", False, tuple(level[:, ::-1] for level in train[0].levels))
    found = quality.memorisation(Plain(), [turned, picture(9)], held, train, mirrored=False)
    assert next(one for one in found if one.measure == "pixels").share.value < 0.2


def test_trend_is_the_slope_that_was_put_in() -> None:
    scroll = np.zeros((64, 20_000, 3), np.uint8)
    scroll += np.linspace(50, 150, 20_000).astype(np.uint8)[None, :, None]
    found = {name: (quarters, change) for name, quarters, change in quality.trend(scroll)}
    quarters, change = found["brightness"]
    assert change.value == pytest.approx(95, abs=1)  # from the middle of the first section
    assert change.low > 90
    assert quarters == sorted(quarters)
    assert found["saturation"][1].value == 0


def test_looks_are_what_they_are_called() -> None:
    pixels = np.full((10, 10, 3), (10, 40, 100), np.uint8)
    np.testing.assert_allclose(quality.looks(pixels), (50, 0, 90, 0))
    pixels[:, ::2] = 20
    brightness, contrast, saturation, detail = quality.looks(pixels)
    assert (brightness, contrast, saturation, detail) == (35, 15, 45, 15)


def test_seam_put_at_a_patch_border_is_found_and_no_other() -> None:
    def ratios(step: int) -> dict[str, float]:
        seams = Seams()
        for seed in range(6):
            pixels = np.random.default_rng(seed).integers(0, 40, (768, 768, 3)).astype(np.uint8)
            pixels[:, 256:] += np.uint8(step)
            pixels[:, 512:] += np.uint8(step)
            measure_seams(seams, f"{seed}", pixels, Region(2, 0, 0, 768, 768), line_kind)
        return {kind: found.value for kind, _, found in seams.ratios()}

    whole, torn = ratios(0), ratios(30)
    assert whole == pytest.approx({"vertical": 1, "horizontal": 1, TOKENS: 1}, abs=0.05)
    assert torn["vertical"] > 2
    assert torn["horizontal"] == pytest.approx(1, abs=0.05)


def test_lines_of_which_few_are_strong_have_no_seam() -> None:
    """As in pictures: by the mean of what lies beside a line most lines would be less."""
    seams, rng = Seams(), np.random.default_rng(0)
    for number in range(2000):
        steps = rng.lognormal(0, 1, (1, 80)) * rng.choice([-1, 1], (4, 80))
        seams.add("any", f"{number % 10}", steps.cumsum(axis=1), column=40)
    ((_, count, ratio),) = seams.ratios()
    assert count > 1900
    assert ratio.value == pytest.approx(1, abs=0.15)


def test_texture_of_the_token_grid_is_no_seam_of_patches() -> None:
    seams = Seams()
    for seed in range(6):
        pixels = textured(seed, 768, 768, coarse=16)
        measure_seams(seams, f"{seed}", pixels, Region(2, 0, 0, 768, 768), line_kind)
    found = {kind: ratio.value for kind, _, ratio in seams.ratios()}
    assert found["vertical"] == pytest.approx(1, abs=0.15)


class Fixed:
    """A studio whose pictures are given."""

    def __init__(self, paint: Callable[[int, str, Region], Pixels], extent: Extent = PLANE) -> None:
        self.asked, self.extent = paint, extent

    def canvas(self, world: str, seed: int, prompt: str = "", negative: str = "") -> Any:
        asked = prompt if not negative else f"{prompt}, not {negative}"
        return type("Asked", (), {"seed": seed, "prompt": asked, "extent": self.extent})

    def paint(self, canvas: Any, regions: list[Region]) -> list[Pixels]:
        return [self.asked(canvas.seed, canvas.prompt, region) for region in regions]


def test_prompt_that_changes_pictures_as_its_tag_does_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dark(pixels: Pixels) -> Pixels:
        return pixels // 2

    real: list[Picture] = []
    tags: dict[str, tuple[str, ...]] = {}
    for seed in range(40):
        one = picture(seed)
        if seed % 4 == 0:
            one = Picture(one.name, "scroll", False, tuple(map(dark, one.levels)))
        real.append(one)
        tags[one.name] = ("night",) if seed % 4 == 0 else ("day",)
        tags[one.name] += ("odd",) if seed // 4 % 2 else ()

    def paint(seed: int, prompt: str, region: Region) -> Pixels:
        found = textured(100 + seed, region.height, region.width, 16)
        if prompt == "nonsense, not dark":
            return 255 - dark(255 - found)
        return dark(found) if prompt.startswith("dark") else found

    monkeypatch.setattr(quality, "PROMPTS", {"night": "dark", "odd": "nonsense"})
    monkeypatch.setattr(quality, "BESIDE", {"night": "odd", "odd": "night"})
    studio: Any = Fixed(paint, Extent("scroll", 2, real[0].levels[-1].shape[0]))
    found = list(quality.following(Plain(), studio, "scroll", real, tags, seeds=12))
    night, odd = found
    assert night.photographs == 10
    assert night.judge.value > 0.95
    assert night.painted.low > 0.5
    assert odd.judge.value < 0.75  # nothing to see: it has only what it was fitted on
    assert odd.painted.value == 0.5
    shunned = [quality.shunned(Plain(), studio, "scroll", one, seeds=12) for one in found]
    assert shunned[0].high < 0.5
    assert shunned[1].value == 0.5


def test_drift_is_told_from_none() -> None:
    near = [picture(seed, world="planet", name=f"seed {seed}") for seed in range(6)]

    def paint(seed: int, prompt: str, region: Region) -> Pixels:
        found = textured(200 + seed + abs(region.left), 352, 448, 16)
        return found // 3 if region.left > 10**8 else found

    studio: Any = Fixed(paint)
    close, _, far = quality.drift(Plain(), studio, near)
    assert close.distance_px == 10_000
    assert abs(close.shifts[0].value) < 5
    assert far.shifts[0].high < -50
    assert close.kid is not None
    assert far.kid is not None
    assert close.kid.low <= 0 < far.kid.low


@pytest.mark.parametrize("at_px", [0, 10_000, 10**9])
@pytest.mark.parametrize("extent", [Extent("scroll", 2, 704), Extent("plane", 2)])
def test_view_is_the_same_place_at_every_level(extent: Extent, at_px: int) -> None:
    finest = view(extent, 2, at_px)
    assert finest.left + finest.width // 2 == at_px
    assert finest.top == (0 if extent.height_px else finest.left)
    for level in (0, 1):
        assert view(extent, level, at_px)[1:5] == tuple(
            side // 2 ** (2 - level) for side in finest[1:5]
        )


@pytest.mark.parametrize("at_px", [0, 10_000, -(10**9)])
@pytest.mark.parametrize("extent", [Extent("scroll", 2, 704), Extent("plane", 2)])
def test_seams_are_looked_for_around_what_is_painted(extent: Extent, at_px: int) -> None:
    small, large = view(extent, 2, at_px), seam_view(extent, at_px)
    assert large.left + large.width // 2 == at_px
    assert large.top + large.height // 2 == small.top + small.height // 2
    assert large.height * large.width == 4 * small.height * small.width
    assert extent.inside(2, large.top, large.left, (large.height, large.width), 1).all()


def test_studio_paints_once_and_finds_it_again(tiny: Path, tmp_path: Path) -> None:
    studio = Studio(checkpoint.load(tiny), tmp_path, workers=1)
    canvas = studio.canvas("planet", 3)
    regions = [Region(0, 0, 0, 64, 96), Region(0, 64, 0, 64, 96)]
    first = studio.paint(canvas, regions)
    assert [one.shape for one in first] == [(64, 96, 3)] * 2
    assert first[0].std() > 0
    files = sorted(tmp_path.rglob("*.*"))
    assert len(files) == 2
    before = [path.stat().st_mtime_ns for path in files]
    again = Studio(checkpoint.load(tiny), tmp_path, workers=1).paint(canvas, regions[:1])
    np.testing.assert_array_equal(again[0], first[0])
    assert [path.stat().st_mtime_ns for path in files] == before
    other = studio.paint(studio.canvas("planet", 4), regions[:1])
    assert (other[0] != first[0]).any()


def test_sheet_fills_its_last_row() -> None:
    shown = [np.full((2, 3, 3), number, np.uint8) for number in (1, 2, 3)]
    sheet = rows(shown, 2)
    assert sheet.shape == (4, 6, 3)
    assert sheet[2:, :3].min() == 3
    assert sheet[2:, 3:].max() == 0


def test_lite0_keeps_what_it_has_seen_by_block_and_change(tmp_path: Path) -> None:
    blocks = cut(textured(0, 176, 352), 176)
    lite0 = Lite0(tmp_path, threads=1)
    found = lite0.look(blocks)
    assert found.shape == (2, 1280)
    blurry = lite0.look(blocks, blurred(3))
    assert np.abs(found - blurry).max() > 0.1
    assert len(list(tmp_path.iterdir())) == 2
    again = Lite0(tmp_path, threads=1)
    again.network = None  # type: ignore[assignment]
    np.testing.assert_array_equal(again.look(blocks), found)
    np.testing.assert_array_equal(again.look(blocks, blurred(3)), blurry)
