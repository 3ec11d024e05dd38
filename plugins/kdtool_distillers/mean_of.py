"""Networks that answer together: the mean of their probabilities."""

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
    """Networks with weights that sum to 1: images to the logarithm of the weighted mean of their probabilities.

    Each may expect images normalised in another way than those that are given: ``change`` are the factor and the
    summand of each channel [networks, 2, channels].
    """

    weights: Tensor
    change: Tensor

    def __init__(self, members: Sequence[nn.Module], weights: Tensor, change: Tensor) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", weights)
        self.register_buffer("change", change)

    def forward(self, images: Tensor) -> Tensor:
        """Return log p [batch, classes], the logits of p itself."""
        found = []
        for member, (factor, summand) in zip(self.members, self.change, strict=True):
            seen = images * factor.view(-1, 1, 1) + summand.view(-1, 1, 1)
            found.append(member(seen).float())
        return log_mean(torch.stack(found), self.weights)


def log_mean(logits: Tensor, weights: Tensor) -> Tensor:
    """Return log sum over i of w_i softmax(z_i) of logits [networks, batch, classes] and weights [networks]."""
    return (logits.log_softmax(dim=2) + weights.log().view(-1, 1, 1)).logsumexp(dim=0)


def mean_of(
    networks: Sequence[Network], weights: Sequence[float] | None = None, changes: Sequence[Tensor] | None = None
) -> Network:
    """Return a network, to ask and not to keep, that answers with the weighted mean of all (unset: the plain mean).

    ``changes`` are what makes the images that it is given those that each network expects (see `renormalised`).
    """
    from kdtool import Network

    count, first = len(networks), networks[0]
    plain = torch.tensor([[1.0], [0.0]]).expand(2, first.architecture.input[0])
    module = Mean(
        [one.module for one in networks],
        torch.tensor(weights if weights is not None else [1 / count] * count),
        torch.stack([plain] * count if changes is None else list(changes)),
    )
    return Network(first.architecture, module)


def renormalised(given: Normalisation, wanted: Normalisation) -> Tensor:
    """Return the factor and the summand of each channel [2, channels] that turn images of one normalisation into those
    of another."""
    (mean, std), (other_mean, other_std) = (
        tuple(torch.tensor(one, dtype=torch.float64) for one in both) for both in (given, wanted)
    )
    return torch.stack([std / other_std, (mean - other_mean) / other_std]).float()
