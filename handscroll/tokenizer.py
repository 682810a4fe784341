"""The tokenizer: pixels to a grid of tokens and back.

A convolutional autoencoder with finite scalar quantisation (FSQ, Mentzer et al., arXiv
2309.15505). One token covers ``downsampling x downsampling`` pixels and holds K codes; a code is
a small vector of scalars rounded to a few levels each, so there is no codebook to collapse.

Two rules make tiles seamless. Nothing looks further than ``RADIUS_TOK`` tokens: no group norm, no
attention, no batch statistics, only per-position norms and counted convolutions. And what lies
outside the picture is zero before every convolution, as at the border of an array. So a window
decoded with ``RADIUS_TOK`` tokens of margin equals that window cut from one big decode.

Shape suffixes: B batch, H W pixels, h w tokens (or 4-pixel cells), C channels, K codes of a token,
D scalars of a code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handscroll.geometry import PATCH_PX

RADIUS_TOK = 4
"""How far a pixel's value reaches: tokens to each side (three 3x3 convolutions over tokens, then
four over cells of a quarter token)."""

_CELL_PX = 4


def from_rgb(rgb: Tensor) -> Tensor:
    """Bytes of a picture, 0 to 255, as the pixels that a tokenizer reads: [-1, 1]."""
    return rgb.float() / 127.5 - 1


def to_rgb(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as the bytes of a picture, each the nearest."""
    return ((pixels + 1) * 127.5).round().to(torch.uint8)


@dataclass(frozen=True)
class TokenizerConfig:
    """The shape of a tokenizer.

    Attributes:
        downsampling: pixels to a token's side.
        codes: K, codes in a token.
        levels: FSQ levels of the D scalars of one code; their product is the vocabulary.
        width: channels on the token grid.
        cell_width: channels on the grid of 4-pixel cells.
    """

    downsampling: int = 16
    codes: int = 4
    levels: tuple[int, ...] = (4, 4, 4, 4)
    width: int = 256
    cell_width: int = 64

    def __post_init__(self) -> None:
        numbers = (self.downsampling, self.codes, self.width, self.cell_width, *self.levels)
        if any(type(number) is not int or number < 1 for number in numbers) or not self.levels:
            raise ValueError("a tokenizer's sizes are positive whole numbers")
        if self.downsampling % _CELL_PX or PATCH_PX % self.downsampling:
            raise ValueError(
                f"downsampling must be a multiple of {_CELL_PX} that divides {PATCH_PX}, "
                f"not {self.downsampling}"
            )
        if self.vocabulary > 256:
            raise ValueError(f"a code is one byte: {self.vocabulary} values are too many")

    @property
    def vocabulary(self) -> int:
        """How many values one code can take."""
        return math.prod(self.levels)


class Quantizer(nn.Module):
    """FSQ: K codes per token, each a handful of scalars rounded to ``levels`` steps.

    The scalars are brought to unit size and through the normal distribution's own curve, so that
    they arrive evenly spread over (0, 1) and every entry is used; a tanh bound let the codes
    collapse.
    """

    steps_D: Tensor
    stride_D: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.codes = config.codes
        self.register_buffer("steps_D", torch.tensor(config.levels), persistent=False)
        stride = [math.prod(config.levels[:i]) for i in range(len(config.levels))]
        self.register_buffer("stride_D", torch.tensor(stride), persistent=False)

    def forward(self, z_BhwC: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised values carrying the gradient of the unquantised, and codes (B, h, w, K)."""
        z = z_BhwC.float()
        z = z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-6)
        even = 0.5 + 0.5 * torch.erf(z * math.sqrt(0.5))
        steps = even.unflatten(-1, (self.codes, len(self.steps_D))) * self.steps_D
        step = torch.minimum(steps.long(), self.steps_D - 1)
        soft, hard = 2 * even - 1, self._values(step)
        return soft + (hard - soft).detach(), (step * self.stride_D).sum(-1)

    def _values(self, step_BhwKD: Tensor) -> Tensor:
        return ((2 * step_BhwKD + 1) / self.steps_D - 1).flatten(-2)

    def values(self, codes_BhwK: Tensor) -> Tensor:
        """The quantised scalars that codes stand for: (B, h, w, K*D), in (-1, 1)."""
        step = codes_BhwK.long().unsqueeze(-1) // self.stride_D % self.steps_D
        return self._values(step)


class Block(nn.Module):
    """A ConvNeXt block (Liu et al., arXiv 2201.03545) that sees one position to each side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x_BhwC: Tensor, inside_Bhw1: Tensor | None) -> Tensor:
        """One block; ``inside`` (1 in the picture, 0 outside) keeps the outside at zero."""
        near = self.near(x_BhwC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        near = F.rms_norm(near, near.shape[-1:], eps=1e-6)
        x_BhwC = x_BhwC + self.narrow(F.relu(self.wide(near)))
        return x_BhwC if inside_Bhw1 is None else x_BhwC * inside_Bhw1


def split_cells(x_BHWC: Tensor, side: int) -> Tensor:
    """Gather each ``side x side`` square into channels."""
    x = x_BHWC.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return x.permute(0, 1, 3, 2, 4, 5).flatten(3)


def _join_cells(x_BhwC: Tensor, side: int) -> Tensor:
    """The inverse of `split_cells`."""
    x = x_BhwC.unflatten(3, (side, side, -1))
    return x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)


