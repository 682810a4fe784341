"""Laws of training: examples are what is served, runs resume, any folder of pictures will do."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor, nn

from handscroll import checkpoint
from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint, World
from handscroll.context import Codes, Source, gather
from handscroll.course import STILL, Course, Kind
from handscroll.decoder import Decoder
from handscroll.errors import InvalidRequest
from handscroll.field import CELL_VALUES, Palette
from handscroll.geometry import Extent, Patch, Tile
from handscroll.order import Lattice
from handscroll.paint import Painter
from handscroll.sample import collate
from handscroll.tokenizer import Tokenizer, TokenizerConfig
from training import (
    encode,
    painted,
    parents,
    pictures,
    ship,
    train_decoder,
    train_pixels,
    train_tokenizer,
)
from training.critic import balance, critic_loss
from training.examples import Dataset, Encoded, Example, Examples, Fate, fates, with_drawn
from training.perceptual import Perceptual
from training.pictures import Picture
from training.run import Run
from training.train_decoder import fate_loss

FRAME = 5
"""The frame of the one clip there is."""


def some_dataset(kind: str) -> Dataset:
    """One random picture of a world, large enough for every pattern."""
    rng = np.random.default_rng(0)
    sides = {"scroll": (11, 160), "plane": (96, 128)}[kind]
    grids = tuple(
        rng.integers(0, 256, (sides[0] * 2**level, sides[1] * 2**level, 4)).astype(np.uint8)
        for level in range(3)
    )
    extent = Extent("scroll", 2, 704) if kind == "scroll" else Extent("plane", 2)
    rows = sides[0] if kind == "scroll" else 1
    world = World(
        "it",
        0,
        extent,
        Palette(np.zeros((2, rows, 1, CELL_VALUES), np.float32), None, 4, kind == "scroll"),
    )
    no_captions = tuple(np.full((1, 1), -1, np.int32) for _ in range(3))
    statistics = rng.normal(size=(*sides, 4)).astype(np.float32)
    still = Encoded("one", 0, False, None, STILL, 0, grids, grids, grids, no_captions, statistics)
    before, first = (tuple(np.flip(grid, axis) for grid in grids) for axis in (0, 1))
    course = Course(down=1, right=-2, kind=Kind.CLOUDS)
    clip = Encoded("one", 0, False, 0, course, FRAME, grids, before, first, no_captions, statistics)
    return Dataset([world], [still, clip], None, {"downsampling": 16, "levels": [4, 4, 4, 4]})


def blank_patch(patch: Patch) -> Codes:
    return np.zeros((16, 16, 4), np.uint8)


@pytest.mark.parametrize("kind", ["scroll", "plane"])
def test_example_sees_what_a_served_patch_sees(kind: str) -> None:
    data = some_dataset(kind)
    examples = Examples(data, clean=True)
    rng = np.random.default_rng(1)
    order = Lattice(data.worlds[0].extent)
    compared = 0
    for _ in range(200):
        one = examples.draw(rng)
        context = one.context
        patch = context.patch._replace(col=context.patch.col + 2 * 10**6)
        if kind == "plane":
            patch = patch._replace(row=patch.row - 2 * 10**6)
        served = gather(patch, order, 16, blank_patch, None)
        if len(served.codes_NK) == len(context.codes_NK):  # not at the picture's edge
            np.testing.assert_array_equal(served.place_N2, context.place_N2)
            np.testing.assert_array_equal(served.source_N, context.source_N)
            np.testing.assert_array_equal(served.inside_ss, context.inside_ss)
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("kind", ["scroll", "plane"])
def test_example_of_a_clip_sees_the_frame_before_as_a_served_patch_does(kind: str) -> None:
    data = some_dataset(kind)
    examples = Examples(data, clean=True, moving=1.0)
    rng = np.random.default_rng(1)
    order = Lattice(data.worlds[0].extent, course=data.pictures[1].course)
    compared = 0
    for _ in range(100):
        context = examples.draw(rng).context
        patch = context.patch
        assert patch.frame in (0, FRAME)
        assert patch.frame or not np.isin(context.source_N, (Source.PREVIOUS, Source.FIRST)).any()
        patch = patch._replace(col=patch.col + 2 * 10**6)
        if kind == "plane":
            patch = patch._replace(row=patch.row - 2 * 10**6)
        served = gather(patch, order, 16, blank_patch, None)
        assert context.kind == served.kind
        if patch.frame == FRAME:  # all is new here, and is told to be
            served = served.forget(np.full((16, 16), True))
        if patch.frame == FRAME and len(served.codes_NK) == len(context.codes_NK):
            np.testing.assert_array_equal(served.place_N2, context.place_N2)
            np.testing.assert_array_equal(served.source_N, context.source_N)
            compared += 1
    assert compared > 20


def test_of_a_picture_with_coarse_levels_alone_no_finer_one_is_drawn() -> None:
    data = some_dataset("plane")
    still = data.pictures[0]
    coarse = still._replace(codes=still.codes[:2], captions=still.captions[:2])
    examples = Examples(replace(data, pictures=[still, *[coarse] * 9]))
    rng = np.random.default_rng(1)
    levels = [examples.draw(rng).context.patch.level for _ in range(200)]
    assert 0.2 < levels.count(2) / len(levels) < 0.4, "as often as without it"


def test_worlds_are_drawn_by_the_root_of_how_much_there_is_of_each() -> None:
    data = some_dataset("plane")
    still, other = data.pictures[0], data.pictures[0]._replace(world=1)
    worlds = [data.worlds[0], replace(data.worlds[0], name="other", index=1)]
    others = [other._replace(name=f"other {number}") for number in range(4)]
    few = replace(data, worlds=worlds, pictures=[still, *others])
    np.testing.assert_allclose(Examples(few).odds, [1 / 3, 2 / 3])
    variants = replace(few, pictures=[*few.pictures, *[still] * 7])
    np.testing.assert_allclose(Examples(variants).odds, [1 / 3, 2 / 3])
    assert not Examples(few, held_out=True).odds.any()
    assert Examples(few, held_out=True).always(5) == []


def test_kind_of_motion_is_now_and_then_left_to_the_words() -> None:
    examples, rng = Examples(some_dataset("plane"), moving=1.0), np.random.default_rng(1)
    later = [one for one in (examples.draw(rng).context for _ in range(200)) if one.patch.frame]
    told = [one.kind for one in later if one.patch.frame == FRAME]
    assert set(told) == {Kind.CLOUDS, Kind.OTHER}
    assert 0.05 < told.count(Kind.OTHER) / len(told) < 0.5


@pytest.mark.parametrize("source", [Source.PREVIOUS, Source.FIRST])
@pytest.mark.parametrize("moves", [False, True])
def test_earlier_frames_are_the_clips_own_and_nothing_else_moves(
    moves: bool, source: Source
) -> None:
    data = some_dataset("plane")
    still, clip = data.pictures
    data = replace(data, pictures=[still, clip] if moves else [still])
    examples = Examples(data, moving=1.0)
    rng = np.random.default_rng(1)
    seen = 0
    for _ in range(60):
        one = examples.draw(rng)
        context = one.context
        before, there = context.at(source)
        if there.any():
            seen += 1
            now = np.zeros((16, 16, 4), np.uint8)
            now[tuple(one.place_T2.astype(int).T)] = one.codes_TK
            assert (now[there] == before[there]).all() != moves
    assert seen


def test_fates_are_told_where_all_tokens_are_asked_at_once() -> None:
    """And what is new is drawn, over what is gone, where they are not."""
    data = some_dataset("plane")
    still, clip = data.pictures
    steady = clip._replace(before=clip.codes)  # it moved in frames before
    rng, blind, mistaken = np.random.default_rng(1), 0, 0
    for picture, fate in ((clip, Fate.NEW), (steady, Fate.STOOD)):
        examples = Examples(replace(data, pictures=[still, picture]), moving=1.0)
        for one in (examples.draw(rng) for _ in range(60)):
            context = one.context
            stood, came = (context.at(source)[1] for source in (Source.PREVIOUS, Source.FIRST))
            rows, cols = one.place_T2.astype(int).T
            if not context.patch.frame:
                assert (one.fate_T == Fate.UNKNOWN).all() and one.drawn_T.all()
            elif (one.fate_T != Fate.UNKNOWN).any():
                blind += 1
                assert not one.group_T.any() and not one.drawn_T.any()
                told = np.where((stood & came)[rows, cols], fate, Fate.UNKNOWN)
                np.testing.assert_array_equal(one.fate_T, told)
            elif one.drawn_T.any():
                np.testing.assert_array_equal(one.drawn_T, ~(stood & came)[rows, cols])
                mistaken += bool(context.at(Source.GONE)[1].any()) and fate == Fate.STOOD
    assert blind > 30 and mistaken > 1


def test_fates_are_what_frames_show() -> None:
    """What stood, what came, what both show, what neither does; all is unknown without a frame."""
    patch, order = Patch(2, FRAME, 3, 3), Lattice(Extent("plane", 2), course=Course(right=1))
    rng = np.random.default_rng(3)
    frames = {frame: rng.integers(0, 256, (16, 16, 4), np.uint8) for frame in (0, FRAME - 1)}

    def read(one: Patch) -> Codes:
        return frames.get(one.frame, frames[0])

    context = gather(patch, order, 16, read, None)
    (stood, _), (came, _) = context.at(Source.PREVIOUS), context.at(Source.FIRST)
    codes = np.where(np.arange(16)[:, None, None] < 8, stood, came)
    codes[0] ^= 1
    found = fates(context, codes)
    assert (found[0] == Fate.NEW).all()
    assert (found[1:8] == Fate.STOOD).all() and (found[8:] == Fate.CAME).all()
    frames[FRAME - 1] = came
    assert (fates(gather(patch, order, 16, read, None), came) == Fate.EITHER).all()
    blind = context.without(context.source_N == Source.FIRST)
    assert (fates(blind, codes) == Fate.UNKNOWN).all()


@pytest.mark.parametrize(("moving", "far"), [(0.0, 2.0), (0.0, 1.0), (1.0, 2.0)])
def test_finer_levels_learn_to_answer_guided(model: Checkpoint, moving: float, far: float) -> None:
    """What meets the real codes is what the guided logits stand for; nothing else is guided."""
    decoder, rng = deepcopy(model.decoder).requires_grad_(), np.random.default_rng(0)
    decoder.config = replace(decoder.config, guided=(far, 3.0))  # of the other world: no matter
    examples = Examples(some_dataset("plane"), clean=True, moving=moving)
    drawn = [examples.draw(rng) for _ in range(16)]

    def loss(one: Example, guided: float) -> Tensor:
        codes = torch.from_numpy(one.codes_TK.astype(np.int64))[None]
        place, group = (torch.from_numpy(part)[None] for part in (one.place_T2, one.group_T))
        alone = one.context.without(one.context.source_N == Source.PARENT)
        batches = (
            collate([seen], [0], [one.text], decoder.config, seen.padded_length)
            for seen in (one.context, alone)
        )
        here, there = (decoder(batch, codes, place, group)[0] for batch in batches)
        there = there.detach()  # through it nothing is learned here
        logits = there + (here - there) / guided
        nats = nn.functional.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none")
        return nats.view(-1, 4)[torch.from_numpy(one.drawn_T)].mean()

    with torch.no_grad():
        for one, found in zip(drawn, train_decoder.loss_of(decoder, drawn, "cpu"), strict=True):
            patch = one.context.patch
            guided = far if patch.level and not patch.frame else 1.0
            torch.testing.assert_close(found, loss(one, guided), atol=1e-4, rtol=0)
            if guided > 1:
                assert abs(found - loss(one, 1.0)) > 1e-3
    seen = {(one.context.patch.level > 0, one.context.patch.frame > 0) for one in drawn}
    assert seen >= ({(True, True)} if moving else {(True, False), (False, False)})
    if moving:
        return
    finer = next(one for one in drawn if one.context.patch.level)
    learned = []
    for total in (train_decoder.loss_of(decoder, [finer], "cpu"), loss(finer, far)):
        decoder.zero_grad()
        total.sum().backward()
        learned.append([one.grad.clone() for one in decoder.parameters() if one.grad is not None])
    for found, wanted in zip(*learned, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)


def test_a_training_begins_with_the_mean_of_decoders_of_one_shape(
    model: Checkpoint, tmp_path: Path
) -> None:
    decoder = deepcopy(model.decoder)
    config, weights = decoder.config, model.decoder.state_dict()
    for name in ("one", "three", "other"):
        (tmp_path / name).mkdir()
    train_decoder.save(decoder, tmp_path / "one")
    decoder.load_state_dict({name: 3 * one for name, one in weights.items()})
    decoder.config = replace(config, guided=(3.0, 3.0))
    train_decoder.save(decoder, tmp_path / "three")
    found = train_decoder.begin_with([tmp_path / "one", tmp_path / "three"], (2.0, 1.0))
    assert found.config == replace(config, guided=(2.0, 1.0))
    torch.testing.assert_close(found.state_dict(), {name: 2 * one for name, one in weights.items()})
    train_decoder.save(Decoder(replace(config, layers=1)), tmp_path / "other")
    with pytest.raises(InvalidRequest, match="decoders of one shape"):
        train_decoder.begin_with([tmp_path / "one", tmp_path / "other"], (2.0, 1.0))


def test_loss_of_fates_asks_what_can_be_told() -> None:
    fate = torch.tensor([[Fate.UNKNOWN, Fate.STOOD, Fate.CAME, Fate.EITHER, Fate.NEW]])
    right = torch.tensor([[[0.0, 0], [-30, -30], [-30, 30], [-30, 0], [30, 0]]])
    assert fate_loss(right, fate) < 1e-6
    other = right.clone()
    other[0, 0], other[0, 3, 1], other[0, 4, 1] = 7, 7, 7  # what cannot be told
    assert fate_loss(other, fate) < 1e-6
    for token in (1, 2, 3, 4):
        wrong = right.clone()
        wrong[0, token, 0] *= -1
        assert fate_loss(wrong, fate) == pytest.approx(30 / 4)
    for token in (1, 2):
        wrong = right.clone()
        wrong[0, token, 1] *= -1
        assert fate_loss(wrong, fate) == pytest.approx(30 / 2)
    assert fate_loss(right, torch.zeros_like(fate)) == 0


def test_example_codes_are_the_pictures_own() -> None:
    data = some_dataset("plane")
    grids = data.pictures[0].codes
    rng = np.random.default_rng(2)
    for _ in range(50):
        one = Examples(data, clean=True).draw(rng)
        grid = grids[one.context.patch.level]
        block = np.zeros((16, 16, 4), np.uint8)
        rows, cols = one.place_T2.astype(int).T
        block[rows, cols] = one.codes_TK
        at = np.argwhere((grid == block[0, 0]).all(axis=-1))
        corner = next(
            place
            for place in at
            if np.array_equal(grid[place[0] : place[0] + 16, place[1] : place[1] + 16], block)
        )
        ring = one.context.source_N == Source.RING
        for codes, place in zip(
            one.context.codes_NK[ring], one.context.place_N2[ring], strict=True
        ):
            row, col = (corner + place).astype(int)
            np.testing.assert_array_equal(grid[row, col], codes)
        parent = one.context.source_N == Source.PARENT
        coarse = grids[max(0, one.context.patch.level - 1)]
        for codes, place in zip(
            one.context.codes_NK[parent], one.context.place_N2[parent], strict=True
        ):
            row, col = ((corner + place - 0.5) / 2).astype(int)
            np.testing.assert_array_equal(coarse[row, col], codes)


def drawn_over(data: Dataset, folder: Path) -> tuple[Path, list[Codes]]:
    """A file of what a decoder made of the one still's coarser levels: other tokens."""
    levels = [255 - codes for codes in data.pictures[0].codes[:-1]]
    path = folder / "parents.safetensors"
    save_file({f"drawn.0.{level}": codes for level, codes in enumerate(levels)}, path)
    return path, levels


