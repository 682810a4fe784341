"""The laws of `training.pieces`: parts of pictures, and what is decoded of them where they lie."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from handscroll.checkpoint import Checkpoint
from handscroll.errors import InvalidRequest
from handscroll.tokenizer import from_rgb, to_rgb
from training import pictures, ship
from training.pictures import Picture, Pixels
from training.pieces import COUNT, SIDE_PX, pieces_of


def told_apart(height: int, width: int, number: int) -> Pixels:
    """A picture of which each pixel says where it is, and in which picture."""
    down, right = np.indices((height, width))
    return np.stack((down, right % 256, 16 * number + right // 256), 2).astype(np.uint8)


def some(*sizes: tuple[int, int], world: str = "scroll") -> list[Picture]:
    """Pictures of one level above the coarsest."""
    coarsest = np.zeros((1, 1, 3), np.uint8)
    return [
        Picture(f"{number}", world, False, (coarsest, told_apart(*size, number)))
        for number, size in enumerate(sizes)
    ]


def test_pieces_are_cut_from_all_pictures_and_decoded_as_they_lie(model: Checkpoint) -> None:
    found = some((176, 352), (200, 330), (96, 96))
    pieces = pieces_of(model.tokenizer, found, 1)
    assert pieces is not None and len(pieces.pictures_NHW3) == len(pieces.decoded_NHW3) == COUNT
    whole = []
    for one in found:
        height, width = (size // 16 * 16 for size in one.levels[1].shape[:2])
        pixels = torch.from_numpy(one.levels[1][:height, :width].copy())[None]
        whole.append(to_rgb(model.tokenizer.decode(model.tokenizer.encode(from_rgb(pixels)))[0]))
    counts = [0, 0, 0]
    for cut, decoded in zip(*pieces, strict=True):
        down, low, high = (int(value) for value in cut[0, 0])
        number, right = high // 16, low + 256 * (high % 16)
        counts[number] += 1
        assert down % 16 == right % 16 == 0
        place = np.s_[down : down + SIDE_PX, right : right + SIDE_PX]
        np.testing.assert_array_equal(cut, found[number].levels[1][place])
        apart = np.abs(whole[number].numpy()[place].astype(int) - decoded)
        assert apart.max() <= 1, "rounded after sums in another order, at most"
    assert min(counts) >= COUNT // 3


def test_pieces_are_the_same_again(model: Checkpoint) -> None:
    one, other = (pieces_of(model.tokenizer, some((176, 352)), 1) for _ in range(2))
    assert one is not None and other is not None
    for kept, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(kept, again)


def test_of_pictures_too_small_there_are_none(model: Checkpoint) -> None:
    assert pieces_of(model.tokenizer, some((SIDE_PX - 1, 300)), 1) is None
    assert pieces_of(model.tokenizer, [], 1) is None


def test_planes_are_shipped_with_pieces_and_scrolls_without(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, scroll = (replace(model.world(name), pieces={}) for name in ("planet", "scroll"))
    plane = replace(plane, extent=replace(plane.extent, finest=1))  # as many levels as pictures
    monkeypatch.setattr(pictures, "load", lambda *_: some((200, 330), world="planet"))
    kept = ship.with_pieces(plane, model.tokenizer, tmp_path).pieces
    assert list(kept) == [1]
    assert kept[1].pictures_NHW3.shape == (COUNT, SIDE_PX, SIDE_PX, 3)
    assert ship.with_pieces(scroll, model.tokenizer, tmp_path) is scroll


def test_a_world_without_pictures_is_not_shipped(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "load", lambda *_: some((200, 330)))
    with pytest.raises(InvalidRequest, match="no pictures of the world 'planet', but of scroll"):
        ship.with_pieces(model.world("planet"), model.tokenizer, tmp_path)
