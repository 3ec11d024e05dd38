"""Choose the channels to remove so that a network loses a given fraction of its size."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from kdtool.models.hooks import evaluating
from kdtool.models.layers import CONV_LINEAR, is_depthwise, outputs_of
from kdtool.surgery.channels.groups import Group, Member
from kdtool.surgery.channels.isomorphism import topology

SCOPES = ("global", "layer", "isomorphic")
"""Which groups are compared by their scores: all, none, or those of the same structure."""

TOLERANCE = 0.0005
"""A choice is good enough if it misses the target by at most this fraction of the whole size."""

_TRIES = 400
"""How many later steps are tried in place of a step that would remove too much."""


@dataclass(frozen=True)
class Ranked:
    """A group with its channels in the order in which they are removed, in steps."""

    group: Group
    order: Tensor
    """[channels] the channels of the group, the first ones to remove first."""
    kept: tuple[int, ...]
    """By step, how many channels are left: from all channels at step 0 to the minimum."""
    scores: Tensor
    """[channels] the importance of the channels, in this order."""
    shares: tuple[tuple[float, ...], ...]
    """For each member of the group, by step, the fraction of its layer's channels that is gone."""

    def lost(self, step: int) -> Tensor:
        """Return the channels that are gone after so many steps, in ascending order."""
        return self.order[: self.group.size - self.kept[step]].sort().values


@dataclass(frozen=True)
class Widths:
    """How many channels groups keep: multiples of ``round_to``, and at least a fraction ``floor``."""

    round_to: int = 16
    floor: float = 0.0
    before: Mapping[str, int] = field(default_factory=dict)
    """The channels of which ``floor`` is a fraction, by the path of the first layer of a group; else its own number."""

    def least(self, path: str, size: int) -> int:
        """Return the fewest channels of a group that begins with the layer ``path`` and has ``size`` channels now."""
        return math.ceil(self.floor * self.before.get(path, size) - 1e-9)

    @property
    def reason(self) -> str:
        """Why not exactly so much can be removed as was asked for."""
        multiples = f"multiples of {self.round_to} channels" if self.round_to > 1 else "whole channels"
        return f"layers keep {multiples}"


def unit_of(group: Group, module: nn.Module) -> int | None:
    """Return how many consecutive blocks of channels must be removed together; None if the channels have to stay.

    A grouped convolution or norm has one block for each of its groups, and all of them have to lose the same channels.
    The result is 1 if single channels can be removed.
    """
    unit = 1
    for member in group.members:
        if member.role == "other":
            return None
        part = None if _is_parameter(module, member) else module.get_submodule(member.path)
        split = getattr(part, "num_groups", 1) if isinstance(part, nn.GroupNorm) else 1
        if isinstance(part, nn.modules.conv._ConvNd) and not is_depthwise(part):
            split = part.groups
        if split > 1:
            every = torch.arange(member.size)
            if not torch.equal(member.channels, every) or not torch.equal(member.channels, member.roots):
                return None
            unit = math.lcm(unit, split)
    return None if group.size % unit else unit


def _is_parameter(module: nn.Module, member: Member) -> bool:
    """Return whether a member is a parameter and not a layer."""
    owner, _, name = member.path.rpartition(".")
    return member.role == "tensor" and name in module.get_submodule(owner)._parameters