def test_finer_levels_stand_on_what_was_drawn_and_are_the_pictures_own(tmp_path: Path) -> None:
    data = some_dataset("scroll")
    path, levels = drawn_over(data, tmp_path)
    data = replace(data, pictures=with_drawn(data.pictures, path))
    rng, seen = np.random.default_rng(0), {False: 0, True: 0}
    for _ in range(60):
        one = Examples(data).draw(rng)
        level, parent = one.context.patch.level, one.context.source_N == Source.PARENT
        if level == 0 or not parent.any():
            continue
        pairs = [
            {codes.tobytes() for codes in grid.reshape(-1, 4)}
            for grid in (data.pictures[0].codes[level - 1], levels[level - 1])
        ]
        shown = [codes.tobytes() for codes in one.context.codes_NK[parent]]
        real, drawn = (sum(codes in some for codes in shown) for some in pairs)
        seen[drawn > real] += 1
        own = {codes.tobytes() for codes in data.pictures[0].codes[level].reshape(-1, 4)}
        assert all(codes.tobytes() in own for codes in one.codes_TK)
    assert seen[True] > seen[False] > 0


def test_what_was_drawn_from_other_tokens_is_refused(tmp_path: Path) -> None:
    path, _ = drawn_over(some_dataset("plane"), tmp_path)
    with pytest.raises(InvalidRequest, match="drawn from other tokens"):
        with_drawn(some_dataset("scroll").pictures, path)


