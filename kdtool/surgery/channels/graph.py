"""Torch-Pruning's graph of a network, traced within limits, and corrected where torch-pruning 1.6 is wrong.

The library needs exponential time for some networks with branches, cannot follow deep ones, and takes some slices and
expansions of rows for operations on channels.
"""

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

from kdtool.errors import Error
from kdtool.models.modules import ChannelSelect
from kdtool.surgery.channels.torch_pruning_adapter import ChannelIndex, repeats_no_heads


class Limits:
    """The computing time that an operation may take, and the memory that it may add.

    The time is the CPU time of this process, not the time of the clock, so that a busy machine gives the same result as
    an idle one.
    """

    def __init__(self, seconds: float = 120, gigabytes: float = 6) -> None:
        """Start counting now; ``gigabytes`` are in units of 2**30 bytes."""
        self.seconds, self.gigabytes = seconds, gigabytes
        self._process = psutil.Process()
        self._start, self._start_memory = time.process_time(), self._process.memory_info().rss
        self._checks = 0

    def check(self) -> None:
        """Check the time, and the memory at every 256th call.

        Raises:
            Error: a limit is exceeded.
        """
        self._checks += 1
        if time.process_time() - self._start > self.seconds:
            raise Error(f"it takes more than {self.seconds:g} seconds of computing")
        if self._checks % 256 == 0 and self._process.memory_info().rss - self._start_memory > self.gigabytes * 2**30:
            raise Error(f"it takes more than {self.gigabytes:g} GiB of memory")


def traced(module: nn.Module, shape: tuple[int, int, int], limits: Limits) -> Any:
    """Return the ``DependencyGraph`` of a module whose parameters all require gradients.

    ``shape`` is that of the image that it is traced with, [channels, height, width].

    Raises:
        Error: the graph cannot be built within the limits.
        RuntimeError: or any other exception that the network's own forward or the tracing raises.
    """
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    graph = _Graph(limits)
    pruner = _SelectPruner()
    hooks = [
        part.register_forward_pre_hook(pruner.record) for part in module.modules() if isinstance(part, ChannelSelect)
    ]
    # There is no backward pass, so autograd need not keep the tensors for it.
    empty = torch.empty(0)
    unsaved = torch.autograd.graph.saved_tensors_hooks(lambda tensor: empty, lambda packed: packed)
    with torch.enable_grad(), unsaved, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.build_dependency(module, image, customized_pruners={ChannelSelect: pruner}, verbose=False)
    for hook in hooks:
        hook.remove()
    for layer, node in graph.module2node.items():
        if isinstance(layer, ChannelSelect):
            _map_selection(node, layer.index.tolist())
        elif (node.type == ops.OPTYPE.SLICE and not _cuts_channels(graph, node)) or _is_plain_expansion(node):
            for _, edge in _edges_before(node):
                edge.index_mapping[0] = None
    return graph


