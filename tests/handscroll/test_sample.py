"""The laws of `handscroll.sample`: a patch's codes follow from the canvas and its context alone."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from handscroll import sample
from handscroll.canvas import Sampling, TokenOrder
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes, Context, Floats, Source, gather
from handscroll.course import Course, Kind
from handscroll.decoder import Batch, Decoder
from handscroll.field import ProceduralField
from handscroll.geometry import PATCH_PX, Extent, Mask, Patch
from handscroll.order import Lattice
from handscroll.sample import (
    PatchSampler,
    choose,
    collate,
    token_order,
    without_field,
)
from handscroll.seeds import gumbels, patch_key

SIDE, CODES, VOCABULARY = 16, 4, 256
SEED = 20220720
PLANE = Extent("plane", 2)
SCROLL = Extent("scroll", 2, 704)


@pytest.fixture(scope="module")
def decoder(model: Checkpoint) -> Decoder:
    return model.decoder


def codes_of(patch: Patch) -> Codes:
    rng = np.random.default_rng([one + 2**50 for one in patch])
    return rng.integers(0, VOCABULARY, (SIDE, SIDE, CODES), dtype=np.uint8)


def context_of(model: Checkpoint, patch: Patch, world: str = "planet") -> Context:
    """A context as it is when its patch is drawn, of patches with random codes."""
    extent = model.worlds[world].extent
    field = ProceduralField(SEED, extent, replace(model.worlds[world].palette, spacing=6), 16)
    return gather(patch, Lattice(extent), SIDE, codes_of, field)


def drawn(sampler: PatchSampler, contexts: list[Context]) -> dict[Patch, bytes]:
    found = {patch: codes.tobytes() for patch, codes in sampler(contexts)}
    assert set(found) == {one.patch for one in contexts}
    return found


FILL = Patch(2, 0, -3, 5)
RIM = Patch(2, 0, 2, 5)
"""The lowest row of a scroll of 704 px: 12 rows of tokens inside, 4 outside."""


# The order of tokens.


def masks() -> st.SearchStrategy[Mask]:
    """What a canvas leaves of a patch: some first rows and columns."""

    def mask(rows: int, cols: int) -> Mask:
        whole = np.zeros((SIDE, SIDE), bool)
        whole[:rows, :cols] = True
        return whole

    return st.builds(mask, st.integers(1, SIDE), st.integers(1, SIDE))


@settings(max_examples=30)
@given(masks(), st.sampled_from(["spread", "raster"]))
def test_token_order_holds_each_token_inside_once(mask: Mask, name: TokenOrder) -> None:
    order = token_order(mask, name)
    assert sorted(order.tolist()) == np.flatnonzero(mask).tolist()
    if name == "raster":
        assert (np.diff(order) > 0).all()


@settings(max_examples=30)
@given(masks())
def test_token_order_at_the_rim_is_the_whole_order_thinned_out(mask: Mask) -> None:
    everywhere = token_order(np.ones_like(mask), "spread")
    expected = everywhere[mask.reshape(-1)[everywhere]]
    np.testing.assert_array_equal(token_order(mask, "spread"), expected)


@pytest.mark.parametrize("side", [16, 32])
def test_token_order_spread_begins_with_regular_grids(side: int) -> None:
    """The first 4**n tokens, and every later 4**n as well: one shape, moved."""
    order = token_order(np.ones((side, side), bool), "spread")
    rows, cols = np.divmod(order, side)
    count = 1
    while count <= side * side:
        step = side // int(count**0.5)
        grid = {(row, col) for row in range(0, side, step) for col in range(0, side, step)}
        for start in range(0, side * side, count):
            some = slice(start, start + count)
            down, right = rows[some].min(), cols[some].min()
            places = (rows[some] - down).tolist(), (cols[some] - right).tolist()
            assert set(zip(*places, strict=True)) == grid
        count *= 4


def test_token_order_spread_goes_by_chessboards() -> None:
    """Half way to the next grid: the tokens of one colour; all of it moved by an eighth."""
    places = np.divmod(token_order(np.ones((SIDE, SIDE), bool), "spread"), SIDE)
    rows, cols = (np.stack(places) - SIDE // 8) % SIDE
    for count, step in ((2, 8), (8, 4), (32, 2), (128, 1)):
        steps = range(0, SIDE, step)
        white = {(row, col) for row in steps for col in steps if (row + col) // step % 2 == 0}
        assert set(zip(rows[:count].tolist(), cols[:count].tolist(), strict=True)) == white


# Batches.


def test_collate_keeps_every_entry_and_says_what_is_none(model: Checkpoint) -> None:
    contexts = [context_of(model, one) for one in (FILL, Patch(0, 0, 1, 1), Patch(0, 0, 0, 0))]
    contexts[1] = replace(contexts[1], kind=Kind.WAVES)
    assert len(contexts[1].field_MV) and not len(contexts[2].codes_NK)
    text = np.arange(384, dtype=np.float32)
    length = max(one.padded_length for one in contexts) + 64
    batch = collate(contexts, [0, 1, 0], [None, text, None], model.decoder.config, length)
    for row, one in enumerate(contexts):
        tokens, cells = len(one.codes_NK), len(one.field_MV)
        kinds = [*one.source_N.tolist(), *[Source.FIELD] * cells]
        assert batch.source_BC[row].tolist() == kinds + [Batch.PAD] * (length - tokens - cells)
        codes = batch.codes_BCK[row, :tokens]
        np.testing.assert_array_equal(codes, one.codes_NK.reshape(tokens, CODES))
        assert not batch.codes_BCK[row, tokens:].any()
        found = batch.field_BCV[row, tokens : tokens + cells]
        np.testing.assert_array_equal(found, one.field_MV.reshape(cells, 4))
        places = np.concatenate((one.place_N2, one.field_place_M2))
        np.testing.assert_array_equal(batch.place_BC2[row, : tokens + cells], places)
    assert batch.level_B.tolist() == [2, 0, 0]
    assert batch.kind_B.tolist() == [Kind.OTHER, Kind.WAVES, Kind.OTHER]
    assert batch.world_B.tolist() == [0, 1, 0]
    assert batch.has_text_B.tolist() == [False, True, False]
    np.testing.assert_array_equal(batch.text_BW, [text * 0, text, text * 0])


def test_padded_length_follows_from_the_patch_alone(model: Checkpoint) -> None:
    """The same for patches of one phase and level, wherever they are."""
    for level in range(3):
        for phase in ((0, 0), (0, 1), (1, 0), (1, 1)):
            lengths = set()
            for far in (0, 4 * 10**9, -4 * 10**9):
                context = context_of(model, Patch(level, 0, far + phase[0], phase[1] - far))
                entries = len(context.codes_NK) + len(context.field_MV)
                length = context.padded_length
                assert length % 64 == 0 and entries <= length < entries + 64
                lengths.add(length)
            assert len(lengths) == 1


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_batches_hold_each_patch_once_with_its_like(model: Checkpoint, rows: int) -> None:
    patches = [Patch(2, 0, row, col) for row in range(3) for col in range(-3, 4)]
    contexts = [context_of(model, one, "scroll") for one in patches]
    batches = PatchSampler(model.decoder, SEED, 1, Sampling(rows=rows)).batches(contexts)
    assert sorted(one.patch for batch in batches for one in batch) == patches
    for batch in batches:
        assert 1 <= len(batch) <= rows
        assert len({one.padded_length for one in batch}) == 1
        assert len({one.inside_ss.tobytes() for one in batch}) == 1


def test_batches_part_patches_that_lie_otherwise_in_the_canvas(model: Checkpoint) -> None:
    """Contexts of one length, of which some have fewer tokens to draw."""
    whole = context_of(model, FILL)
    inside = whole.inside_ss.copy()
    inside[12:] = False
    contexts = [whole, replace(whole, inside_ss=inside), whole]
    batches = PatchSampler(model.decoder, SEED, 0, Sampling(rows=3)).batches(contexts)
    assert sorted(len(batch) for batch in batches) == [1, 2]


# Drawing a patch.


def teacher_forced(
    model: Checkpoint, context: Context, codes: Codes, sampling: Sampling, world: int
) -> Tensor:
    """The draw of every token by one `forward`, given the codes: (T, K), in drawing order."""
    order = token_order(context.inside_ss, sampling.token_order)
    flat = torch.from_numpy(codes.reshape(-1, CODES)[order].astype(np.int64))[None]
    place = torch.from_numpy(np.stack(np.divmod(order, SIDE), -1)).float()[None]
    group = (torch.arange(len(order)) // sampling.group)[None]

    def logits(context: Context, length: int) -> Tensor:
        batch = collate([context], [world], [None], model.decoder.config, length)
        with torch.inference_mode():
            logits: Tensor = model.decoder(batch, flat, place, group)[0]
        return logits[0]

    found = logits(context, context.padded_length)
    if len(context.field_MV):
        bare = logits(without_field(context), context.padded_length)
        found = bare + sampling.guidance * (found - bare)
    noise = gumbels(patch_key(SEED, context.patch), (SIDE * SIDE, CODES, VOCABULARY))[order]
    return (found + torch.from_numpy(noise)).argmax(-1)


@pytest.mark.parametrize(
    ("world", "patch", "sampling"),
    [
        ("planet", FILL, Sampling()),
        ("planet", FILL, Sampling(group=1, token_order="raster")),
        ("planet", Patch(0, 0, 1, 1), Sampling(group=64, guidance=1.75)),
        ("planet", Patch(0, 0, 0, 0), Sampling(group=256)),
        ("scroll", RIM, Sampling()),
        ("scroll", RIM, Sampling(group=32, token_order="raster")),
    ],
)
def test_drawn_codes_are_those_of_one_forward_pass(
    model: Checkpoint, world: str, patch: Patch, sampling: Sampling
) -> None:
    """Step by step from a cache, or all at once told the same codes: argmax(logits + noise)."""
    context = context_of(model, patch, world)
    index = model.worlds[world].index
    ((found, codes),) = PatchSampler(model.decoder, SEED, index, sampling)([context])
    assert found == patch and codes.dtype == np.uint8 and codes.shape == (SIDE, SIDE, CODES)
    order = token_order(context.inside_ss, sampling.token_order)
    forced = teacher_forced(model, context, codes, sampling, index)
    np.testing.assert_array_equal(forced, codes.reshape(-1, CODES)[order])
    # And not by chance: another context, or other codes before, would draw others.
    other = context_of(model, patch._replace(col=patch.col + 2), world)
    moved = replace(other, patch=patch)
    assert (forced != teacher_forced(model, moved, codes, sampling, index)).sum() > 10
    if sampling.group < 256:
        lied = teacher_forced(model, context, (codes + 99).astype(np.uint8), sampling, index)
        assert (forced != lied).sum() > 10


@pytest.mark.parametrize("rows", [2, 4])
def test_drawn_codes_do_not_depend_on_companions(model: Checkpoint, rows: int) -> None:
    """Nor on their number, nor on the order of patches or of batches."""
    patches = [Patch(2, 0, 2 * row + 1, 2 * col + 1) for row in (0, -8) for col in (-1, 0, 10**9)]
    contexts = [context_of(model, one) for one in patches]
    sampler = PatchSampler(model.decoder, SEED, 0, Sampling(rows=rows))
    together = drawn(sampler, contexts)
    assert drawn(sampler, contexts[::-1]) == together
    assert drawn(sampler, contexts[3:] + contexts[:1]).items() <= together.items()
    for one in contexts[:2]:
        assert drawn(sampler, [one])[one.patch] == together[one.patch]
    batches = sampler.batches(contexts)
    backwards = {
        patch: codes.tobytes()
        for batch in reversed(batches)
        for patch, codes in sampler.draw(batch)
    }
    assert backwards == together
    assert len(set(together.values())) == len(patches)


def test_drawn_codes_are_pure(model: Checkpoint) -> None:
    """Again the same; of another seed, world, patch or context, others."""
    context = context_of(model, FILL)
    sampling = Sampling(group=64)
    sampler = PatchSampler(model.decoder, SEED, 0, sampling)
    plain = drawn(sampler, [context])[FILL]
    assert drawn(sampler, [context])[FILL] == plain
    others = [
        drawn(PatchSampler(model.decoder, SEED + 1, 0, sampling), [context]),
        drawn(PatchSampler(model.decoder, SEED, 1, sampling), [context]),
        drawn(sampler, [replace(context, patch=FILL._replace(col=FILL.col + 4))]),
        drawn(sampler, [replace(context, codes_NK=255 - context.codes_NK)]),
    ]
    assert len({plain, *(codes for one in others for codes in one.values())}) == 5


def test_tokens_outside_the_canvas_stay_zero_and_are_asked_of_nobody(model: Checkpoint) -> None:
    context = context_of(model, RIM, "scroll")
    ((_, codes),) = PatchSampler(model.decoder, SEED, 1, Sampling(group=64))([context])
    assert not codes[12:].any() and (codes[:12].any(axis=-1)).mean() > 0.9


def test_codes_outside_the_canvas_influence_nobody(model: Checkpoint) -> None:
    """Whatever stands in a neighbour's tokens outside, the patch beside it is the same."""

    def spoilt(patch: Patch) -> Codes:
        codes = codes_of(patch).copy()
        inside = SCROLL.inside(patch.level, patch.row * SIDE, patch.col * SIDE, (SIDE, SIDE), 16)
        codes[~inside] ^= 255
        return codes

    contexts = [gather(RIM, Lattice(SCROLL), SIDE, read, None) for read in (codes_of, spoilt)]
    assert any((codes_of(one) != spoilt(one)).any() for one in Lattice(SCROLL).dependencies(RIM))
    sampler = PatchSampler(model.decoder, SEED, 1, Sampling(group=64))
    assert drawn(sampler, contexts[:1]) == drawn(sampler, contexts[1:])