@pytest.mark.parametrize("kind", ["scroll", "plane"])
def test_drawn_levels_keep_every_fourth_token_and_are_the_same_again(
    kind: str, model: Checkpoint
) -> None:
    still = some_dataset(kind).pictures[0]
    codes = tuple(one[: 20 << level, : 24 << level] for level, one in enumerate(still.codes[:2]))
    small = still._replace(
        codes=codes, world=model.world({"plane": "planet"}.get(kind, kind)).index
    )
    first, again, other = (parents.drawn(model, small, number) for number in (5, 5, 9))
    assert len(first) == 1
    assert first[0].shape == codes[0].shape
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    same = (first[0] == codes[0]).all(axis=-1)
    assert same[0::2, 1::2].all() and same.mean() < 0.3


def test_split_is_the_published_one() -> None:
    names = [f"mountain{number}" for number in range(40)]
    held = [name for name in names if pictures.is_held_out(name)]
    assert held == ["mountain3", "mountain15", "mountain32", "mountain33"]


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)


def train(folder: Path, until: int, muon: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    run = Run(folder, Line(), 30, 1e-2, "cpu", muon)
    for step in run.steps_left(minutes=1, save_every=5):
        if step == until:
            break  # killed: what was not saved is lost
        rng = torch.Generator().manual_seed(step)
        share = torch.randn(8, 4, generator=rng)[run.rank :: run.processes]
        run.update(run.model.inner(share).square().mean())
    return dict(run.averaged(Line()).state_dict())


@pytest.mark.parametrize("muon", [(), ("inner",)])
def test_run_killed_and_resumed_equals_one_run_through(tmp_path: Path, muon: Sequence[str]) -> None:
    whole = train(tmp_path / "whole", 99, muon)
    train(tmp_path / "cut", 17, muon)
    resumed = train(tmp_path / "cut", 99, muon)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_another_seed_is_shown_other_examples_and_the_same_one_the_same() -> None:
    examples = Examples(some_dataset("plane"))

    def shown(seed: int) -> list[bytes]:
        drawn = train_decoder.batches(examples, 2, range(4), seed)
        return [one.codes_TK.tobytes() for batch in drawn for one in batch]

    assert shown(1) == shown(1)
    assert not set(shown(1)) & set(shown(2))


def test_two_processes_train_one_model_as_one_does(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(
        "import sys; from pathlib import Path; from tests.training.test_training import train\n"
        "train(Path(sys.argv[1]), 99)\n"
    )
    launch = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
    subprocess.run(
        # A run goes on where it was, so one that dies of its surroundings may be started again.
        [sys.executable, *launch, "--max-restarts", "3", script, tmp_path / "both"],
        check=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    both = load_file(tmp_path / "both" / "state.safetensors")
    for name, value in train(tmp_path / "one", 99).items():
        torch.testing.assert_close(both[f"average.{name}"], value, rtol=0, atol=1e-5)


def test_perceptual_distance_grows_with_damage_and_is_none_between_equals() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 16, 16, 3, generator=generator).repeat_interleave(4, 1)
    picture = picture.repeat_interleave(4, 2) * 2 - 1
    noise = torch.randn(picture.shape, generator=generator)
    perceptual = Perceptual()
    found = [float(perceptual(picture + much * noise, picture)) for much in (0, 0.1, 0.3, 1)]
    assert found[0] == 0 and found == sorted(set(found))


def test_critic_loss_is_none_where_real_and_painted_are_told_apart() -> None:
    sure = torch.full((1, 1, 4, 4), 2.0)
    assert critic_loss(sure, -sure) == 0
    assert critic_loss(-sure, sure) == 3
    assert critic_loss(torch.zeros(1), torch.zeros(1)) == 1


def test_balance_makes_two_losses_pull_alike() -> None:
    last = torch.tensor([3.0, 4.0], requires_grad=True)
    loss, adversarial = (last * 5).sum(), (last * torch.tensor([0.0, 2.0])).sum()
    torch.testing.assert_close(balance(loss, adversarial, last), torch.tensor(50**0.5 / 2))


def test_disturbed_scalars_stay_levels_and_few_move() -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.choice((-0.75, -0.25, 0.25, 0.75), (8, 10, 10, 16))).float()
    moved = train_pixels.disturb(rng, values, (4, 4, 4, 4))
    assert set(moved.unique().tolist()) == {-0.75, -0.25, 0.25, 0.75}
    assert (moved - values).abs().max() == 0.5
    assert 0.01 < (moved != values).float().mean() < train_pixels.DISTURBED


def test_encode_in_bands_equals_encode_at_once() -> None:
    torch.manual_seed(0)
    model = Tokenizer(TokenizerConfig(width=32, cell_width=16))
    pixels = np.random.default_rng(0).integers(0, 256, (768, 64, 3)).astype(np.uint8)
    banded = encode.encode(model.eval(), pixels, "cpu", band=256)
    whole = encode.encode(model, pixels, "cpu", band=768)
    assert banded.shape == (48, 4, 4)
    assert (banded == whole).mean() > 0.999  # bfloat16 rounds by shape


def test_a_plain_folder_needs_a_world(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="say which world"):
        pictures.load(tmp_path)


@pytest.mark.slow
def test_any_folder_of_pictures_becomes_a_world(tmp_path: Path) -> None:
    data = tmp_path / "mine"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        noise = Image.fromarray(rng.integers(0, 256, (30, 60, 3)).astype(np.uint8))
        noise.resize((1500, 720)).save(data / f"painting{number}.jpg")
    tokenizer, tokens, decoder = (tmp_path / name for name in ("tok", "tokens.st", "dec"))
    train_tokenizer.main(data, tokenizer, world="scroll", steps=2, batch=2, device="cpu")
    pixels = tmp_path / "pixels"
    train_pixels.main(data, tokenizer, pixels, world="scroll", steps=3, batch=2, device="cpu")
    before, after = train_tokenizer.load(tokenizer), train_tokenizer.load(pixels)
    picture = torch.rand(1, 64, 64, 3) * 2 - 1
    assert torch.equal(codes := before.encode(picture), after.encode(picture))
    assert not torch.equal(before.decode(codes), after.decode(codes))
    plain = tmp_path / "plain"
    train_pixels.main(
        data,
        tokenizer,
        plain,
        world="scroll",
        steps=1,
        batch=2,
        perceptual_weight=0.0,
        critic_weight=0.0,
        device="cpu",
    )
    logs = [(run / "log.csv").read_text().split("\n")[0] for run in (pixels, plain)]
    assert logs == ["step,pixels,perceptual,critic,psnr", "step,pixels,psnr"]
    tokenizer = pixels
    encode.main(data, tokenizer, tokens, world="scroll", device="cpu")
    train_decoder.main(tokens, tokenizer, decoder, size="XS", steps=2, batch=2, device="cpu")
    alone = tmp_path / "alone"
    train_decoder.main(
        tokens, tokenizer, alone, steps=2, batch=2, init=[decoder], only="kind", device="cpu"
    )
    first, second = (train_decoder.load(one).state_dict() for one in (decoder, alone))
    changed = [name for name, one in first.items() if not torch.equal(one, second[name])]
    assert changed == ["kind.weight"]
    with pytest.raises(InvalidRequest, match="one of token, source, .*, not kin"):
        train_decoder.main(tokens, tokenizer, tmp_path / "none", only="kin", device="cpu")
    ship.main(tokenizer, decoder, tokens, data, tmp_path / "model", group=64)
    model = checkpoint.load(tmp_path / "model")
    assert list(model.worlds) == ["scroll"] and model.sampling.group == 64
    log = (decoder / "log.csv").read_text().splitlines()
    assert float(log[-1].split(",")[1]) < math.log(256) * 1.5
    config = json.loads((decoder / "decoder.json").read_text())
    assert config["worlds"] == 1 and config["guided"] == [train_decoder.GUIDED]
    with Painter(model, Canvas(model.digest, "scroll", 1, model.world("scroll").extent)) as painter:
        assert painter.tile(Tile(0, 0, 5)).shape == (256, 256, 3)
        assert Patch(0, 0, 0, 5) in painter.pool
    drawn = tmp_path / "painted.st"
    painted.main(drawn, tmp_path / "model", number=1, workers=1)
    (one,) = painted.load(drawn)
    assert [codes.shape for codes in one.codes] == [(11 << n, 22 << n, 4) for n in range(3)]
    assert one.picture.levels[2].shape == (704, 1408, 3)
    inner = (slice(64, -64), slice(64, -64))
    decoded = model.tokenizer.decode(torch.from_numpy(one.codes[1])[None])[0].numpy()[inner]
    assert np.abs((decoded + 1) * 127.5 - one.picture.levels[1][inner]).max() <= 1
    again = tmp_path / "again"
    train_pixels.main(
        data, pixels, again, world="scroll", painted=drawn, steps=2, batch=2, device="cpu"
    )
    assert torch.equal(codes, train_tokenizer.load(again).encode(picture))


def test_crops_of_what_was_painted_are_shown_as_they_were_decoded() -> None:
    """Each token of a crop stands for the pixels in its place."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (24, 40, 1)).astype(np.uint8)
    pixels = codes.repeat(16, 0).repeat(16, 1).repeat(3, 2)
    sources = [painted.Painted(Picture("0", "plane", False, (pixels,)), (codes,))]
    found, shown = train_pixels.drawn(rng, sources, 8, 16)
    assert found.shape == (8, 10, 10, 1)
    np.testing.assert_array_equal(np.stack(shown)[:, ::16, ::16, :1], found)


def test_a_tokenizer_has_the_tokens_that_were_asked_for(tmp_path: Path) -> None:
    data, out = tmp_path / "mine", tmp_path / "run"
    data.mkdir()
    Image.new("RGB", (1500, 720), (90, 120, 60)).save(data / "painting.png")
    train_tokenizer.main(data, out, "scroll", 8, 1, steps=1, batch=1, device="cpu")
    codes = train_tokenizer.load(out).encode(torch.zeros(1, 64, 32, 3))
    assert codes.shape == (1, 8, 4, 1)


def test_tones_are_means_and_not_texture() -> None:
    texture = torch.tensor([-0.5, 0.5]).repeat(16)[None, None, :, None].expand(1, 32, 32, 3)
    flat = torch.zeros(1, 32, 32, 3)
    assert train_pixels.tones(texture, flat) == 0
    torch.testing.assert_close(train_pixels.tones(texture + 0.25, flat), torch.tensor(0.25))


def test_the_grid_that_plain_pictures_have_alike_is_taken_away() -> None:
    """From plain cells of every colour, whose colours stay as they were; what has a grid of its own
    is not what is asked."""
    torch.manual_seed(0)
    model = Tokenizer(TokenizerConfig(width=32, cell_width=16))
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(64, 1, 1, 3, generator=generator) * 2 - 1
    plain = colours.expand(64, 160, 160, 3)
    striped = plain + torch.tensor([0.4, -0.4, 0.1, -0.1]).repeat(40)[:, None]

    def cells() -> tuple[Tensor, Tensor]:
        """The grid of each plain picture, and their colours, away from borders."""
        with torch.no_grad():
            pixels = model.pixels(model.quantizer.values(model.encode(plain)))[:, 64:-64, 64:-64]
        found = pixels.unflatten(2, (-1, 4)).unflatten(1, (-1, 4))
        colour = found.mean(dim=(2, 4), keepdim=True)
        return (found - colour).mean(dim=(1, 3)), colour

    before, colour = cells()
    train_pixels.even(model, [*plain.split(8), *striped.split(8)])
    after, same = cells()
    assert before.mean(0).std() > 0.01
    assert after.mean(0).std() < 0.1 * before.mean(0).std()
    assert after.std() < 0.2 * before.std()
    torch.testing.assert_close(same, colour, atol=1e-5, rtol=0)
