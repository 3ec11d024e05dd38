"""The private names of Torch-Pruning that kdtool needs, all in this file.

kdtool gathers the groups of channels itself (`kdtool.surgery.channels.groups`) and corrects the library's graph at some
edges (`kdtool.surgery.channels.graph`). Both need names that are private in torch-pruning 1.6 and may change in any
later release. No other file uses them, and a test fails if an installed release no longer has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import Group
from torch_pruning.dependency.index_mapping import _GQAIndexMapping

ChannelIndex = _HybridIndex
"""A channel ``idx`` of a layer, and the channel ``root_idx`` of the group's first layer that it belongs to. The index
mappings of edges take and return lists of these. It is ``_helpers._HybridIndex``, private in torch-pruning 1.6."""


def repeats_no_heads(mapping: Any) -> bool:
    """Return whether an edge's index mapping repeats attention heads zero times, or heads of zero channels.

    Such a mapping divides by zero when it is called. Its class ``dependency.index_mapping._GQAIndexMapping`` is private
    in torch-pruning 1.6.
    """
    return isinstance(mapping, _GQAIndexMapping) and not mapping.repeat * mapping.head_dim


def module_path(graph: Any, layer: nn.Module) -> str:
    """Return the path of a layer in the network of a ``DependencyGraph``; empty if it is none of its modules.

    Reads the graph's attribute ``_module2name``, which is private in torch-pruning 1.6.
    """
    return str(graph._module2name.get(layer, ""))


def parameter_path(graph: Any, parameter: nn.Parameter) -> str:
    """Return the path of a parameter that belongs to no layer of a known kind in a ``DependencyGraph``.

    Reads the graph's attribute ``_param_to_name``, which is private in torch-pruning 1.6.
    """
    return str(graph._param_to_name[parameter])


def graph_of(group: Any) -> Any:
    """Return the ``DependencyGraph`` that a ``torch_pruning.dependency.Group`` belongs to.

    Reads the group's attribute ``_DG``, which is private in torch-pruning 1.6.
    """
    return group._DG


def make_group(graph: Any, items: Iterable[tuple[Any, Sequence[int], Sequence[int]]]) -> Any:
    """Return a ``torch_pruning.dependency.Group`` of edges of a graph.

    Each item is an edge, the channels behind it, and the channels of the group's first layer that they belong to.
    Writes the group's attribute ``_DG``, which is private in torch-pruning 1.6.
    """
    group = Group()
    group._DG = graph
    for edge, channels, roots in items:
        group.add_dep(edge, list(channels))
        group[len(group) - 1].root_idxs = list(roots)
    return group