def partial(group: Group, begin: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the layers that output only some of a group's channels, and these channels.

    Each has a name in `Widths.before`; ``begin`` is that of the group.
    """
    for member in group.members:
        roots = member.roots.unique()
        if member.role in ("outputs", "both") and len(roots) < group.size:
            yield f"{begin}:{member.path}", roots


def staying(group: Group, scores: Tensor, widths: Widths, begin: str) -> Tensor:
    """Return which channels [channels] stay, so that layers that output only some of them keep their least width."""
    stays = torch.zeros(group.size, dtype=torch.bool)
    for name, roots in partial(group, begin):
        least = min(len(roots), max(1, widths.least(name, len(roots))))
        stays[roots[scores[roots].topk(least).indices]] = True
    return stays


def ranked(
    group: Group, scores: Tensor, unit: int, round_to: int, least: int = 1, stays: Tensor | None = None
) -> Ranked:
    """Return a group with its channels in ascending order of their scores.

    The channels at the same place of each of ``unit`` consecutive blocks are removed together, by their mean score. The
    number of channels left is a multiple of both ``unit`` and ``round_to``, and not below ``least``.
    """
    places = scores.detach().float().view(unit, -1).mean(0)
    last = torch.zeros(len(places), dtype=torch.bool) if stays is None else stays.view(unit, -1).any(0)
    order = places.masked_fill(last, torch.inf).argsort(stable=True)
    least = max(least, int(last.count_nonzero()) * unit)
    every = (order[:, None] + torch.arange(unit) * len(places)).flatten()
    step = math.lcm(unit, round_to)
    kept = (group.size, *range((group.size - 1) // step * step, max(least, 1) - 1, -step))
    shares = []
    for member in group.members:
        gone = torch.bincount(member.roots, minlength=group.size)[every].cumsum(0).double() / member.size
        shares.append((0.0, *(float(gone[group.size - left - 1]) for left in kept[1:])))
    return Ranked(group, every, kept, places[order].repeat_interleave(unit), tuple(shares))


class Costs:
    """The size of a network's layers in parameters, MACs or channels, with all channels and with fewer."""

    def __init__(self, module: nn.Module, shape: tuple[int, int, int], of: str, whole: int) -> None:
        """Compute the sizes in ``of`` of a network's layers; ``whole`` is the size of the whole network.

        ``of`` is ``params``, ``macs`` for an image of ``shape`` [channels, height, width], or ``channels``.
        """
        self.whole = whole
        self._products: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        counted = _macs(module, shape) if of == "macs" else {}
        known: set[int] = set()
        for path, part in module.named_modules():
            # A parameter that several modules share counts for the first one.
            fresh = {name: weight for name, weight in part._parameters.items() if id(weight) not in known}
            known.update(map(id, part._parameters.values()))
            own = sum(weight.numel() for weight in fresh.values() if weight is not None)
            if isinstance(part, CONV_LINEAR):
                weight = fresh["weight"].numel() if fresh.get("weight") is not None else 0
                product = {"params": weight, "macs": counted.get(path, 0), "channels": 0}[of]
                (self._sums if is_depthwise(part) else self._products)[path] = product
                rest = {"params": own - weight, "macs": 0, "channels": outputs_of(part)}[of]
                self._sums[path] = self._sums.get(path, 0) + rest
            elif of == "params" and own:
                self._sums[path] = own
        if of == "params":
            self._sums.update((path, weight.numel()) for path, weight in module.named_parameters())

    def removed(self, steps: Mapping[int, int], groups: Sequence[Ranked]) -> float:
        """Return the fraction of the whole size that goes when each group makes this number of steps."""
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


def choose(groups: Sequence[Ranked], costs: Costs, ratio: float, scope: str) -> dict[int, int]:
    """Return the number of steps of each group, by its index, such that ``ratio`` of the whole size goes.

    If there is not so much to remove, all groups make all their steps. With the scope ``global`` the least important
    channels of all groups go first, with ``layer`` every group loses the same fraction of its channels. With
    ``isomorphic`` every class of groups of the same structure loses the same fraction of its channels: the least
    important ones of the class. Groups that make no step are not in the result.
    """
    queue = sorted(_queued(groups, scope), key=lambda entry: entry[0])

    def taken(count: int) -> dict[int, int]:
        return {number: step for _, number, step in queue[:count]}

    low, high = 0, len(queue)
    while low < high:
        middle = (low + high + 1) // 2
        if costs.removed(taken(middle), groups) <= ratio:
            low = middle
        else:
            high = middle - 1
    steps = taken(low)
    missing = ratio - costs.removed(steps, groups)
    # The next step in the queue would remove too much. First try later steps that fit what is missing; if none does,
    # allow a step that removes too much but comes closer to the ratio.
    for lowest in (-TOLERANCE, -1.0):
        for _, number, step in queue[low : low + _TRIES]:
            if missing <= TOLERANCE:
                break
            if step == steps.get(number, 0) + 1:
                rest = ratio - costs.removed({**steps, number: step}, groups)
                if rest >= lowest and abs(rest) < missing:
                    steps[number], missing = step, rest
    return steps


def _queued(groups: Sequence[Ranked], scope: str) -> Iterator[tuple[float, int, int]]:
    """Yield each step of each group: the fraction of its class that is gone after it, the group's index and the step.

    Only groups of one class are compared by their scores. The scopes differ in what the classes are.
    """
    classes: dict[Hashable, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        classes[_class(number, group, scope)].append(number)
    for numbers in classes.values():
        left = size = sum(groups[number].group.size for number in numbers)
        steps = [(score, number, step) for number in numbers for step, score in enumerate(_scores(groups[number]), 1)]
        for _, number, step in sorted(steps, key=lambda entry: entry[0]):
            kept = groups[number].kept
            left -= kept[step - 1] - kept[step]
            yield 1 - left / size, number, step


def _class(number: int, group: Ranked, scope: str) -> Hashable:
    """Return the class of a group within a scope."""
    if scope == "isomorphic":
        return topology(group.group.graph)
    return number if scope == "layer" else 0


def _scores(group: Ranked) -> list[float]:
    """Return the mean score of the channels that go in each step of a group, which never falls from step to step."""
    gone = [group.group.size - left for left in group.kept]
    means = (float(group.scores[begin:end].mean()) for begin, end in pairwise(gone))
    return list(accumulate(means, max))  # the channels are sorted: only rounding makes a mean fall


def _macs(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the MACs of each convolution and linear layer for one image of ``shape``."""
    counted: dict[str, int] = defaultdict(int)

    def count(path: str, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        # The weight of a transposed convolution begins with its inputs, each of which is multiplied with a row of it.
        rows = x if getattr(layer, "transposed", False) else output
        counted[path] += rows.numel() * weight[0].numel()

    hooks = [
        part.register_forward_hook(lambda layer, args, output, path=path: count(path, layer, args[0], output))
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