# Guidance.


def texts() -> tuple[Floats, ...]:
    rng = np.random.default_rng(8)
    return tuple(rng.normal(size=384).astype(np.float32) for _ in range(2))


def always(text: Floats | None) -> Callable[[Patch], Floats | None]:
    """The same words for every patch."""
    return lambda patch: text


COARSE = Patch(0, 0, 1, 1)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("says", [False, True])
@pytest.mark.parametrize("shuns", [False, True])
def test_guidance_goes_from_nothing_to_field_and_prompt(
    model: Checkpoint, guidance: float, says: bool, shuns: bool
) -> None:
    """0 draws what the negative prompt would without a field, 1 what field and prompt say."""
    towards, away = texts()
    text, negative = towards if says else None, away if shuns else None
    context = context_of(model, COARSE)
    bare = without_field(context)
    assert len(context.field_MV) and not len(bare.field_MV)

    def draw(
        context: Context, guidance: float, text: Floats | None, negative: Floats | None = None
    ) -> bytes:
        sampling = Sampling(group=64, guidance=guidance)
        sampler = PatchSampler(model.decoder, SEED, 0, sampling, always(text), negative)
        return drawn(sampler, [context])[COARSE]

    found = draw(context, guidance, text, negative)
    assert (found == draw(bare, 1.0, negative)) == (guidance == 0)
    assert (found == draw(context, 1.0, text)) == (guidance == 1)


