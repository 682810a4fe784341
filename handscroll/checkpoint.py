"""A checkpoint: a folder of safetensors and one ``config.json``, never a pickle.

    config.json              shapes, worlds, the text encoder's digest, SHA-256 of each file below
    tokenizer.safetensors    decoder.safetensors    palettes.safetensors    pieces.safetensors

The model digest is the SHA-256 of ``config.json``, which names the digest of every weight file: it
names exactly these weights and this configuration. Every digest is checked before its file is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas, Sampling, read_spec
from handscroll.context import Floats
from handscroll.decoder import Decoder, DecoderConfig
from handscroll.detail import BLOCK_PX, Pieces
from handscroll.errors import BrokenCheckpoint, InvalidRequest, NotFound
from handscroll.field import CELL_PX, CELL_VALUES, Palette
from handscroll.geometry import PATCH_PX, Extent
from handscroll.tokenizer import Tokenizer, TokenizerConfig

FORMAT = "handscroll-checkpoint/8"
SHIPPED = Path(__file__).parent / "weights"
"""The checkpoint that comes with the package."""
PIECES, PIECE_PX = 1024, 512
"""How many pieces of pictures a level may have, and how high and wide they may be: one goes into a
message."""

_FILES = tuple(f"{name}.safetensors" for name in ("tokenizer", "decoder", "palettes", "pieces"))


@dataclass(frozen=True)
class World:
    """One of the worlds a model paints.

    Attributes:
        name: its name.
        index: its number in the decoder.
        extent: what a canvas of this world covers unless it says otherwise.
        palette: what its fields are made of.
        pieces: of the pictures it was learned from, by level: examples of what the tokenizer loses;
            none of levels that are shown as they are decoded.
    """

    name: str
    index: int
    extent: Extent
    palette: Palette
    pieces: Mapping[int, Pieces] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Canvas("", self.name, 0, self.extent)  # refuses an extent that no canvas can have
        height = self.extent.size(0)[0]
        shape = self.palette.blocks_BRCV.shape
        rows = shape[1:2] if height is None else (-(-height // CELL_PX),)
        if len(shape) != 4 or min(shape) < 1 or shape[1::2] != (*rows, CELL_VALUES):
            said = "rows" if height is None else rows[0]
            raise ValueError(
                f"palette {self.name} must have shape (blocks, {said}, columns, {CELL_VALUES}), "
                f"not {shape}"
            )
        if self.palette.layered != (height is not None):
            raise ValueError(f"palette {self.name} is layered if its world has a height, else not")
        captions = self.palette.captions_BW
        if captions is not None and (captions.ndim != 2 or len(captions) != shape[0]):
            raise ValueError(
                f"captions of palette {self.name} must have shape ({shape[0]}, width), not "
                f"{captions.shape}"
            )
        spacing = self.palette.spacing
        if type(spacing) is not int or spacing < 1:
            raise ValueError(f"spacing must be a positive whole number, not {spacing!r}")
        for level, pieces in self.pieces.items():
            for pixels in pieces:
                shape = pixels.shape
                if pixels.dtype != np.uint8 or len(shape) != 4 or 0 in shape or shape[3] != 3:
                    raise ValueError(
                        f"pieces of {self.name} must be bytes of shape (pieces, height, width, 3), "
                        f"not {pixels.dtype} of {shape}"
                    )
                if len(pixels) > PIECES:
                    raise ValueError(
                        f"there may be {PIECES} pieces of {self.name} of a level, not {len(pixels)}"
                    )
                if not BLOCK_PX <= min(shape[1:3]) <= max(shape[1:3]) <= PIECE_PX:
                    raise ValueError(
                        f"pieces of {self.name} must be {BLOCK_PX} to {PIECE_PX} pixels high and "
                        f"wide, not {shape[1]} x {shape[2]}"
                    )
            if pieces.pictures_NHW3.shape != pieces.decoded_NHW3.shape:
                raise ValueError(
                    f"pieces of {self.name} and what is decoded of them must be as many and as "
                    f"large: {pieces.pictures_NHW3.shape}, not {pieces.decoded_NHW3.shape}"
                )
            if not 0 <= level <= self.extent.finest:
                raise ValueError(
                    f"pieces of {self.name} must be of levels 0 to {self.extent.finest}, "
                    f"not {level}"
                )


@dataclass(frozen=True)
class Checkpoint:
    """A model, ready to paint.

    Attributes:
        digest: names exactly these weights and this configuration.
        tokenizer, decoder: the two networks, in f32, not training.
        worlds: by name.
        text_encoder: digest of the encoder whose embeddings it was trained on.
        sampling: the settings it paints best with; a canvas says its own.
    """

    digest: str
    tokenizer: Tokenizer
    decoder: Decoder
    worlds: Mapping[str, World]
    text_encoder: str
    sampling: Sampling = field(default_factory=Sampling)

    def world(self, name: str) -> World:
        """A world by name.

        Raises:
            NotFound: the model has no such world.
        """
        if name not in self.worlds:
            raise NotFound(f"no world {name!r}; this model paints {', '.join(sorted(self.worlds))}")
        return self.worlds[name]

    def as_decoded(self) -> Checkpoint:
        """The same, but what it paints is shown as it is decoded, without detail."""
        plain = {name: replace(world, pieces={}) for name, world in self.worlds.items()}
        return replace(self, worlds=plain)


def save(
    folder: Path,
    tokenizer: Tokenizer,
    decoder: Decoder,
    worlds: Sequence[World],
    text_encoder: str,
    sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
) -> str:
    """Write a checkpoint and return its digest. ``config.json`` comes last, so a torn one shows."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "tokenizer.safetensors": save_tensors(tokenizer.state_dict()),
        "decoder.safetensors": save_tensors(decoder.state_dict()),
        "palettes.safetensors": save_arrays(dict(_palette_arrays(worlds))),
        "pieces.safetensors": save_arrays(dict(_piece_arrays(worlds))),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    config = {
        "format": FORMAT,
        "tokenizer": asdict(tokenizer.config),
        "decoder": asdict(decoder.config),
        "worlds": [
            {
                "name": one.name,
                "extent": asdict(one.extent),
                "spacing": one.palette.spacing,
                "pieces": sorted(one.pieces),
            }
            for one in worlds
        ],
        "text_encoder": text_encoder,
        "sampling": asdict(sampling),
        "files": {name: _sha256(content) for name, content in contents.items()},
    }
    text = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    (folder / "config.json").write_bytes(text)
    return _sha256(text)


