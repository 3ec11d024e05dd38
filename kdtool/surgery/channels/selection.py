"""Which channels go, so that a network loses a given part of its size."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdtool.models.hooks import evaluating
from kdtool.models.layers import CONV_LINEAR, is_depthwise
from kdtool.surgery.channels.groups import Group, Member

TOLERANCE = 0.0005
"""A choice is close enough when it misses the target by this part of the whole."""

_TRIES = 400


@dataclass(frozen=True)
class Ranked:
    """A group with its channels in the order in which they go, and how many of them may be left: ``kept`` falls from
    all of them to the least."""

    group: Group
    order: Tensor
    kept: tuple[int, ...]
    scores: Tensor
    """The importance of the channels, in this order."""
    shares: tuple[tuple[float, ...], ...]
    """For each member of the group which part of its layer's channels is gone after so many steps."""

    def lost(self, step: int) -> Tensor:
        """Return the channels that are gone after so many steps, in ascending order."""
        return self.order[: self.group.size - self.kept[step]].sort().values


def unit_of(group: Group, module: nn.Module) -> int | None:
    """Return of how many parts the group's channels are one channel each that can only go together; None where they
    have to stay.

    There are as many parts as a grouped convolution or norm has groups, for each of these has to lose as much.
    """
    unit = 1
    for member in group.members:
        if member.role == "other":
            return None
        part = None if _is_parameter(module, member) else module.get_submodule(member.path)
        own = getattr(part, "num_groups", 1) if isinstance(part, nn.GroupNorm) else 1
        if isinstance(part, nn.modules.conv._ConvNd) and not is_depthwise(part):
            own = part.groups
        if own > 1:
            every = torch.arange(member.size)
            if not torch.equal(member.channels, every) or not torch.equal(member.channels, member.roots):
                return None
            unit = math.lcm(unit, own)
    return None if group.size % unit else unit


def _is_parameter(module: nn.Module, member: Member) -> bool:
    owner, _, name = member.path.rpartition(".")
    return member.role == "tensor" and name in module.get_submodule(owner)._parameters


def ranked(group: Group, scores: Tensor, unit: int, round_to: int) -> Ranked:
    """Put a group's channels in order of their scores; those at the same place in each of ``unit`` groups go together.

    What may be left are multiples of ``unit`` and of ``round_to``.
    """
    places = scores.detach().float().view(unit, -1).mean(0)
    order = places.argsort(stable=True)
    every = (order[:, None] + torch.arange(unit) * len(places)).flatten()
    step = math.lcm(unit, round_to)
    kept = (group.size, *range((group.size - 1) // step * step, 0, -step))
    shares = []
    for member in group.members:
        gone = torch.bincount(member.roots, minlength=group.size)[every].cumsum(0).double() / member.size
        shares.append((0.0, *(float(gone[group.size - left - 1]) for left in kept[1:])))
    return Ranked(group, every, kept, places[order].repeat_interleave(unit), tuple(shares))


class Costs:
    """What a network's layers cost, and what they cost with fewer channels: parameters, MACs or channels."""

    def __init__(self, module: nn.Module, shape: tuple[int, int, int], of: str, whole: int) -> None:
        """Take the costs of a network's layers; ``whole`` is that of all it has."""
        self.whole = whole
        self._products: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        counted = _macs(module, shape) if of == "macs" else {}
        for path, part in module.named_modules():
            own = sum(one.numel() for one in part._parameters.values() if one is not None)
            if isinstance(part, CONV_LINEAR):
                weight = part.weight.numel()
                product = {"params": weight, "macs": counted.get(path, 0), "channels": 0}[of]
                (self._sums if is_depthwise(part) else self._products)[path] = product
                rest = {"params": own - weight, "macs": 0, "channels": outputs(part)}[of]
                self._sums[path] = self._sums.get(path, 0) + rest
            elif of == "params" and own:
                self._sums[path] = own
        if of == "params":
            self._sums.update((path, one.numel()) for path, one in module.named_parameters())

    def removed(self, steps: Mapping[int, int], groups: Sequence[Ranked]) -> float:
        """Return which part of the whole goes when each group has made so many steps."""
        lost: dict[tuple[str, bool], float] = defaultdict(float)
        for number, step in steps.items():
            for member, shares in zip(groups[number].group.members, groups[number].shares, strict=True):
                part = shares[step]
                if member.role != "inputs":
                    lost[member.path, True] += part
                if member.role in ("inputs", "both"):
                    lost[member.path, False] += part
        gone = 0.0
        for path in {path for path, _ in lost}:
            outs, ins = lost.get((path, True), 0), lost.get((path, False), 0)
            gone += self._products.get(path, 0) * (1 - (1 - outs) * (1 - ins)) + self._sums.get(path, 0) * outs
        return gone / self.whole


def outputs(layer: nn.Module) -> int:
    """Return how many output channels a convolution or linear layer has."""
    return int(getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0))


def choose(groups: Sequence[Ranked], costs: Costs, ratio: float, scope: str) -> dict[int, int]:
    """Return by group how many steps it makes so that ``ratio`` of the whole goes, or as much as there is.

    With the scope ``global`` the least important channels of all groups go first, with ``layer`` every group loses
    the same part of its channels.
    """
    line = sorted(
        ((_key(group, step, scope), number, step) for number, group in enumerate(groups) for step in _steps(group)),
        key=lambda one: one[0],
    )

    def taken(count: int) -> dict[int, int]:
        return {number: step for _, number, step in line[:count]}

    low, high = 0, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        if costs.removed(taken(middle), groups) <= ratio:
            low = middle
        else:
            high = middle - 1
    steps = taken(low)
    missing = ratio - costs.removed(steps, groups)
    # The next step in line would be too much; a later one may fit what is missing, and where none does, too much may be
    # nearer than too little.
    for least in (-TOLERANCE, -1.0):
        for _, number, step in line[low : low + _TRIES]:
            if missing <= TOLERANCE:
                break
            if step == steps.get(number, 0) + 1:
                less = ratio - costs.removed({**steps, number: step}, groups)
                if less >= least and abs(less) < missing:
                    steps[number], missing = step, less
    return steps


def _steps(group: Ranked) -> range:
    return range(1, len(group.kept))


def _key(group: Ranked, step: int, scope: str) -> float:
    size = group.group.size
    if scope == "layer":
        return 1 - group.kept[step] / size
    return float(group.scores[size - group.kept[step - 1] : size - group.kept[step]].mean())


def _macs(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the multiply-accumulates of each convolution and linear layer for one image."""
    counted: dict[str, int] = defaultdict(int)

    def count(path: str, layer: nn.Module, output: Tensor) -> None:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        counted[path] += output.numel() * weight[0].numel()

    hooks = [
        part.register_forward_hook(lambda layer, _, output, path=path: count(path, layer, output))
        for path, part in module.named_modules()
        if isinstance(part, CONV_LINEAR)
    ]
    try:
        with torch.no_grad(), evaluating(module):
            module(torch.zeros(1, *shape))
    finally:
        for hook in hooks:
            hook.remove()
    return counted