class _Graph(tp.DependencyGraph):  # type: ignore[misc]
    """Infers the number of channels at each node only once.

    The library asks a node's neighbours again at every visit: exponentially often in networks with branches, and
    without a result in deep networks.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self._known: dict[tuple[Any, bool], int | None] = {}

    def get_out_channels(self, module_or_node: Any) -> int | None:
        """Return how many channels a module or a node returns, inferred from its neighbours if it has none itself."""
        return self._channels(module_or_node, ahead=False)

    def get_in_channels(self, module_or_node: Any) -> int | None:
        """Return how many channels a module or a node receives, inferred from its neighbours if it has none itself."""
        return self._channels(module_or_node, ahead=True)

    def _channels(self, node: Any, *, ahead: bool) -> int | None:
        """Return the channels of a node; if its own module has none, those of the nearest node whose module has.

        That node is searched along the outputs if ``ahead``, else along the inputs. The result is None if there is no
        such node, and it is stored for all nodes on the way.
        """
        if not hasattr(node, "dependencies"):
            return self._own(node, ahead=ahead)
        visited = []
        count = None
        while True:
            self.limits.check()
            if (node, ahead) in self._known:
                count = self._known[node, ahead]
                break
            visited.append(node)
            self._known[node, ahead] = None
            count = self._own(node, ahead=ahead)
            neighbours = node.outputs if ahead else node.inputs
            if count is not None or not neighbours:
                break
            if node.type == (ops.OPTYPE.SPLIT if ahead else ops.OPTYPE.CONCAT):
                parts = [self._channels(neighbour, ahead=ahead) for neighbour in neighbours]
                count = None if None in parts else sum(part for part in parts if part is not None)
                break
            last = neighbours[-1]
            if last.type == ops.OPTYPE.CONCAT and ahead:
                count = self._share(last, node)
                break
            if last.type == ops.OPTYPE.SPLIT and not ahead and last.module.split_sizes is not None:
                count = dict(zip(last.outputs, last.module.split_sizes, strict=False)).get(node)
                break
            node = last
        self._known.update(((node, ahead), count) for node in visited)
        return count

    def _own(self, node: Any, *, ahead: bool) -> int | None:
        """Return the number of channels that the node's own module has, None if it has none."""
        own = super().get_in_channels(node) if ahead else super().get_out_channels(node)
        return None if own is None else int(own)

    def _share(self, concat: Any, node: Any) -> int | None:
        """Return how many channels of a concatenation come from one node, None if that is unknown."""
        whole = self._channels(concat, ahead=True)
        others = [self._channels(other, ahead=False) for other in concat.inputs if other is not node]
        if whole is None or None in others:
            return None
        rest = whole - sum(count for count in others if count is not None)
        return rest if rest > 0 else None  # not positive: rows are concatenated, not channels


class _SelectPruner(ops.DummyPruner):  # type: ignore[misc]
    """Tells the library how many channels a `ChannelSelect` receives, as recorded in a forward pass, and returns."""

    def __init__(self) -> None:
        self._inputs: dict[nn.Module, int] = {}

    def record(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self._inputs[layer] = args[0].shape[1]

    def get_in_channels(self, layer: ChannelSelect) -> int | None:
        return self._inputs.get(layer)

    def get_out_channels(self, layer: ChannelSelect) -> int:
        return len(layer.index)


def _cuts_channels(graph: _Graph, node: Any) -> bool:
    """Return whether a slice cuts the dimension of the channels.

    The library assumes that dimension 1 holds the channels, but it may hold rows.
    """
    sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
    channels = graph.get_out_channels(node.inputs[0]) if node.inputs else None
    return channels is None or node.module.dim >= len(sizes) or sizes[node.module.dim] == channels


def _is_plain_expansion(node: Any) -> bool:
    """Return whether a node expands a tensor of five dimensions that the library wrongly takes for repeated heads."""
    if node.type != ops.OPTYPE.EXPAND:
        return False
    return any(repeats_no_heads(edge.index_mapping[0]) for _, edge in _edges_before(node))


def _edges_before(node: Any) -> Iterator[tuple[bool, Any]]:
    """Yield the edges between a node and its inputs, each with whether it leads forward."""
    for before in node.inputs:
        yield from ((True, edge) for edge in before.dependencies if edge.target is node)
        yield from ((False, edge) for edge in node.dependencies if edge.target is before)


def _map_selection(node: Any, index: list[int]) -> None:
    """Add mappings of channels to the edges before a selection: to their places in its output, and back."""
    places: dict[int, list[int]] = {}
    for place, channel in enumerate(index):
        places.setdefault(channel, []).append(place)

    def forward(channels: list[Any]) -> list[Any]:
        return [ChannelIndex(place, channel.root_idx) for channel in channels for place in places.get(channel.idx, ())]

    def backward(channels: list[Any]) -> list[Any]:
        return [ChannelIndex(index[channel.idx], channel.root_idx) for channel in channels if channel.idx < len(index)]

    for leads_forward, edge in _edges_before(node):
        edge.index_mapping = [*edge.index_mapping, forward] if leads_forward else [backward, *edge.index_mapping]