def load(folder: Path = SHIPPED) -> Checkpoint:
    """Read and check a checkpoint.

    Raises:
        NotFound: there is no ``config.json`` in the folder.
        BrokenCheckpoint: a file is missing, truncated, altered, or not what it claims to be.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise NotFound(f"no checkpoint in {folder}: it has no config.json")
    text = path.read_bytes()
    try:
        config = json.loads(text)
        found = config["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenCheckpoint(f"{path} is not a checkpoint's config: {error}") from error
    if found != FORMAT:
        raise BrokenCheckpoint(f"{path}: format must be {FORMAT!r}, not {found!r}")
    try:
        contents = {name: _read(folder / name, config["files"][name]) for name in _FILES}
        tokenizer = Tokenizer(TokenizerConfig(**_tuples(config["tokenizer"])))
        decoder = Decoder(DecoderConfig(**config["decoder"]))
        palettes, pieces = (_arrays(contents[name], name) for name in _FILES[2:])
        worlds = [
            _world(one, index, palettes, pieces) for index, one in enumerate(config["worlds"])
        ]
        encoder = config["text_encoder"]
        sampling = read_spec(Sampling, config["sampling"])
        _agree(tokenizer.config, decoder.config, worlds, encoder)
    except (KeyError, TypeError, AttributeError) as error:
        raise BrokenCheckpoint(f"{path} lacks or misnames a setting: {error}") from error
    except (ValueError, InvalidRequest) as error:
        raise BrokenCheckpoint(f"{path}: {error}") from error
    _fill(tokenizer, contents["tokenizer.safetensors"], folder / "tokenizer.safetensors")
    _fill(decoder, contents["decoder.safetensors"], folder / "decoder.safetensors")
    by_name = {one.name: one for one in worlds}
    return Checkpoint(_sha256(text), tokenizer, decoder, by_name, encoder, sampling)


def _world(
    told: dict[str, Any],
    index: int,
    palettes: Mapping[str, NDArray[Any]],
    pieces: Mapping[str, NDArray[Any]],
) -> World:
    name, extent = told["name"], Extent(**told["extent"])
    captions, layered = palettes.get(f"{name}.captions"), extent.height_px is not None
    palette = Palette(palettes[name], captions, told["spacing"], layered)
    by_level = {
        level: Pieces(pieces[f"{name}.{level}.pictures"], pieces[f"{name}.{level}.decoded"])
        for level in told["pieces"]
    }
    return World(name, index, extent, palette, by_level)


def _palette_arrays(worlds: Sequence[World]) -> Iterator[tuple[str, Floats]]:
    # Contiguous: what is a view of other arrays would be written in their order.
    for world in worlds:
        yield world.name, np.ascontiguousarray(world.palette.blocks_BRCV)
        if world.palette.captions_BW is not None:
            yield f"{world.name}.captions", np.ascontiguousarray(world.palette.captions_BW)


def _piece_arrays(worlds: Sequence[World]) -> Iterator[tuple[str, Pixels]]:
    for world in worlds:
        for level, pieces in world.pieces.items():
            yield f"{world.name}.{level}.pictures", np.ascontiguousarray(pieces.pictures_NHW3)
            yield f"{world.name}.{level}.decoded", np.ascontiguousarray(pieces.decoded_NHW3)


def _agree(
    tokenizer: TokenizerConfig, decoder: DecoderConfig, worlds: Sequence[World], encoder: object
) -> None:
    """Refuse parts that do not fit each other."""
    wanted = (tokenizer.codes, tokenizer.vocabulary, PATCH_PX // tokenizer.downsampling)
    found = (decoder.codes, decoder.vocabulary, decoder.side)
    if wanted != found:
        raise ValueError(
            f"codes, vocabulary and side are {wanted} in the tokenizer, {found} in the decoder"
        )
    if len({world.name for world in worlds}) != len(worlds) or len(worlds) != decoder.worlds:
        raise ValueError(f"the decoder paints {decoder.worlds} worlds, each with its own name")
    if type(encoder) is not str:
        raise ValueError(f"text_encoder must be a digest, not {encoder!r}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
    }


def _read(path: Path, digest: str) -> bytes:
    if not path.is_file():
        raise BrokenCheckpoint(f"{path} is missing")
    content = path.read_bytes()
    if _sha256(content) != digest:
        raise BrokenCheckpoint(
            f"{path} is truncated or altered: its SHA-256 is {_sha256(content)[:16]}…, "
            f"the config says {digest[:16]}…"
        )
    return content


def _arrays(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    try:
        return load_arrays(content)
    except SafetensorError as error:
        raise BrokenCheckpoint(f"{name} is not safetensors: {error}") from error


def _fill(model: nn.Module, content: bytes, path: Path) -> None:
    try:
        model.load_state_dict(load_tensors(content))
    except SafetensorError as error:
        raise BrokenCheckpoint(f"{path} is not safetensors: {error}") from error
    except RuntimeError as error:
        lines = re.sub(r"\s+", " ", str(error))
        raise BrokenCheckpoint(f"{path} does not fit its config: {lines}") from error
    model.eval().requires_grad_(False)
