"""Which channels can only go together: groups of channels from Torch-Pruning's graph, within limits of time and memory.

Fang, Ma, Song, Mi and Wang, DepGraph: Towards Any Structural Pruning, 2023, arXiv:2301.12900. Its graph is traced and
its edges map channels; the groups are gathered here, so that each channel of each layer is visited once. Nothing is
cut: `kdtool.surgery.channels.remove` does that, and proves what the graph says.
"""

from __future__ import annotations

import copy
import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning import ops
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import Dependency
from torch_pruning.dependency import Group as GraphGroup
from torch_pruning.pruner.importance import GroupMagnitudeImportance

from kdtool.errors import FAILURES, Error
from kdtool.models.architecture import Network
from kdtool.models.layers import CONV_LINEAR, is_depthwise
from kdtool.surgery.channels.graph import Limits, traced

Scores = Callable[[Any], Tensor | None]
"""Returns the importance of each channel of a ``torch_pruning.dependency.Group``, such as an object of
``torch_pruning.importance``; None where the channels have to stay."""

_MOST = 2**20
"""More channels than any layer has, where it is not known how many there are."""


@dataclass(frozen=True)
class Member:
    """What a group's channels are in one tensor: of the layer or parameter at ``path``, the indices ``channels``
    (``size`` in all) belong to the group's channels ``roots``, one by one."""

    path: str
    role: str
    """``outputs`` or ``inputs`` of a convolution or linear layer, ``both`` of a depthwise one, ``tensor`` of another
    layer or a parameter of its own, ``other`` of what is not known."""
    channels: Tensor
    roots: Tensor
    size: int
    dim: int = 0
    """Where the channels stand in a parameter of its own."""


@dataclass(frozen=True)
class Group:
    """Channels that can only go together; channel i of the group stands for what it is in each of the members."""

    size: int
    members: tuple[Member, ...]
    graph: Any
    """The ``torch_pruning.dependency.Group`` of all its channels."""


def groups(network: Network, limits: Limits | None = None, shape: tuple[int, int, int] | None = None) -> list[Group]:
    """Return the groups of channels of a network that do not reach its output; the network stays as it is.

    It is traced with an image of ``shape`` (channels, height, width), where it is not that of the architecture.
    Gradients that its parameters hold are there in the groups' layers as well.

    Raises:
        Error: no graph is to be had, or not within the limits; the message does not name the network.
    """
    limits = limits or Limits()
    module = _shared(network.module)
    try:
        graph = traced(module, shape or network.architecture.input, limits)
        return list(_gathered(graph, limits))
    except (RecursionError, MemoryError, NotImplementedError, *FAILURES) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise Error(f"no dependency graph is to be had ({reason})") from error


