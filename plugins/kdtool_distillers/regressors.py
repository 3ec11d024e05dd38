"""Layers behind the student's maps that are trained to predict the teacher's, and then dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.features import Pair, before_activation

if TYPE_CHECKING:
    from kdtool import Network

# The authors' lower bound on VID's variances.
LEAST_VARIANCE = 1e-5


class Normal(nn.Module):
    """Predict mean and variance of the teacher's map, as in variational information distillation.

    Maps [batch, student channels, height, width] to [batch, 2 * teacher channels, height, width], averaged to at most
    the teacher's resolution: the means, then the variances, which depend on the channel alone.
    """

    def __init__(self, pair: Pair, variance: float) -> None:
        """Predict the teacher's map of ``pair``; ``variance`` is that of all channels at first."""
        super().__init__()
        channels = pair.teacher.channels
        (height, width), (other_height, other_width) = pair.student.grid, pair.teacher.grid
        self.size = (min(height, other_height), min(width, other_width))
        self.mean = nn.Sequential(
            nn.Conv2d(pair.student.channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        # The inverse of softplus, without the overflow of exp for large variances.
        excess = variance - LEAST_VARIANCE
        self.scale = nn.Parameter(torch.full((channels,), excess + math.log(-math.expm1(-excess))))

    def forward(self, x: Tensor) -> Tensor:
        """Return means and variances of the teacher's map."""
        if tuple(x.shape[2:]) != self.size:
            x = F.adaptive_avg_pool2d(x, self.size)
        mean: Tensor = self.mean(x)
        variance = F.softplus(self.scale.float()) + LEAST_VARIANCE
        return torch.cat([mean, variance[:, None, None].expand_as(mean)], dim=1)


@dataclass(frozen=True)
class Rectified(Pair):
    """A pair of layers, with whether the teacher's ends in an activation."""

    rectified: bool = False


def rectified(pair: Pair, teacher: Network) -> Rectified:
    """Return a pair that knows whether the teacher's layer ends in an activation."""
    ends = before_activation(teacher, pair.teacher).before
    return Rectified(pair.student, pair.teacher, as_map=pair.as_map, owner=pair.owner, rectified=ends)


def projector(pair: Pair) -> nn.Module:
    """Return WKD's projector to the teacher's channels: a 1x1 convolution, batch-norm, and ReLU after an activation.

    The resolution stays the student's, since only statistics over positions are compared.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(pair.student.channels, pair.teacher.channels, 1),
        nn.BatchNorm2d(pair.teacher.channels),
    ]
    if isinstance(pair, Rectified) and pair.rectified:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)
