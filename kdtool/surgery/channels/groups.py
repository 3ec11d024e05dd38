"""Groups of channels that can only be removed together, from Torch-Pruning's graph, within limits of time and memory.

Fang, Ma, Song, Mi and Wang, DepGraph: Towards Any Structural Pruning, 2023, arXiv:2301.12900. Torch-Pruning traces the
graph, and its edges map channels. The groups are gathered here, so that each channel of each layer is visited only
once. Nothing is cut here: `kdtool.surgery.channels.remove` cuts, and checks what the graph says.
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
from torch_pruning.dependency import Dependency
from torch_pruning.pruner.importance import GroupMagnitudeImportance

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models.architecture import Network
from kdtool.models.layers import CONV_LINEAR, is_depthwise
from kdtool.models.used_weights import with_used_weights
from kdtool.surgery.channels.graph import Limits, traced
from kdtool.surgery.channels.torch_pruning_adapter import ChannelIndex, make_group, module_path, parameter_path

Scores = Callable[[Any], Tensor | None]
"""Returns the importance [channels] of a ``torch_pruning.dependency.Group``, or None if its channels have to stay; for
example an object of ``torch_pruning.importance``."""

_UNKNOWN_SIZE = 2**20
"""Stands for an unknown number of channels: more than any layer has."""


@dataclass(frozen=True)
class Member:
    """The channels of a group in one layer, or in one parameter that belongs to no layer of the graph.

    Channel ``channels[i]`` of the layer or parameter at ``path`` belongs to the group's channel ``roots[i]``.
    """

    path: str
    role: str
    """``outputs`` or ``inputs`` of a convolution or linear layer, ``both`` of a depthwise convolution, ``tensor`` for
    the parameters of a norm or PReLU and for a parameter of its own, ``other`` for layers of unknown kinds."""
    channels: Tensor
    roots: Tensor
    size: int
    """How many channels the layer or parameter has in all."""
    dim: int = 0
    """The dimension of the channels in a parameter of its own."""


@dataclass(frozen=True)
class Group:
    """Channels of several layers that can only be removed together: channel i goes from all members at once."""

    size: int
    members: tuple[Member, ...]
    graph: Any
    """The ``torch_pruning.dependency.Group`` of all channels of the group."""


def groups(network: Network, limits: Limits | None = None, shape: tuple[int, int, int] | None = None) -> list[Group]:
    """Return the groups of channels of a network that do not reach its output; the network is not changed.

    The network is traced with an image of ``shape`` [channels, height, width], by default that of its architecture.
    The layers of the groups have the weights that the network uses (see `kdtool.models.used_weights`), from which
    importances are computed, and share the gradients of the network's parameters.

    Raises:
        Error: the graph cannot be built, or not within the limits; the message does not name the network.
    """
    limits = limits or Limits()
    module = _shared(network.module)
    try:
        graph = traced(module, shape or network.architecture.input, limits)
        with_used_weights(module)
        return list(_gather(graph, limits))
    except (RecursionError, MemoryError, NotImplementedError, *FAILURES) as error:
        raise Error(f"no dependency graph can be built ({first_line(error)})") from error


def _shared(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode that requires gradients and shares the weights, which are only read."""
    tensors: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        tensors[id(parameter)] = own = nn.Parameter(parameter.detach())
        own.grad = parameter.grad
    return copy.deepcopy(module, tensors).cpu().float().eval()


def strengths(network: Network) -> dict[str, Tensor]:
    """Return the importance [channels] of the output channels of convolutions and linear layers, by the layer's path.

    The importance of a channel is the L2 norm of all weights that go with it, over all layers of its group: filters,
    gains of norms, and the weights that read the channel. Layers whose outputs are added share their importances.
    Layers whose outputs reach the network's output are left out, as are layers that the graph knows only in part. The
    result is empty if no graph can be built.
    """
    try:
        all_groups = groups(network)
    except Error:
        return {}
    norm = GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    known: dict[str, Tensor] = {}
    for group in all_groups:
        try:
            scores = norm(group.graph).sqrt()
        except (IndexError, RuntimeError):
            continue  # for some layers the library computes fewer scores than the group has indices
        for member in group.members:
            if member.role in ("outputs", "both"):
                strength = known.setdefault(member.path, torch.full((member.size,), torch.nan))
                strength[member.channels] = scores[member.roots]
    all_groups.clear()
    gc.collect()  # the graph has reference cycles and holds the network's activations
    return {path: strength for path, strength in known.items() if not strength.isnan().any()}


