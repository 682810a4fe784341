"""Laws of the ablations: what is compared differs in what is said, and in nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handscroll import context
from handscroll.checkpoint import Checkpoint
from handscroll.decoder import Decoder, DecoderConfig
from handscroll.geometry import Extent, Patch
from handscroll.order import Lattice
from handscroll.tokenizer import TokenizerConfig
from tests.training.test_metrics import Plain
from tests.training.test_training import some_dataset
from training import ablation
from training.ablation import ORDERS, Colours, LearnedCodes, instead, ssim
from training.pictures import Picture, pyramid

PLANE = Extent("plane", 2)
TINY = DecoderConfig(layers=1, width=32, heads=2, head_width=16, worlds=1, guided=(1.0,))


def test_learned_codes_are_nearest_values_and_pass_gradients_on() -> None:
    torch.manual_seed(0)
    codes = LearnedCodes(TokenizerConfig(codes=2, levels=(2,) * 8))
    z = torch.randn(2, 4, 4, 16, requires_grad=True)
    values, found = codes.eval()(z)
    book_KVD = torch.nn.functional.normalize(codes.book_KVD, dim=-1)
    for k in range(2):
        wanted = torch.nn.functional.normalize(z[..., 8 * k : 8 * k + 8], dim=-1)
        away = torch.cdist(wanted.reshape(-1, 8), book_KVD[k]).argmin(-1)
        assert torch.equal(found[..., k].flatten(), away)
        torch.testing.assert_close(values[..., 8 * k : 8 * k + 8], book_KVD[k][found[..., k]])
    values.sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0


def test_values_that_nobody_uses_are_moved_to_where_some_are_wanted() -> None:
    torch.manual_seed(0)
    codes = LearnedCodes(TokenizerConfig(codes=1, levels=(2,) * 8))
    with torch.no_grad():
        codes.book_KVD[0, 1:] = -codes.book_KVD[0, :1]
    z = codes.book_KVD.detach()[0, 0] + 0.3 * torch.randn(1, 8, 8, 8)
    values, found = codes(z)
    before = len(found.unique())
    (values.sum() + codes.pull).backward()
    after = len(codes(z)[1].unique())
    assert before == 1 and after > 20


def test_a_picture_is_like_itself_and_less_like_another() -> None:
    picture = torch.rand(1, 32, 32, 3) * 2 - 1
    assert ssim(picture, picture) == pytest.approx(1)
    assert abs(ssim(picture, torch.rand(1, 32, 32, 3) * 2 - 1)) < 0.1


def test_three_phases_are_the_lattice() -> None:
    colours = Colours(PLANE, ((0, 1), (1, 2)))
    for row in range(-2, 3):
        for col in range(-2, 3):
            patch = Patch(2, 0, row, col)
            assert colours.seen(patch) == Lattice(PLANE).seen(patch)


def test_phases_see_as_many_neighbours_as_they_say() -> None:
    counts = {
        name.split(":")[0]: sorted(
            len(order(PLANE).seen(Patch(2, 0, row, col))) for row in (0, 1) for col in (0, 1)
        )
        for name, order in ORDERS.items()
    }
    assert counts == {
        "one": [0, 0, 0, 0],
        "two": [0, 0, 4, 4],
        "three": [0, 2, 2, 8],
        "four": [0, 4, 4, 8],
    }


def test_costs_of_the_lattice_are_those_it_promises() -> None:
    assert ablation.costs(Lattice(PLANE), 16) == (27, 9)


def test_a_ring_is_as_it_was_afterwards() -> None:
    before = context.RING_TOK
    with pytest.raises(ZeroDivisionError), instead(context, "RING_TOK", 8):
        assert context.RING_TOK == 8
        raise ZeroDivisionError
    assert before == context.RING_TOK


def test_decoders_are_trained_further_from_the_same_weights(tmp_path: Path) -> None:
    data = some_dataset("plane")
    data.pictures.append(data.pictures[0]._replace(held_out=True))
    torch.manual_seed(0)
    start = Decoder(TINY)
    rows = {row[0]: row for row in ablation.further_rows(start, data, tmp_path, 1, 2)}
    sees = {name: int(row[1]) for name, row in rows.items()}
    ours, wide, narrow, flat, alone = (sees[way.name] for way in ablation.WAYS)
    assert narrow < ours < wide
    assert flat < ours and alone < ours
    assert all(np.isfinite(float(value)) for row in rows.values() for value in row[2:])


def test_every_setting_paints_as_it_says(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ships, *others = ablation.SETTINGS
    assert len({str(one.changes) for one in ablation.SETTINGS}) == len(others) + 1
    assert not ships.changes and all(one.changes for one in others)
    monkeypatch.setattr(ablation, "SETTINGS", (ships, others[0], others[-1]))
    height = model.world("scroll").extent.height_px
    assert height is not None
    real = []
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, 704, 3)).astype(np.uint8)
        levels = pyramid(Image.fromarray(pixels))
        real.append(Picture(f"{seed}", "scroll", True, levels))
    rows = list(ablation.closeness_rows(model, Plain(), real, tmp_path, 2))
    assert [len(row) for row in rows] == [3] * 4
    assert len({row[1:] for row in rows}) == 4
