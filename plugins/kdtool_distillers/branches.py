"""Branches behind the stages of a student, which turn its maps into logits (OFA)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from kdtool.features import Tap


class Branches(nn.Module):
    """A branch behind each tap, which ends in logits."""

    def __init__(self, taps: Sequence[Tap], *, width: int, classes: int) -> None:
        """Put a branch behind each of ``taps``; ``width`` are the channels in front of its linear layer."""
        super().__init__()
        last = len(taps) - 1
        self.branches = nn.ModuleList(
            _branch(tap.channels, last - number, width, classes) for number, tap in enumerate(taps)
        )

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return logits [batch, classes], one per tap.

        ``maps`` are [batch, channels, height, width], one per tap; ``images`` are not used.
        """
        return [branch(one) for branch, one in zip(self.branches, maps, strict=True)]


def _branch(channels: int, halvings: int, width: int, classes: int) -> nn.Sequential:
    """Return a branch of ``halvings`` separable convolutions from maps to logits."""
    widths = [channels * 2**number for number in range(halvings)] + [width]
    steps: list[nn.Module] = [_separable(before, after) for before, after in itertools.pairwise(widths)]
    trunk = steps or [nn.Conv2d(channels, width, 1)]
    branch = nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
    for layer in branch.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return branch


def _separable(channels: int, out: int) -> nn.Sequential:
    """Return two depthwise-separable 3x3 convolutions, each with batch-norm and ReLU; the first halves the map."""
    layers: list[nn.Module] = []
    for stride, width in ((2, channels), (1, out)):
        layers += [
            nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
