"""Tell which groups of channels have the same structure, so that scores are compared inside each kind of structure.

Fang, Ma, Mi and Wang, Isomorphic Pruning for Vision Models, 2024, arXiv:2407.04616.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

from torch_pruning import ops

from kdtool.surgery.channels.torch_pruning_adapter import graph_of


def topology(group: Any) -> str:
    """Return a text that is the same for groups whose graphs are isomorphic, and different for others.

    ``group`` is a ``torch_pruning.dependency.Group`` of all channels of a group. The nodes of its graph are the layers,
    parameters and operations that the channels pass. The label of a node is its kind (convolution, depthwise
    convolution, linear layer, norm, addition, ...) and whether its inputs or outputs are meant. Numbers of channels and
    sizes of kernels do not count. An edge says that the channels of one node go together with those of another.

    Colours are refined as Weisfeiler and Lehman do: the new colour of a node is made of its own, those behind it and
    those before it, until no two nodes of one colour can be told apart. The result is made of all colours. It does not
    depend on the order in which the graph was walked. Regular graphs could be mistaken for each other; groups of
    channels have a beginning and are none.
    """
    graph = graph_of(group)
    reached = {(id(item.dep.target), item.dep.handler): item.dep for item in group}
    colours = {key: _label(graph, edge) for key, edge in reached.items()}
    behind: dict[Any, list[Any]] = defaultdict(list)
    before: dict[Any, list[Any]] = defaultdict(list)
    for key, edge in reached.items():
        for further in edge.target.dependencies:
            target = id(further.target), further.handler
            if target in reached and further.is_triggered_by(edge.handler):
                behind[key].append(target)
                before[target].append(key)
    kinds = 0
    while kinds < len(set(colours.values())):
        kinds, old = len(set(colours.values())), colours
        colours = {
            key: _digest(old[key], *sorted(old[k] for k in behind[key]), "|", *sorted(old[k] for k in before[key]))
            for key in reached
        }
    return _digest(*sorted(colours.values()))


def _label(graph: Any, edge: Any) -> str:
    """Return the kind of the node that an edge leads to, and the side of it."""
    node = edge.target
    kind = type(node.module).__name__ if node.type == ops.OPTYPE.CUSTOMIZED else ops.OPTYPE(node.type).name
    return f"{kind} {'outputs' if graph.is_out_channel_pruning_fn(edge.handler) else 'inputs'}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