def _gather(graph: Any, limits: Limits) -> Iterator[Group]:
    """Yield groups of output channels; no channel is in two of them."""
    taken: dict[str, set[int]] = defaultdict(set)
    for layer in list(graph.module2node):
        # A depthwise layer joins the group of the layer before it: importances read the filters of that layer.
        if not isinstance(layer, CONV_LINEAR) or is_depthwise(layer) or taken[module_path(graph, layer)]:
            continue
        pruner = graph.get_pruner_of_module(layer)
        reached = _reached(graph, layer, pruner.prune_out_channels, limits)
        if reached is None:
            continue
        members = [_member(graph, edge, indices) for edge, indices in reached]
        producers = [member for member in members if member is not None and member.role in ("outputs", "both")]
        overlaps = any(not taken[member.path].isdisjoint(member.channels.tolist()) for member in producers)
        for member in producers:
            taken[member.path].update(member.channels.tolist())
        final = any(_is_output(edge.target, member) for (edge, _), member in zip(reached, members, strict=True))
        inside = all(member is None or int(member.channels.max()) < member.size for member in members)
        if inside and not overlaps and not final:
            size = int(pruner.get_out_channels(layer))
            items = [(edge, list(roots), list(roots.values())) for edge, roots in reached]
            yield Group(size, tuple(member for member in members if member), make_group(graph, items))


def _is_output(node: Any, member: Member | None) -> bool:
    """Return whether the channels at a node are those of the network's output, and not the inputs of a layer."""
    return not node.outputs and (member is None or member.role != "inputs")


class _Channels:
    """Channels that an edge leads to, each with its root, the group's channel that it belongs to.

    Where an edge does not change the channels, the same object is used behind it.
    """

    def __init__(self, indices: list[Any]) -> None:
        self.indices = [index for index in indices if index.root_idx is not None]

    @cached_property
    def roots(self) -> dict[int, int]:
        """The root of each channel, sorted by channel; the first root if there are two."""
        first: dict[int, int] = {}
        for index in self.indices:
            first.setdefault(index.idx, index.root_idx)
        return dict(sorted(first.items()))

    def mapped_by(self, edge: Any) -> _Channels:
        """Return the channels behind an edge that these become."""
        mapped = self.indices
        for mapping in edge.index_mapping:
            mapped = mapping(mapped) if mapping is not None else mapped
        return self if mapped is self.indices else _Channels(mapped)

    def without(self, held: dict[int, int]) -> _Channels:
        """Return the channels that are not in ``held``."""
        return self if not held else _Channels([index for index in self.indices if index.idx not in held])

    def within(self, size: int) -> bool:
        """Return whether all channels are valid for a layer with ``size`` channels."""
        known = list(self.roots)
        return known[0] >= 0 and known[-1] < size


def _reached(graph: Any, layer: nn.Module, function: Any, limits: Limits) -> list[tuple[Any, dict[int, int]]] | None:
    """Return the edges over which a layer's output channels are reached, each with its channels and their roots.

    None if the graph leads to channels that do not exist.
    """
    node = graph.module2node[layer]
    start = Dependency(function, function, source=node, target=node)
    size = graph.get_out_channels(node)
    reached: dict[tuple[int, Any], tuple[Any, dict[int, int]]] = {}
    stack: list[tuple[Any, _Channels]] = [(start, _Channels([ChannelIndex(i, i) for i in range(size)]))]
    while stack:
        limits.check()
        edge, channels = stack.pop()
        key = (id(edge.target), edge.handler)
        first, held = reached.get(key, (edge, {}))
        fresh = channels.without(held)
        if not fresh.indices:
            continue
        reached[key] = (first, fresh.roots if not held else dict(sorted({**held, **fresh.roots}.items())))
        if not fresh.within(_size(graph, edge)):
            return None
        for further in edge.target.dependencies:
            if further.is_triggered_by(edge.handler):
                mapped = fresh.mapped_by(further)
                if mapped.indices:
                    stack.append((further, mapped))
    return list(reached.values())


def _size(graph: Any, edge: Any) -> int:
    """Return how many channels the node has that an edge leads to."""
    node = edge.target
    size: int
    if isinstance(node.module, CONV_LINEAR):
        inward = not graph.is_out_channel_pruning_fn(edge.handler)
        size = graph.get_in_channels(node) if inward else graph.get_out_channels(node)
    else:
        # A reshape has another number of channels before it than behind it.
        size = max(graph.get_in_channels(node) or _UNKNOWN_SIZE, graph.get_out_channels(node) or _UNKNOWN_SIZE)
    return size


def _member(graph: Any, edge: Any, indices: dict[int, int]) -> Member | None:
    """Return the member of a group that an edge leads to; None if the node there has no tensors."""
    node, types = edge.target, ops.OPTYPE
    layer = node.module
    make = partial(Member, channels=torch.tensor(list(indices)), roots=torch.tensor(list(indices.values())))
    if node.type == types.PARAMETER:
        return make(
            path=parameter_path(graph, layer),
            role="tensor",
            size=layer.shape[node.pruning_dim],
            dim=node.pruning_dim,
        )
    path = module_path(graph, layer)
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