def test_frames_that_see_the_same_are_the_same(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise falls once for all frames: what is new in both does not flicker."""
    say(monkeypatch, new=True, came=False)
    decoder = deepcopy(model.decoder)
    torch.nn.init.zeros_(decoder.frame.weight)  # a decoder to which they are alike
    sampler = PatchSampler(decoder, SEED, 0, Sampling(group=64))
    context = context_of(model, FILL._replace(frame=1))
    first, later = (
        drawn(sampler, [replace(context, patch=patch)])[patch]
        for patch in (FILL._replace(frame=1), FILL._replace(frame=7))
    )
    assert first == later


def test_later_frames_are_drawn_colder(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is not."""
    say(monkeypatch, new=True, came=False)
    first = FILL, FILL._replace(frame=1)

    def draw(temperature: float, share: float) -> list[bytes]:
        monkeypatch.setattr(sample, "LATER", share)
        sampling = Sampling(group=64, temperature=temperature)
        sampler = PatchSampler(model.decoder, SEED, 0, sampling)
        return [drawn(sampler, [context_of(model, patch)])[patch] for patch in first]

    still, later = draw(1.0, 0.25)
    assert draw(0.5, 0.5)[1] == later != draw(1.0, 1.0)[1]
    assert draw(1.0, 1.0)[0] == still


MOVED = FILL._replace(frame=5)


def drifting(extent: Extent) -> Lattice:
    """An order of frames in which things go to the right."""
    return Lattice(extent, course=Course(down=0, right=1))


def moved_context(model: Checkpoint) -> Context:
    """That of a later frame, to which things have moved from two patches of the first."""
    return gather(MOVED, drifting(model.worlds["planet"].extent), SIDE, codes_of, None)


def say(monkeypatch: pytest.MonkeyPatch, new: Any, came: Any) -> None:
    """Have the decoder say of tokens, all or each (side, side), whether they are new, or came."""
    odds = np.stack([np.broadcast_to(9.0 * (2 * one - 1), (SIDE, SIDE)) for one in (new, came)])
    told = torch.from_numpy(odds.astype(np.float32)).flatten(1).mT

    def fate_logits(_: Decoder, answer: Tensor) -> Tensor:
        return told.expand(len(answer), -1, -1)

    monkeypatch.setattr(Decoder, "fate_logits", fate_logits)


def film(model: Checkpoint, context: Context) -> Codes:
    """The codes (side, side, K) of a later frame's patch."""
    sampler = PatchSampler(model.decoder, SEED, 0, Sampling(group=64))
    codes = np.frombuffer(drawn(sampler, [context])[context.patch], np.uint8)
    return codes.reshape(SIDE, SIDE, CODES)


@pytest.mark.parametrize("source", [Source.PREVIOUS, Source.FIRST])
def test_what_stood_or_came_is_kept(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch, source: Source
) -> None:
    context = moved_context(model)
    shown, there = context.at(source)
    order = drifting(model.worlds["planet"].extent)
    assert there.all() and order.moved_px(MOVED)[1] > 0
    say(monkeypatch, new=False, came=source == Source.FIRST)
    np.testing.assert_array_equal(film(model, context), shown)


def test_what_rather_came_has_come(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    context = moved_context(model)
    for more, source in ((0.1, Source.FIRST), (-0.1, Source.PREVIOUS)):
        say(monkeypatch, new=False, came=(1 + (sample.HAS_COME + more) / 9) / 2)
        np.testing.assert_array_equal(film(model, context), context.at(source)[0])


def test_what_is_new_sees_what_is_kept_and_what_is_gone(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = moved_context(model)
    new_ss = np.zeros((SIDE, SIDE), bool)
    new_ss[:, SIDE // 2 :] = True
    say(monkeypatch, new=new_ss, came=False)
    found, (stood, _) = film(model, context), context.at(Source.PREVIOUS)
    np.testing.assert_array_equal(found[~new_ss], stood[~new_ss])
    assert (found[new_ss] != stood[new_ss]).any(-1).mean() > 0.9
    np.testing.assert_array_equal(film(model, context.forget(new_ss)), found)
    before_N = context.source_N == Source.PREVIOUS
    left_N = context.place_N2[:, 1] < SIDE // 2
    for some_N in (before_N & left_N, before_N & ~left_N):
        codes_NK = context.codes_NK.copy()
        codes_NK[some_N] ^= 255
        other = film(model, replace(context, codes_NK=codes_NK))
        assert (other[new_ss] != found[new_ss]).any()


@pytest.mark.parametrize("unlike", [-1e3, 1e3])
def test_what_is_new_is_unlike_what_is_gone(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch, unlike: float
) -> None:
    """Each of its codes, and only where a frame before is seen; first frames have none."""
    monkeypatch.setattr(sample, "UNLIKE", unlike)
    say(monkeypatch, new=True, came=False)
    context = moved_context(model)
    stood, _ = context.at(Source.PREVIOUS)
    assert ((film(model, context) == stood) == (unlike < 0)).all()
    unseen = context.without(np.isin(context.source_N, (Source.PREVIOUS, Source.FIRST)))
    assert 0 < (film(model, unseen) == stood).mean() < 0.1
    first = context_of(model, FILL)
    found = film(model, first)
    monkeypatch.setattr(sample, "UNLIKE", 0.0)
    np.testing.assert_array_equal(film(model, first), found)


def test_tokens_around_have_a_say_in_what_becomes_of_one(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that alone has stood among those that came moves with them; the border holds."""
    context = moved_context(model)
    came_ss = np.zeros((SIDE, SIDE), bool)
    came_ss[:, : SIDE // 2] = True
    said_ss = came_ss.copy()
    said_ss[3, 3] = False
    say(monkeypatch, new=False, came=said_ss)
    found, (came, _) = film(model, context), context.at(Source.FIRST)
    np.testing.assert_array_equal((found == came).all(-1), came_ss)


def test_snow_begins_at_some_places_of_a_canvas(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all tokens are as unlikely to be new: the same places in every frame, others by seed.

    They go on across the borders of patches, and lie at the same places of all levels.
    """
    stood = 7

    def fallen(seed: int, patch: Patch, kind: Kind = Kind.FREEZE) -> Mask:
        extent = model.worlds["planet"].extent
        context = gather(patch, Lattice(extent), SIDE, lambda _: codes, None)
        sampler = PatchSampler(model.decoder, seed, 0, Sampling(group=64))
        found = drawn(sampler, [replace(context, kind=kind)])[patch]
        return (np.frombuffer(found, np.uint8).reshape(SIDE, SIDE, CODES) != stood).any(-1)

    codes = np.full((SIDE, SIDE, CODES), stood, np.uint8)
    odds = (sample.SNOWS + sample.IS_NEW) / 2
    say(monkeypatch, new=(1 + odds / 9) / 2, came=False)
    rows = range(-2, 2)
    world = {
        frame: np.block([[fallen(SEED, Patch(0, frame, r, c)) for c in rows] for r in rows])
        for frame in (1, 5)
    }
    assert 0.1 < world[1].mean() < 0.9
    np.testing.assert_array_equal(world[1], world[5])
    changes = (world[1][:, 1:] != world[1][:, :-1]).mean(axis=0)
    assert changes[SIDE - 1 :: SIDE].mean() < 0.2  # of tokens on both sides of a border
    finer = fallen(SEED, Patch(1, 1, 0, 0))
    coarse = world[1][2 * SIDE : 2 * SIDE + SIDE // 2, 2 * SIDE : 2 * SIDE + SIDE // 2]
    assert (finer[::2, ::2] == coarse).mean() > 0.9
    assert (fallen(SEED + 1, Patch(0, 1, 0, 0)) != fallen(SEED, Patch(0, 1, 0, 0))).any()
    for kind in (Kind.CLOUDS, Kind.THAW):
        assert not fallen(SEED, Patch(0, 1, 0, 0), kind).any()


def test_what_comes_from_outside_is_new(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a picture's side nothing is, and what stood there has gone."""
    order = drifting(Extent("picture", 2, 1024, 1024))
    context = gather(Patch(2, 3, 1, 0), order, SIDE, codes_of, None)
    came, there = context.at(Source.FIRST)
    moved = order.moved_px(context.patch)[1] // (PATCH_PX // SIDE)
    assert 0 < moved < SIDE and there[:, moved:].all() and not there[:, :moved].any()
    say(monkeypatch, new=False, came=True)
    found, (stood, _) = film(model, context), context.at(Source.PREVIOUS)
    np.testing.assert_array_equal(found[:, moved:], came[:, moved:])
    assert (found[:, :moved] != stood[:, :moved]).any(-1).mean() > 0.9


def test_later_frames_hear_what_moves(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is drawn as if nothing moved, and only its level 0 is guided."""
    say(monkeypatch, new=True, came=False)
    moving, still = texts()
    later = FILL._replace(frame=1)

    def words(patch: Patch) -> Floats:
        return moving if patch.frame else still

    def draw(patch: Patch, guidance: float, *told: Any) -> bytes:
        sampling = Sampling(group=64, guidance=guidance)
        sampler = PatchSampler(model.decoder, SEED, 0, sampling, *told)
        return drawn(sampler, [context_of(model, patch)])[patch]

    film = draw(later, 1.0, words)
    assert film == draw(later, 1.0, always(moving)) != draw(later, 1.0, always(still))
    assert film == draw(later, 20.0, words)
    assert draw(FILL, 1.0, words) == draw(FILL, 20.0, always(still))


def test_what_is_not_asked_as_often_is_not_drawn_together(model: Checkpoint) -> None:
    """Even where contexts are as long: first and later frames, with a field and without."""
    first = context_of(model, FILL)
    later = replace(first, patch=FILL._replace(frame=1))
    coarse = context_of(model, Patch(0, 0, 0, 0))
    bare = replace(
        without_field(coarse),
        codes_NK=np.zeros((coarse.padded_length, CODES), np.uint8),
        place_N2=np.zeros((coarse.padded_length, 2), np.float32),
        source_N=np.zeros(coarse.padded_length, np.uint8),
    )
    assert coarse.padded_length == bare.padded_length
    sampler = PatchSampler(model.decoder, SEED, 0, Sampling(rows=4))
    batches = sampler.batches([first, later, first, coarse, bare, coarse])
    assert [len(batch) for batch in batches] == [2, 1, 2, 1]


@pytest.mark.parametrize("patch", [FILL, Patch(0, 0, 0, 0)])
def test_bfloat16_draws(model: Checkpoint, patch: Patch) -> None:
    decoder = deepcopy(model.decoder).to(torch.bfloat16)
    sampler = PatchSampler(decoder, SEED, 0, Sampling("bfloat16", group=64))
    context = context_of(model, patch)
    assert drawn(sampler, [context]) == drawn(sampler, [context])


# choose


@pytest.fixture(scope="module")
def logits() -> Tensor:
    return torch.randn(2, 30, 64, generator=torch.Generator().manual_seed(9)) * 2


def noise(number: int) -> Tensor:
    return torch.from_numpy(gumbels(patch_key(number, (0, 0, 0, 0)), (2, 30, 64)))


def test_choose_at_temperature_0_takes_the_likeliest(logits: Tensor) -> None:
    sampling = Sampling(temperature=0, top_k=5, top_p=0.5)
    for number in range(3):
        assert torch.equal(choose(logits, noise(number), sampling), logits.argmax(-1))
    assert not torch.equal(choose(logits, noise(0), Sampling()), logits.argmax(-1))


def test_choose_divides_by_the_temperature(logits: Tensor) -> None:
    for temperature in (0.5, 2.0):
        found = choose(logits, noise(1), Sampling(temperature=temperature))
        assert torch.equal(found, (logits / temperature + noise(1)).argmax(-1))


def test_choose_follows_the_softmax() -> None:
    """Chi-squared of 20,000 draws: 7 degrees of freedom, and a fixed seed, so no false alarm."""
    logits = torch.tensor([0.0, 1, 2, -1, -3, 0.5, 1.5, 0.2])
    count = 20_000
    gumbel = torch.from_numpy(gumbels(patch_key(3, (0, 0, 0, 0)), (1, count, 8)))
    found = choose(logits.expand(1, count, -1), gumbel, Sampling()).flatten().bincount(minlength=8)
    expected = logits.softmax(-1) * count
    assert ((found - expected) ** 2 / expected).sum() < 7 + 5 * 14**0.5


@pytest.mark.parametrize("top_k", [1, 2, 10])
def test_choose_top_k_takes_one_of_the_likeliest(logits: Tensor, top_k: int) -> None:
    allowed = logits.topk(top_k).indices
    found = torch.stack([choose(logits, noise(one), Sampling(top_k=top_k)) for one in range(40)])
    assert (found[..., None] == allowed).any(-1).all()
    # Each of them at some place, and the best of the allowed by the same noise.
    rank = (found[..., None] == allowed).float().argmax(-1)
    assert len(rank.unique()) == top_k
    masked = torch.full_like(logits, -torch.inf).scatter(-1, allowed, logits.gather(-1, allowed))
    assert torch.equal(found[0], (masked + noise(0)).argmax(-1))


def test_choose_top_k_of_all_is_no_limit(logits: Tensor) -> None:
    free = choose(logits, noise(0), Sampling())
    for top_k in (64, 65, 65536):
        assert torch.equal(choose(logits, noise(0), Sampling(top_k=top_k)), free)


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9])
def test_choose_top_p_takes_one_of_the_nucleus(logits: Tensor, top_p: float) -> None:
    """The fewest likeliest values that together hold top_p, one at least."""
    probability = logits.double().softmax(-1)
    ranked, index = probability.sort(dim=-1, descending=True)
    needed = 1 + (ranked.cumsum(-1) < top_p).sum(-1)
    rank = index.argsort(-1)
    found = torch.stack([choose(logits, noise(one), Sampling(top_p=top_p)) for one in range(40)])
    ranks = rank.expand(40, -1, -1, -1).gather(-1, found[..., None])[..., 0]
    assert (ranks < needed).all()
    # The last of the nucleus is drawn at some place.
    assert ((ranks == needed - 1).any(0)).any()
    assert (needed == 1).all() == (top_p < 1e-3)


def test_choose_limits_work_on_the_tempered_logits(logits: Tensor) -> None:
    """Temperature first: at 0.25 the nucleus is smaller than at 1."""
    sampling = Sampling(temperature=0.25, top_p=0.6)
    tempered = Sampling(top_p=0.6)
    for number in range(5):
        found = choose(logits, noise(number), sampling)
        assert torch.equal(found, choose(logits * 4, noise(number), tempered))


def test_choose_keeps_ties() -> None:
    """Equal logits cannot be told apart, so top_k keeps them all: never fewer than k."""
    level = torch.zeros(2, 30, 64)
    for number in range(3):
        found = choose(level, noise(number), Sampling(top_k=3))
        assert torch.equal(found, noise(number).argmax(-1))
