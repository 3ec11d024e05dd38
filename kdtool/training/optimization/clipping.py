"""How far the norm of a gradient may go: a number, or found while the training runs."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.training.options import Clip

PERCENTILE = 10


class Clipping:
    """Scale gradients down to a largest norm.

    ``auto`` is AutoClip (Seetharaman et al., 2020, arXiv:2007.14469): the largest norm is the 10th percentile of the
    norms of all steps up to this one, interpolated linearly.
    """

    def __init__(self, clip: Clip) -> None:
        """Clip to the norm that ``clip`` names, or automatically."""
        self.clip = clip
        self.norms: list[float] = []

    def __call__(self, parameters: Sequence[nn.Parameter]) -> None:
        """Scale the gradients of the parameters, as one vector, down to the largest norm."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        nn.utils.clip_grads_with_norm_(parameters, self.limit(norm), norm)

    def limit(self, norm: Tensor) -> float:
        """Return the largest norm, given the norm of this step."""
        if self.clip.norm is not None:
            return self.clip.norm
        if torch.isfinite(norm):  # in fp16 a step may overflow, and is then left out
            bisect.insort(self.norms, float(norm))
        if not self.norms:
            return torch.inf
        place = PERCENTILE / 100 * (len(self.norms) - 1)
        low = self.norms[int(place)]
        high = self.norms[min(int(place) + 1, len(self.norms) - 1)]
        return low + (place - int(place)) * (high - low)

    def state(self) -> dict[str, Any]:
        """Return the norms of the steps so far."""
        return {"norms": torch.tensor(self.norms, dtype=torch.float64)}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
        self.norms = state["norms"].tolist()
