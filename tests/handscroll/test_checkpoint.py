"""The laws of `handscroll.checkpoint`: what was saved or an error, and never a program."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from handscroll import checkpoint
from handscroll.checkpoint import FORMAT, Checkpoint
from handscroll.errors import BrokenCheckpoint, NotFound
from handscroll.geometry import Extent

FILES = (
    "decoder.safetensors",
    "palettes.safetensors",
    "pieces.safetensors",
    "tokenizer.safetensors",
)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be broken."""
    return shutil.copytree(tiny, tmp_path / "copy")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a checkpoint's config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def forge(folder: Path, name: str, content: bytes) -> None:
    """Replace a file, and the digest that the config has of it."""
    (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    rewrite(folder, lambda config: config["files"].update({name: digest}))


def refused(folder: Path, match: str = "") -> None:
    """It is refused with one line, for people."""
    with pytest.raises(BrokenCheckpoint, match=match or None) as caught:
        checkpoint.load(folder)
    assert len(str(caught.value).splitlines()) == 1


# Round trips and digests.


def test_load_gives_what_was_saved(tiny: Path, model: Checkpoint, tmp_path: Path) -> None:
    """Saved again it has the same digest, byte for byte the same files, and the same answers."""
    digest = checkpoint.save(
        tmp_path,
        model.tokenizer,
        model.decoder,
        sorted(model.worlds.values(), key=lambda one: one.index),
        model.text_encoder,
    )
    assert digest == model.digest
    for name in (*FILES, "config.json"):
        assert (tmp_path / name).read_bytes() == (tiny / name).read_bytes()
    again = checkpoint.load(tmp_path)
    assert again.digest == digest
    assert again.text_encoder == model.text_encoder
    assert again.decoder.config == model.decoder.config
    assert again.tokenizer.config == model.tokenizer.config
    codes = torch.arange(4 * 25).reshape(1, 5, 5, 4)
    assert torch.equal(again.tokenizer.decode(codes), model.tokenizer.decode(codes))
    for (name, found), (_, expected) in zip(
        again.decoder.state_dict().items(), model.decoder.state_dict().items(), strict=True
    ):
        assert torch.equal(found, expected), name
    for name, world in model.worlds.items():
        other = again.worlds[name]
        assert (other.name, other.index, other.extent, other.palette.spacing) == (
            name,
            world.index,
            world.extent,
            world.palette.spacing,
        )
        np.testing.assert_array_equal(other.palette.blocks_BRCV, world.palette.blocks_BRCV)
        assert other.palette.blocks_BRCV.dtype == np.float32
        assert sorted(other.pieces) == sorted(world.pieces) == [1, 2]
        for level, pieces in world.pieces.items():
            for kept, given in zip(other.pieces[level], pieces, strict=True):
                np.testing.assert_array_equal(kept, given)


def test_palettes_are_saved_as_they_are_seen(model: Checkpoint, tmp_path: Path) -> None:
    """Views of other arrays, whose numbers lie in another order, among them."""
    rng = np.random.default_rng(0)
    worlds = [
        replace(
            world,
            palette=replace(
                world.palette,
                blocks_BRCV=rng.random((5, 4, 3, 11), np.float32).swapaxes(1, 3)[..., :4],
                captions_BW=None,
            ),
        )
        for world in sorted(model.worlds.values(), key=lambda one: one.index)
    ]
    checkpoint.save(tmp_path, model.tokenizer, model.decoder, worlds, model.text_encoder)
    for world in worlds:
        found = checkpoint.load(tmp_path).worlds[world.name].palette.blocks_BRCV
        np.testing.assert_array_equal(found, world.palette.blocks_BRCV)


def test_digest_is_that_of_the_config(tiny: Path, model: Checkpoint) -> None:
    text = (tiny / "config.json").read_bytes()
    assert model.digest == hashlib.sha256(text).hexdigest()
    files = json.loads(text)["files"]
    assert sorted(files) == sorted(FILES)
    for name in FILES:
        assert files[name] == hashlib.sha256((tiny / name).read_bytes()).hexdigest()


def test_digest_names_every_weight_and_setting(model: Checkpoint, tmp_path: Path) -> None:
    worlds = list(model.worlds.values())
    digests = {model.digest}
    weight = model.decoder.answer.bias
    before = weight[0].item()
    try:
        weight[0] += 1e-3
        digests.add(
            checkpoint.save(tmp_path, model.tokenizer, model.decoder, worlds, model.text_encoder)
        )
    finally:
        weight[0] = before
    for encoder, others in (("1" * 64, worlds), (model.text_encoder, worlds[::-1])):
        digests.add(checkpoint.save(tmp_path, model.tokenizer, model.decoder, others, encoder))
    assert len(digests) == 4


def test_load_gives_networks_that_do_not_train(model: Checkpoint) -> None:
    for network in (model.tokenizer, model.decoder):
        assert not network.training
        for parameter in network.parameters():
            assert parameter.dtype == torch.float32 and not parameter.requires_grad


def test_worlds_go_by_name(model: Checkpoint) -> None:
    assert model.world("planet").extent == Extent("plane", 2)
    assert model.world("scroll").index == 1
    with pytest.raises(NotFound, match="no world 'mars'; this model paints planet, scroll"):
        model.world("mars")


# Pickles.


class Bomb:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("forged", [False, True])
def test_renamed_pickle_is_refused_unexecuted(
    copy: Path, tmp_path: Path, name: str, forged: bool
) -> None:
    """Even if the config vouches for it."""
    trace = tmp_path / "executed"
    content = pickle.dumps(Bomb(trace))
    if forged:
        forge(copy, name, content)
    else:
        (copy / name).write_bytes(content)
    refused(copy, "not safetensors" if forged else "truncated or altered")
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()  # it would have


@pytest.mark.parametrize("name", FILES)
def test_renamed_torch_file_is_refused_unexecuted(copy: Path, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "executed"
    torch.save({"weight": Bomb(trace)}, tmp_path / "weights.pt")
    forge(copy, name, (tmp_path / "weights.pt").read_bytes())
    refused(copy, "not safetensors")
    assert not trace.exists()


def test_pickled_config_is_refused_unexecuted(copy: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    (copy / "config.json").write_bytes(pickle.dumps(Bomb(trace)))
    refused(copy, "not a checkpoint's config")
    assert not trace.exists()


# Damage.


@pytest.mark.parametrize("name", FILES)
def test_truncated_altered_and_missing_files_are_refused(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for bad in (content[:-1], content[:middle], b"", content + b"\0", flipped):
        (copy / name).write_bytes(bad)
        refused(copy, f"{name} is truncated or altered")
    (copy / name).unlink()
    refused(copy, f"{name} is missing")
    (copy / name).mkdir()
    refused(copy, f"{name} is missing")


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused_even_with_their_digest(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    for bad in (content[:-1], content[:100], content[:4], b""):
        forge(copy, name, bad)
        refused(copy, "not safetensors")


def test_folder_without_config_is_not_found(copy: Path) -> None:
    (copy / "config.json").unlink()
    for folder in (copy, copy / "nowhere", copy / "decoder.safetensors"):
        with pytest.raises(NotFound, match="has no config.json"):
            checkpoint.load(folder)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"7", b"{}", b"\xff\xfe", b'{"config": 1}']
)
def test_config_that_is_none_is_refused(copy: Path, text: bytes) -> None:
    (copy / "config.json").write_bytes(text)
    refused(copy, "not a checkpoint's config")


@pytest.mark.parametrize("found", ["handscroll-checkpoint/1", "", None, 1])
def test_config_of_another_format_is_refused(copy: Path, found: object) -> None:
    rewrite(copy, lambda config: config.update(format=found))
    refused(copy, f"format must be '{FORMAT}'")


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["decoder"].update(width=128),
        lambda config: config["decoder"].update(layers=3),
        lambda config: config["decoder"].update(layers=1),
        lambda config: config["decoder"].update(codes=2),
        lambda config: config["decoder"].update(worlds=1, guided=[1.0]),
        lambda config: config["decoder"].update(text_width=12),
        lambda config: config["decoder"].update(guided=[2.0]),
        lambda config: config["decoder"].update(guided=[2.0, 0.5]),
        lambda config: config["tokenizer"].update(width=64),
        lambda config: config["tokenizer"].update(levels=[4, 4]),
        lambda config: config["tokenizer"].update(downsampling=8),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    copy: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(copy, change)
    refused(copy, "does not fit its config|in the tokenizer|worlds, each|guided must be")


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.pop("decoder"),
        lambda config: config.pop("tokenizer"),
        lambda config: config.pop("worlds"),
        lambda config: config.pop("files"),
        lambda config: config.pop("text_encoder"),
        lambda config: config.update(worlds=7),
        lambda config: config.update(files=None),
        lambda config: config["files"].pop("decoder.safetensors"),
        lambda config: config["decoder"].pop("layers"),
        lambda config: config["decoder"].update(dropout=0.1),
        lambda config: config["decoder"].update(layers="two"),
        lambda config: config["tokenizer"].update(depth=1),
        lambda config: config["worlds"][0].pop("spacing"),
        lambda config: config["worlds"][0].update(name="mars"),
        lambda config: config["worlds"][0]["extent"].update(depth=1),
    ],
)
def test_settings_missing_or_misnamed_are_refused(
    copy: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(copy, change)
    refused(copy, "lacks or misnames a setting|positive whole numbers")


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(tokenizer=[1]),
        lambda config: config["decoder"].update(width=-1),
        lambda config: config["decoder"].update(heads=0),
        lambda config: config["decoder"].update(heads=3),
        lambda config: config["decoder"].update(side=8),
        lambda config: config["tokenizer"].update(downsampling=0),
        lambda config: config["worlds"][0].update(spacing=0),
        lambda config: config["worlds"][0].update(spacing="six"),
        lambda config: config["worlds"][0]["extent"].update(kind="globe"),
        lambda config: config["worlds"].append(config["worlds"][0]),
        lambda config: config.update(text_encoder=3),
    ],
)
def test_settings_that_cannot_be_are_refused(
    copy: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(copy, change)
    refused(copy)


@pytest.mark.parametrize(
    "shape", [(24, 3, 4), (24, 3, 1, 3), (0, 3, 1, 4), (24, 2, 1, 4), (24, 3, 0, 4)]
)
def test_palettes_of_other_shapes_are_refused(copy: Path, shape: tuple[int, ...]) -> None:
    """(E, 1, 4), or (E, 3, 4) for a scroll with three rows of cells."""
    palettes = {name: np.zeros(shape, np.float32) for name in ("planet", "scroll")}
    forge(copy, "palettes.safetensors", save_arrays(palettes))
    refused(copy)


@pytest.mark.parametrize(
    ("pictures", "decoded"),
    [
        (np.zeros((2, 48, 48, 3), np.uint8), np.zeros((3, 48, 48, 3), np.uint8)),
        (np.zeros((2, 48, 48, 3), np.uint8), np.zeros((2, 48, 48), np.uint8)),
        (np.zeros((2, 48, 48, 3), np.float32), np.zeros((2, 48, 48, 3), np.float32)),
        (np.zeros((0, 48, 48, 3), np.uint8), np.zeros((0, 48, 48, 3), np.uint8)),
        (np.zeros((1025, 32, 32, 3), np.uint8), np.zeros((1025, 32, 32, 3), np.uint8)),
        (np.zeros((2, 31, 48, 3), np.uint8), np.zeros((2, 31, 48, 3), np.uint8)),
        (np.zeros((2, 48, 513, 3), np.uint8), np.zeros((2, 48, 513, 3), np.uint8)),
    ],
)
def test_pieces_of_other_shapes_are_refused(
    copy: Path, pictures: NDArray[Any], decoded: NDArray[Any]
) -> None:
    arrays = {
        f"{name}.{level}.{what}": one
        for name in ("planet", "scroll")
        for level in (1, 2)
        for what, one in (("pictures", pictures), ("decoded", decoded))
    }
    forge(copy, "pieces.safetensors", save_arrays(arrays))
    refused(copy, "pieces of planet")


def test_pieces_of_a_level_that_there_is_not_are_refused(copy: Path) -> None:
    arrays = load_arrays((copy / "pieces.safetensors").read_bytes())
    for what in ("pictures", "decoded"):
        arrays[f"planet.3.{what}"] = arrays[f"planet.2.{what}"]
    forge(copy, "pieces.safetensors", save_arrays(arrays))
    rewrite(copy, lambda config: config["worlds"][0]["pieces"].append(3))
    refused(copy, "pieces of planet must be of levels 0 to 2, not 3")


def test_without_pieces_all_else_is_the_same(model: Checkpoint) -> None:
    plain = model.as_decoded()
    assert plain.digest == model.digest and plain.tokenizer is model.tokenizer
    for name, world in model.worlds.items():
        assert world.pieces and plain.worlds[name] == replace(world, pieces={})
