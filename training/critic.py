"""The critic: tells real pictures from decoded ones, patch by patch (PatchGAN, arXiv 1611.07004).

Trained against the tokenizer's decoder, it asks for the texture that no sum of pixel errors asks
for (VQGAN, Esser et al., arXiv 2012.09841). Hinge losses; no norms, so that it sees each picture
by itself. It judges windows of 38 pixels, and ships nowhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Critic(nn.Module):
    """Pixels in [-1, 1] to a map of scores: positive is real."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(sizes[-1], sizes[-1], 3, padding=1), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(sizes[-1], 1, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        """Scores (B, 1, H/8, W/8)."""
        return self.layers(pixels_BHWC.permute(0, 3, 1, 2)).float()


def critic_loss(real: Tensor, painted: Tensor) -> Tensor:
    """Hinge loss of the critic, from the scores that it gives."""
    return (F.relu(1 - real).mean() + F.relu(1 + painted).mean()) / 2


def balance(loss: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The factor at which ``adversarial`` pulls at the last layer as hard as ``loss`` does.

    VQGAN, equation 7. Both losses must still have their graphs.
    """
    (pull,) = torch.autograd.grad(loss, last, retain_graph=True)
    (push,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (pull.norm() / (push.norm() + 1e-6)).clamp(max=1e3).detach()
