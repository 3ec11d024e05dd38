"""An ensemble as one network: the mean of the probabilities of several networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from kdtool import Network


class Mean(nn.Module):
    """The logarithm of the weighted mean of the probabilities of several networks; ``weights`` [networks] sum to 1."""

    weights: Tensor

    def __init__(self, members: Sequence[nn.Module], weights: Tensor) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights)

    def forward(self, images: Tensor) -> Tensor:
        """Return log p [batch, classes], which are logits of p, for images [batch, channels, height, width]."""
        return log_mean(torch.stack([member(images).float() for member in self.members]), self.weights)


def log_mean(logits: Tensor, weights: Tensor) -> Tensor:
    """Return log sum over i of w_i softmax(z_i), [batch, classes].

    ``logits`` z are [networks, batch, classes], ``weights`` w [networks].
    """
    return (logits.log_softmax(dim=2) + weights.log().view(-1, 1, 1)).logsumexp(dim=0)


def mean_of(networks: Sequence[Network], weights: Sequence[float] | None = None) -> Network:
    """Return a network whose probabilities are the weighted mean of those of all; by default the plain mean.

    It can be evaluated, but not saved: it carries the architecture of the first network.
    """
    from kdtool import Network

    count = len(networks)
    shares = torch.tensor(weights if weights is not None else [1 / count] * count)
    return Network(networks[0].architecture, Mean([network.module for network in networks], shares))
