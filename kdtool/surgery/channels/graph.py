"""Torch-Pruning's graph of a network, traced within limits and corrected where its version 1.6 goes astray."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import psutil
import torch
import torch_pruning as tp
from torch import nn
from torch_pruning import ops
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency.index_mapping import _GQAIndexMapping

from kdtool.errors import Error
from kdtool.models.modules import ChannelSelect


class Limits:
    """How long this process may compute for something, and how much memory it may add.

    Its own time is counted, not that of the clock: a busy machine finds what an idle one does.
    """

    def __init__(self, seconds: float = 120, gigabytes: float = 6) -> None:
        """Begin to count now."""
        self.seconds, self.gigabytes = seconds, gigabytes
        self._process = psutil.Process()
        self._began, self._held = time.process_time(), self._process.memory_info().rss
        self._checks = 0

    def check(self) -> None:
        """Count one more step.

        Raises:
            Error: a limit is passed.
        """
        self._checks += 1
        if time.process_time() - self._began > self.seconds:
            raise Error(f"it takes more than {self.seconds:g} seconds of computing")
        if self._checks % 256 == 0 and self._process.memory_info().rss - self._held > self.gigabytes * 2**30:
            raise Error(f"it takes more than {self.gigabytes:g} GiB of memory")


def traced(module: nn.Module, shape: tuple[int, int, int], limits: Limits) -> Any:
    """Return the graph of a module whose parameters all require gradients.

    Raises:
        Error: it is not to be had within the limits.
        RuntimeError: or whatever else the network's own forward or the tracing raises.
    """
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    graph = _Graph(limits)
    pruner = _SelectPruner()
    hooks = [
        part.register_forward_pre_hook(pruner.note) for part in module.modules() if isinstance(part, ChannelSelect)
    ]
    # Nobody goes back through the graph: what a backward would need is not kept.
    nothing = torch.empty(0)
    unsaved = torch.autograd.graph.saved_tensors_hooks(lambda tensor: nothing, lambda kept: kept)
    with torch.enable_grad(), unsaved, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.build_dependency(module, image, customized_pruners={ChannelSelect: pruner}, verbose=False)
    for hook in hooks:
        hook.remove()
    for layer, node in graph.module2node.items():
        if isinstance(layer, ChannelSelect):
            _map_selection(node, layer.index.tolist())
        elif (node.type == ops.OPTYPE.SLICE and not _cuts_channels(graph, node)) or _repeats_nothing(node):
            for _, edge in _edges_before(node):
                edge.index_mapping[0] = None
    return graph


class _Graph(tp.DependencyGraph):  # type: ignore[misc]
    """Infers how many channels there are at a node once for each node.

    The library asks the neighbours again wherever it passes: exponentially often where a network branches, and to no
    result where it is deep.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self._known: dict[tuple[Any, bool], int | None] = {}

    def get_out_channels(self, module_or_node: Any) -> int | None:
        """Return how many channels come out of a module, or out of a node, where need be inferred."""
        return self._channels(module_or_node, ahead=False)

    def get_in_channels(self, module_or_node: Any) -> int | None:
        """Return how many channels a module, or a node, is given, where need be inferred."""
        return self._channels(module_or_node, ahead=True)

    def _channels(self, node: Any, *, ahead: bool) -> int | None:
        if not hasattr(node, "dependencies"):
            return self._own(node, ahead=ahead)
        passed = []
        found = None
        while True:
            self.limits.check()
            if (node, ahead) in self._known:
                found = self._known[node, ahead]
                break
            passed.append(node)
            self._known[node, ahead] = None
            found = self._own(node, ahead=ahead)
            beyond = node.outputs if ahead else node.inputs
            if found is not None or not beyond:
                break
            if node.type == (ops.OPTYPE.SPLIT if ahead else ops.OPTYPE.CONCAT):
                parts = [self._channels(one, ahead=ahead) for one in beyond]
                found = None if None in parts else sum(part for part in parts if part is not None)
                break
            last = beyond[-1]
            if last.type == ops.OPTYPE.CONCAT and ahead:
                found = self._share(last, node)
                break
            if last.type == ops.OPTYPE.SPLIT and not ahead and last.module.split_sizes is not None:
                found = dict(zip(last.outputs, last.module.split_sizes, strict=False)).get(node)
                break
            node = last
        self._known.update(((one, ahead), found) for one in passed)
        return found

    def _own(self, node: Any, *, ahead: bool) -> int | None:
        own = super().get_in_channels(node) if ahead else super().get_out_channels(node)
        return None if own is None else int(own)

    def _share(self, concat: Any, node: Any) -> int | None:
        """Return how many channels of a concatenation come from one node."""
        whole = self._channels(concat, ahead=True)
        others = [self._channels(one, ahead=False) for one in concat.inputs if one is not node]
        if whole is None or None in others:
            return None
        rest = whole - sum(one for one in others if one is not None)
        return rest if rest > 0 else None  # else what was put together are rows


class _SelectPruner(ops.DummyPruner):  # type: ignore[misc]
    def __init__(self) -> None:
        self._given: dict[nn.Module, int] = {}

    def note(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self._given[layer] = args[0].shape[1]

    def get_in_channels(self, layer: ChannelSelect) -> int | None:
        return self._given.get(layer)

    def get_out_channels(self, layer: ChannelSelect) -> int:
        return len(layer.index)


def _cuts_channels(graph: _Graph, node: Any) -> bool:
    """Whether a slice takes some of the channels; the library takes dimension 1 for them, which may be rows."""
    sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
    channels = graph.get_out_channels(node.inputs[0]) if node.inputs else None
    return channels is None or node.module.dim >= len(sizes) or sizes[node.module.dim] == channels


def _repeats_nothing(node: Any) -> bool:
    """Whether the library takes an expansion in five dimensions for heads that are repeated, but they are not."""
    mapped = [edge.index_mapping[0] for _, edge in _edges_before(node)] if node.type == ops.OPTYPE.EXPAND else []
    return any(isinstance(one, _GQAIndexMapping) and not one.repeat * one.head_dim for one in mapped)


def _edges_before(node: Any) -> Iterator[tuple[bool, Any]]:
    """Yield the edges between a node and those before it, with whether they lead forward."""
    for before in node.inputs:
        yield from ((True, edge) for edge in before.dependencies if edge.target is node)
        yield from ((False, edge) for edge in node.dependencies if edge.target is before)


def _map_selection(node: Any, index: list[int]) -> None:
    """Let the edges before a selection say where its channels are on both sides of it."""
    places: dict[int, list[int]] = {}
    for place, channel in enumerate(index):
        places.setdefault(channel, []).append(place)

    def forward(found: list[Any]) -> list[Any]:
        return [_HybridIndex(place, one.root_idx) for one in found for place in places.get(one.idx, ())]

    def backward(found: list[Any]) -> list[Any]:
        return [_HybridIndex(index[one.idx], one.root_idx) for one in found if one.idx < len(index)]

    for leads_forward, edge in _edges_before(node):
        edge.index_mapping = [*edge.index_mapping, forward] if leads_forward else [backward, *edge.index_mapping]
