"""An ensemble as one network: the mean of the probabilities of several networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from kdtool import Network

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, for images in 0..1."""


class Mean(nn.Module):
    """The logarithm of the weighted mean of the probabilities of several networks.

    ``weights`` [networks] sum to 1. Each network may expect another normalisation of the images than that of the
    input: ``change`` [networks, 2, channels] holds the factor and the summand of each channel that convert it.
    """

    weights: Tensor
    change: Tensor

    def __init__(self, members: Sequence[nn.Module], weights: Tensor, change: Tensor) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights)
        self.register_buffer("change", change)

    def forward(self, images: Tensor) -> Tensor:
        """Return log p [batch, classes], which are logits of p, for images [batch, channels, height, width]."""
        logits = []
        for member, (factor, summand) in zip(self.members, self.change, strict=True):
            converted = images * factor.view(-1, 1, 1) + summand.view(-1, 1, 1)
            logits.append(member(converted).float())
        return log_mean(torch.stack(logits), self.weights)


def log_mean(logits: Tensor, weights: Tensor) -> Tensor:
    """Return log sum over i of w_i softmax(z_i), [batch, classes].

    ``logits`` z are [networks, batch, classes], ``weights`` w [networks].
    """
    return (logits.log_softmax(dim=2) + weights.log().view(-1, 1, 1)).logsumexp(dim=0)


def mean_of(
    networks: Sequence[Network], weights: Sequence[float] | None = None, changes: Sequence[Tensor] | None = None
) -> Network:
    """Return a network whose probabilities are the weighted mean of those of all; by default the plain mean.

    It can be evaluated, but not saved: it carries the architecture of the first network. ``changes`` [2, channels] of
    each network convert the images to the normalisation that it expects (see `renormalised`).
    """
    from kdtool import Network

    count, first = len(networks), networks[0]
    unchanged = torch.tensor([[1.0], [0.0]]).expand(2, first.architecture.input[0])
    module = Mean(
        [network.module for network in networks],
        torch.tensor(weights if weights is not None else [1 / count] * count),
        torch.stack([unchanged] * count if changes is None else list(changes)),
    )
    return Network(first.architecture, module)


def renormalised(source: Normalisation, target: Normalisation) -> Tensor:
    """Return the factor and the summand of each channel [2, channels] that convert images between normalisations."""
    (source_mean, source_std), (target_mean, target_std) = (
        tuple(torch.tensor(numbers, dtype=torch.float64) for numbers in normalisation)
        for normalisation in (source, target)
    )
    return torch.stack([source_std / target_std, (source_mean - target_mean) / target_std]).float()
