"""Weights set to zero by their scores, and kept there."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtool.models.architecture import Network

Masks = dict[str, Tensor]
"""By the name of a weight: True where it stays."""


def cubic(begin: float, end: float, steps: int) -> list[float]:
    """Return the sparsity after each step of gradual pruning, the last of which is ``end``.

    s_t = s_f + (s_i - s_f) (1 - t / n)^3: much goes at first, little at last (Zhu and Gupta, 2017, arXiv:1710.01878).
    """
    return [end + (begin - end) * (1 - step / steps) ** 3 for step in range(1, steps)] + [end]


@dataclass(frozen=True)
class Masking:
    """Which weights stay, and what could not go so that no layer is emptied."""

    masks: Masks
    capped: list[str] = field(default_factory=list)
    """The weights of which only the one with the highest score stays, since all of them were to go."""

    @property
    def removed(self) -> float:
        """Which part of the weights goes."""
        masks = self.masks.values()
        return 1 - sum(int(mask.count_nonzero()) for mask in masks) / sum(mask.numel() for mask in masks)

    def as_data(self, asked: float) -> dict[str, Any]:
        """Return what was reached, as plain data for a history."""
        found: dict[str, Any] = {"of": "weights", "asked": asked, "removed": round(self.removed, 4)}
        if self.capped:
            layers = ", ".join(name.removesuffix(".weight") for name in self.capped[:3])
            more = f" and {len(self.capped) - 3} more" if len(self.capped) > 3 else ""
            found["capped"] = f"{layers}{more} would be emptied: one weight stays in each"
        return found


def lowest_scores(scores: Mapping[str, Tensor], ratio: float, scope: str = "global") -> Masking:
    """Return masks under which the round(ratio * n) of n weights with the least scores go; of equal ones the first.

    With ``scope="global"`` n counts the weights of all layers together, with ``"layer"`` those of each layer. The
    highest score of every layer stays.
    """
    if scope == "layer":
        each = {name: lowest_scores({name: score}, ratio) for name, score in scores.items()}
        masks = {name: one.masks[name] for name, one in each.items()}
        return Masking(masks, [name for one in each.values() for name in one.capped])
    flat = torch.cat([score.detach().flatten() for score in scores.values()]).float()
    sizes = [score.numel() for score in scores.values()]
    best = {}
    for name, part in zip(scores, flat.split(sizes), strict=True):
        place = part.argmax()
        best[name] = float(part[place])
        part[place] = torch.inf
    keep = torch.ones(len(flat), dtype=torch.bool)
    count = min(round(ratio * len(flat)), len(flat) - len(sizes))
    last = -torch.inf
    if count > 0:
        # numpy finds the k-th least many times faster than torch's kthvalue and topk.
        last = float(np.partition(flat.numpy(), count - 1)[count - 1])
        keep = flat > last
        equal = (flat == last).nonzero().flatten()
        excess = len(flat) - int(keep.count_nonzero()) - count
        keep[equal[len(equal) - excess :]] = True
    masks = {}
    for (name, score), mask in zip(scores.items(), keep.split(sizes), strict=True):
        masks[name] = mask.view(score.shape)
    alone = [name for name, mask in masks.items() if mask.numel() > 1 and int(mask.count_nonzero()) == 1]
    return Masking(masks, [name for name in alone if best[name] <= last])


def apply_masks(network: Network, masks: Mapping[str, Tensor]) -> Network:
    """Return a copy of a network whose masked weights are zero."""
    module = copy.deepcopy(network.module)
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name).mul_(mask)
    return Network(network.architecture, module)