class Tokenizer(nn.Module):
    """Image to tokens to image. Pixels are float RGB in [-1, 1]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.cells = config.downsampling // _CELL_PX
        cell, width, scalars = config.cell_width, config.width, config.codes * len(config.levels)
        self.from_pixels = nn.Linear(3 * _CELL_PX**2, cell)
        self.encode_cells = nn.ModuleList(Block(cell) for _ in range(2))
        self.to_tokens = nn.Linear(cell * self.cells**2, width)
        self.encode_tokens = nn.ModuleList(Block(width) for _ in range(3))
        self.to_scalars = nn.Linear(width, scalars)
        self.quantizer = Quantizer(config)
        self.from_scalars = nn.Linear(scalars, width)
        self.decode_tokens = nn.ModuleList(Block(width) for _ in range(3))
        self.to_cells = nn.Linear(width, cell * self.cells**2)
        self.decode_cells = nn.ModuleList(Block(cell) for _ in range(3))
        self.to_pixels = nn.Conv2d(cell, 3 * _CELL_PX**2, 3, padding=1)

    def _scalars(self, pixels_BHWC: Tensor) -> Tensor:
        x = self.from_pixels(split_cells(pixels_BHWC, _CELL_PX))
        for block in self.encode_cells:
            x = block(x, None)
        x = self.to_tokens(split_cells(x, self.cells))
        for block in self.encode_tokens:
            x = block(x, None)
        return self.to_scalars(x)

    def pixels(
        self,
        values_BhwC: Tensor,
        inside_Bhw: Tensor | None = None,
        crop: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """Quantised scalars (B, h, w, K*D) to pixels (B, H, W, 3); the rest as in `decode`."""
        f = self.config.downsampling
        token_mask = cell_mask = None
        if inside_Bhw is not None:
            token_mask = inside_Bhw[..., None].to(values_BhwC.dtype)
        x = self.from_scalars(values_BhwC)
        x = x if token_mask is None else x * token_mask
        for block in self.decode_tokens:
            x = block(x, token_mask)
        first = [0, 0]
        if crop is not None:
            # From here on, pixels depend on one token to each side.
            near = [slice(max(0, at.start // f - 1), -(-at.stop // f) + 1) for at in crop]
            first = [at.start for at in near]
            x = x[:, *near]
            token_mask = None if token_mask is None else token_mask[:, *near]
        if token_mask is not None:
            cell_mask = token_mask.repeat_interleave(self.cells, 1)
            cell_mask = cell_mask.repeat_interleave(self.cells, 2)
        x = _join_cells(self.to_cells(x), self.cells)
        x = x if cell_mask is None else x * cell_mask
        for block in self.decode_cells:
            x = block(x, cell_mask)
        x = self.to_pixels(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = _join_cells(x, _CELL_PX)
        if crop is not None:
            rows, cols = crop
            top, left = (at * f for at in first)
            x = x[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        return x

    def forward(self, pixels_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct (training): pixels (B, H, W, 3) to pixels and codes (B, h, w, K)."""
        values, codes = self.quantizer(self._scalars(pixels_BHWC))
        return self.pixels(values), codes

    @torch.inference_mode()
    def encode(self, pixels_BHWC: Tensor) -> Tensor:
        """Pixels (B, H, W, 3), sides multiples of ``downsampling``, to codes (B, h, w, K)."""
        return self.quantizer(self._scalars(pixels_BHWC))[1]

    @torch.inference_mode()
    def decode(
        self,
        codes_BhwK: Tensor,
        inside_Bhw: Tensor | None = None,
        crop: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """Codes (B, h, w, K) to pixels (B, H, W, 3) in [-1, 1].

        Args:
            codes_BhwK: codes, any integer type.
            inside_Bhw: which tokens lie in the picture; the others' codes are ignored.
            crop: the rows and columns of pixels wanted, all unless given; less costs less.
        """
        return self.pixels(self.quantizer.values(codes_BhwK), inside_Bhw, crop).clamp(-1, 1)