def _shared(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode that wants gradients and shares the weights, for they are only looked at."""
    tensors: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        tensors[id(parameter)] = own = nn.Parameter(parameter.detach())
        own.grad = parameter.grad
    return copy.deepcopy(module, tensors).cpu().float().eval()


def strengths(network: Network) -> dict[str, Tensor]:
    """Return the importance of each output channel, by the path of the convolution or linear layer.

    It is the L2 norm of all weights that go with the channel: filters, norms' gains and the weights that read it, of
    all layers of its group; layers whose outputs are added have the same. Left out are layers whose outputs reach the
    network's output, and those that the graph does not know as a whole. Empty where no graph is to be had.
    """
    try:
        found = groups(network)
    except Error:
        return {}
    norm = GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    known: dict[str, Tensor] = {}
    for group in found:
        try:
            scores = norm(group.graph).sqrt()
        except (IndexError, RuntimeError):
            continue  # the library's importance takes some sums of single channels for as many as it has indices
        for member in group.members:
            if member.role in ("outputs", "both"):
                strength = known.setdefault(member.path, torch.full((member.size,), torch.nan))
                strength[member.channels] = scores[member.roots]
    found.clear()
    gc.collect()  # the graph is full of cycles, and holds what the network computed
    return {path: strength for path, strength in known.items() if not strength.isnan().any()}


def _gathered(graph: Any, limits: Limits) -> Iterator[Group]:
    """Yield groups of output channels, no channel in two of them."""
    taken: dict[str, set[int]] = defaultdict(set)
    for layer in list(graph.module2node):
        # A depthwise layer goes with the one before it, which is the root: importances count on its filters.
        if not isinstance(layer, CONV_LINEAR) or is_depthwise(layer) or taken[graph._module2name[layer]]:
            continue
        pruner = graph.get_pruner_of_module(layer)
        found = _reached(graph, layer, pruner.prune_out_channels, limits)
        if found is None:
            continue
        members = [_member(graph, edge, indices) for edge, indices in found]
        made = [member for member in members if member is not None and member.role in ("outputs", "both")]
        again = any(not taken[member.path].isdisjoint(member.channels.tolist()) for member in made)
        for member in made:
            taken[member.path].update(member.channels.tolist())
        final = any(_is_final(edge.target, member) for (edge, _), member in zip(found, members, strict=True))
        inside = all(member is None or int(member.channels.max()) < member.size for member in members)
        if inside and not again and not final:
            size = int(pruner.get_out_channels(layer))
            yield Group(size, tuple(member for member in members if member), _as_graph(graph, found))


def _is_final(node: Any, member: Member | None) -> bool:
    """Whether what was reached is the network's output, not a layer's input."""
    return not node.outputs and (member is None or member.role != "inputs")


class _Channels:
    """Channels that an edge leads to, each with its root; the same object goes on where they stay the same."""

    def __init__(self, indices: list[Any]) -> None:
        self.indices = [one for one in indices if one.root_idx is not None]

    @cached_property
    def roots(self) -> dict[int, int]:
        """The root of each channel, in the order of the channels; of two roots the first."""
        first: dict[int, int] = {}
        for one in self.indices:
            first.setdefault(one.idx, one.root_idx)
        return dict(sorted(first.items()))

    def beyond(self, edge: Any) -> _Channels:
        """Return what these are behind an edge."""
        mapped = self.indices
        for mapping in edge.index_mapping:
            mapped = mapping(mapped) if mapping is not None else mapped
        return self if mapped is self.indices else _Channels(mapped)

    def without(self, held: dict[int, int]) -> _Channels:
        """Return those that are not held yet."""
        return self if not held else _Channels([one for one in self.indices if one.idx not in held])

    def within(self, size: int) -> bool:
        """Whether all of them are among so many."""
        known = list(self.roots)
        return known[0] >= 0 and known[-1] < size


def _reached(graph: Any, layer: nn.Module, function: Any, limits: Limits) -> list[tuple[Any, dict[int, int]]] | None:
    """Return the edges over which a layer's output channels are reached, with each one's channels and their roots.

    None where the graph leads to channels that are not there.
    """
    node = graph.module2node[layer]
    start = Dependency(function, function, source=node, target=node)
    size = graph.get_out_channels(node)
    found: dict[tuple[int, Any], tuple[Any, dict[int, int]]] = {}
    stack: list[tuple[Any, _Channels]] = [(start, _Channels([_HybridIndex(i, i) for i in range(size)]))]
    while stack:
        limits.check()
        edge, channels = stack.pop()
        key = (id(edge.target), edge.handler)
        first, held = found.get(key, (edge, {}))
        fresh = channels.without(held)
        if not fresh.indices:
            continue
        found[key] = (first, fresh.roots if not held else dict(sorted({**held, **fresh.roots}.items())))
        if not fresh.within(_size(graph, edge)):
            return None
        for further in edge.target.dependencies:
            if further.is_triggered_by(edge.handler):
                mapped = fresh.beyond(further)
                if mapped.indices:
                    stack.append((further, mapped))
    return list(found.values())


def _size(graph: Any, edge: Any) -> int:
    """Return how many channels there are where an edge leads."""
    node = edge.target
    size: int
    if isinstance(node.module, CONV_LINEAR):
        inward = not graph.is_out_channel_pruning_fn(edge.handler)
        size = graph.get_in_channels(node) if inward else graph.get_out_channels(node)
    else:
        # What reshapes has other channels before it than behind it.
        size = max(graph.get_in_channels(node) or _MOST, graph.get_out_channels(node) or _MOST)
    return size


def _member(graph: Any, edge: Any, indices: dict[int, int]) -> Member | None:
    """Return what a reached edge means; None for what has no tensors."""
    node, types = edge.target, ops.OPTYPE
    layer = node.module
    make = partial(Member, channels=torch.tensor(list(indices)), roots=torch.tensor(list(indices.values())))
    if node.type == types.PARAMETER:
        return make(
            path=graph._param_to_name[layer], role="tensor", size=layer.shape[node.pruning_dim], dim=node.pruning_dim
        )
    path = graph._module2name.get(layer, "")
    if isinstance(layer, CONV_LINEAR):
        outputs = graph.is_out_channel_pruning_fn(edge.handler)
        role = "both" if node.type == types.DEPTHWISE_CONV else "outputs" if outputs else "inputs"
        size = graph.get_out_channels(node) if outputs else graph.get_in_channels(node)
        return make(path=path, role=role, size=size)
    if node.type in (types.BN, types.LN, types.GN, types.IN, types.PRELU):
        size = graph.get_out_channels(node)
        return None if size is None else make(path=path, role="tensor", size=size)
    if any(True for _ in layer.parameters()):
        return make(path=path, role="other", size=max(indices) + 1)
    return None


def _as_graph(graph: Any, found: list[tuple[Any, dict[int, int]]]) -> Any:
    """Return what `torch_pruning.DependencyGraph.get_pruning_group` would give for these channels."""
    made = GraphGroup()
    made._DG = graph
    for edge, indices in found:
        made.add_dep(edge, list(indices))
        made[len(made) - 1].root_idxs = list(indices.values())
    return made
