"""Masks of the weights with the lowest scores, and networks with masked weights set to zero."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtool.errors import Error, nearest
from kdtool.models.architecture import Network
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.used_weights import named
from kdtool.plugins.method import Method
from kdtool.plugins.method_code import misreturned, returned
from kdtool.training.zeros import prunable, unprunable

Masks = dict[str, Tensor]
"""By the name of a weight tensor, a mask of its shape: True for weights that stay."""


def cubic_at(begin: float, end: float, progress: float) -> float:
    """Return end + (begin - end) (1 - progress)^3, a sparsity or a cost that goes from ``begin`` to ``end``.

    The first steps change most, the last ones little (Zhu and Gupta, 2017, arXiv:1710.01878). ``progress`` is the part
    that is over; from 1 on the value is ``end``.
    """
    return end + (begin - end) * (1 - min(max(progress, 0.0), 1.0)) ** 3


def cubic(begin: float, end: float, steps: int) -> list[float]:
    """Return the sparsity, a fraction, after each step of gradual pruning from ``begin`` to ``end``.

    s_t = s_f + (s_i - s_f) (1 - t / n)^3, see `cubic_at`.
    """
    return [cubic_at(begin, end, step / steps) for step in range(1, steps)] + [end]


@dataclass(frozen=True)
class Dense:
    """Layers that compute the weights that they use, so that masks cannot set these to zero."""

    layers: str
    """Their paths in words, each with the reason."""
    weights: int
    """How many weights they use."""


def dense_layers(network: Network, ratio: float, chosen: Collection[str] | None = None) -> Dense | None:
    """Return the layers of a network that cannot be masked, or None if there are none.

    ``ratio`` is the fraction of all weights that masks are to remove; with ``chosen``, of those in the layers of these
    paths, and no other layer is returned.

    Raises:
        Error: the other layers do not have so many weights.
    """
    sizes = {path: size for path, size in unprunable(network.module).items() if chosen is None or path in chosen}
    if not sizes:
        return None
    dense = Dense(named(network.module, sizes), sum(sizes.values()))
    others = sum(
        weight.numel()
        for name, weight in prunable(network.module).items()
        if chosen is None or name.removesuffix(".weight") in chosen
    )
    share = others / (others + dense.weights)
    if share < ratio:
        raise Error(
            f"{network.architecture.spec}: {len(sizes)} of its layers use weights that they compute from their "
            f"parameters, so that zeros in these are none in use: {dense.layers}; the others have {share:.1%} of the "
            f"weights, less than the {ratio:.1%} to remove; remove channels instead (--method filter-l1)"
        )
    return dense


@dataclass(frozen=True)
class Masking:
    """Which weights stay, and which layers would be emptied."""

    masks: Masks
    capped: list[str] = field(default_factory=list)
    """The names of the weight tensors that would be emptied: only the weight with the highest score stays in each."""
    dense: Dense | None = None
    """The layers that cannot be masked, None if there are none."""
    left: tuple[str, ...] = ()
    """The layers that the user wants to stay as they are."""
    unscored: Mapping[str, int] = field(default_factory=dict)
    """The names of weight tensors without scores, all of which stay: how many weights they have."""

    @property
    def removed(self) -> float:
        """The fraction of the weights that is removed; those without masks or scores count as well."""
        masks = self.masks.values()
        whole = sum(mask.numel() for mask in masks) + self.kept
        return sum(int((~mask).count_nonzero()) for mask in masks) / whole

    @property
    def kept(self) -> int:
        """How many weights stay because no mask can remove them, or because they have no score."""
        return (self.dense.weights if self.dense else 0) + sum(self.unscored.values())

    def as_data(self, asked: float) -> dict[str, Any]:
        """Return what was reached as plain data for the history; ``asked`` is the requested fraction."""
        data: dict[str, Any] = {"of": "weights", "asked": asked, "removed": round(self.removed, 4)}
        reasons = [f"{_paths(self.capped)} would be emptied: one weight stays in each"] if self.capped else []
        if self.unscored and round(self.removed, 3) < round(asked, 3):  # as they are printed
            reasons.append(f"the method gives no scores to {_paths(self.unscored)}")
        if reasons:
            data["capped"] = "; ".join(reasons)
        if self.dense:
            data["dense"] = self.dense.layers
        if self.left:
            data["left"] = ", ".join(self.left)
        return data


def _paths(names: Collection[str]) -> str:
    """Return the layers of weight tensors in words: the first three, and how many there are besides."""
    layers = ", ".join(name.removesuffix(".weight") for name in [*names][:3])
    return f"{layers} and {len(names) - 3} more" if len(names) > 3 else layers


def masking(
    pruner: Method,
    network: Network,
    found: Mapping[str, Any],
    ratio: float,
    *,
    layers: Collection[str],
    dense: Dense | None,
    asked: float,
    scope: str,
) -> Masking:
    """Return the masks of a network that a pruner's scores ``found`` give, for a fraction ``ratio`` of the weights.

    ``layers`` are the paths of those that may get zeros, ``dense`` those that cannot. ``asked`` is the fraction that
    the last step removes; ``scope`` is as in `lowest_scores`. Weights that are zero already are removed first.

    Raises:
        Error: a score has no meaning, or weights without scores are so many that the others are too few.
    """
    weights = prunable(network.module)
    _check_names(pruner, network, found, weights)
    chosen = {name: weight for name, weight in weights.items() if name.removesuffix(".weight") in layers}
    zeros = {name: weight == 0 for name, weight in chosen.items() if name in found}
    # Minus infinity is below every possible score.
    scores = {
        name: scored(pruner, name, found[name], chosen[name]).masked_fill(zero, -float("inf"))
        for name, zero in zeros.items()
    }
    unscored = {name: weight.numel() for name, weight in chosen.items() if name not in scores}
    left = tuple(name.removesuffix(".weight") for name in weights if name not in chosen)
    if not scores:
        raise misreturned(pruner, f"no scores of {_paths(unscored)}, which may be pruned")
    kept = Masking({}, dense=dense, unscored=unscored).kept
    if kept and scope == "global":
        others = sum(score.numel() for score in scores.values())
        share = others / (others + kept)
        if unscored and share < asked:
            raise misreturned(
                pruner,
                f"scores of {share:.1%} of the weights, less than the {asked:.1%} to remove; there are none of "
                f"{_paths(unscored)}",
            )
        # The ratio is of all weights; those that stay leave more to the others.
        ratio = min(1.0, ratio * (others + kept) / others)
    lowest = lowest_scores(scores, ratio, scope)
    masks = {name: mask & ~zeros[name] for name, mask in lowest.masks.items()}
    return Masking(masks, lowest.capped, dense, left, unscored)


def _check_names(pruner: Method, network: Network, found: Mapping[str, Any], weights: Collection[str]) -> None:
    """Check that scores have names of weights.

    Those of layers that cannot be masked are left out, as are other names of a weight that several layers share.

    Raises:
        Error: a name is that of something else.
    """
    tied = {f"{path}.weight" for path, layer in network.module.named_modules() if isinstance(layer, CONV_LINEAR)}
    inside = tuple(f"{path}." for path in unprunable(network.module))
    for name in found:
        if name not in weights and name not in tied and not str(name).startswith(inside):
            raise misreturned(
                pruner,
                f"scores of {str(name)!r}, which is no weight that masks are for"
                f"{nearest(str(name), weights)}; kdtool.training.prunable has the names",
            )


def lowest_scores(scores: Mapping[str, Tensor], ratio: float, scope: str = "global") -> Masking:
    """Return masks that remove the round(ratio * n) of n weights with the lowest scores; of equal ones the first.

    ``scores`` are by name, each in the shape of its weight. With ``scope="global"`` n counts the weights of all layers
    together, with ``"layer"`` those of each layer. The highest score of every layer stays.
    """
    if scope == "layer":
        maskings = {name: lowest_scores({name: score}, ratio) for name, score in scores.items()}
        masks = {name: masking.masks[name] for name, masking in maskings.items()}
        return Masking(masks, [name for masking in maskings.values() for name in masking.capped])
    flat = torch.cat([score.detach().flatten() for score in scores.values()]).float()
    sizes = [score.numel() for score in scores.values()]
    best = {}
    for name, part in zip(scores, flat.split(sizes), strict=True):
        index = part.argmax()
        best[name] = float(part[index])
        part[index] = torch.inf
    keep = torch.ones(len(flat), dtype=torch.bool)
    count = min(round(ratio * len(flat)), len(flat) - len(sizes))
    threshold = -torch.inf
    if count > 0:
        # numpy finds the k-th smallest many times faster than torch's kthvalue and topk.
        threshold = float(np.partition(flat.numpy(), count - 1)[count - 1])
        keep = flat > threshold
        equal = (flat == threshold).nonzero().flatten()
        excess = len(flat) - int(keep.count_nonzero()) - count
        keep[equal[len(equal) - excess :]] = True
    masks = {}
    for (name, score), mask in zip(scores.items(), keep.split(sizes), strict=True):
        masks[name] = mask.view(score.shape)
    single = [name for name, mask in masks.items() if mask.numel() > 1 and int(mask.count_nonzero()) == 1]
    return Masking(masks, [name for name in single if best[name] <= threshold])


def apply_masks(network: Network, masks: Mapping[str, Tensor]) -> Network:
    """Return a copy of a network in which the weights that the masks remove are zero."""
    module = copy.deepcopy(network.module)
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name).mul_(mask)
    return Network(network.architecture, module)


def scored(pruner: Method, name: str, score: Tensor, weight: Tensor) -> Tensor:
    """Return the scores of a weight in float32, if they have its shape, and are numbers where the weight is not zero.

    Raises:
        Error: they are not.
    """
    shape = list(returned(pruner, score, Tensor, f"a tensor of scores of {name}").shape)
    if shape != list(weight.shape):
        raise misreturned(pruner, f"scores of the shape {shape} for {name}, which has {list(weight.shape)}")
    if weight.isnan().any():
        raise Error(f"{name}: has weights that are NaN, which no score can rank; train the network again")
    if (score.isnan() & (weight != 0)).any():
        raise misreturned(pruner, f"scores for {name} that are NaN, so that its weights cannot be ranked")
    return score.detach().float()
