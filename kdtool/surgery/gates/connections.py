"""Connections: layers that read a concatenation of channels, each through a norm of its own, as in DenseNets.

Such a layer can drop a channel that another layer keeps: a selection (`ChannelSelect`) is put before its norm, and the
norm and the layer behind it become smaller. The gate stands after the norm and its activation. Before the norm it could
not remove the channel, because batch-norm turns a channel of zeros into a constant that need not be zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch_pruning import ops

from kdtool.models.layers import CONV_LINEAR, inputs_of
from kdtool.models.modules import ChannelSelect, insert_select
from kdtool.surgery.channels.groups import Group
from kdtool.surgery.channels.torch_pruning_adapter import graph_of, module_path

_PASSING = (ops.OPTYPE.ELEMENTWISE, ops.OPTYPE.RESHAPE)
"""Operations that may lie between a norm and its reader: activations, pooling, flattening."""


@dataclass
class Readers:
    """The groups of channels whose readers have gates of their own, and the norms of these readers."""

    own: set[int] = field(default_factory=set)
    """The groups, by ``id``."""
    norms: dict[str, str] = field(default_factory=dict)
    """The path of the norm, by the path of the reader."""


def readers_of(groups: Sequence[Group], module: nn.Module) -> Readers:
    """Return which groups of a network are concatenated and read through norms of the readers' own."""
    norms: dict[str, str] = {}
    reading = Counter(path for group in groups for path in _paths(group, "inputs"))
    readers = Readers()
    for group in groups:
        paths = _paths(group, "inputs")
        if len(_paths(group, "outputs")) != 1 or any(member.role == "both" for member in group.members):
            continue  # channels of several layers are added: a layer that reads one of them reads all
        for path in paths:
            if path not in norms:
                norms[path] = own_norm(graph_of(group.graph), module, path)
        if all(norms[path] for path in paths) and any(reading[path] > 1 for path in paths):
            readers.own.add(id(group))
            readers.norms.update({path: norms[path] for path in paths})
    return readers


def _paths(group: Group, role: str) -> set[str]:
    """Return the paths of a group's members with this role."""
    return {member.path for member in group.members if member.role == role}


def own_norm(graph: Any, module: nn.Module, path: str) -> str:
    """Return the path of the batch-norm whose outputs only the layer at ``path`` reads, channel by channel.

    The result is empty if there is no such norm. ``graph`` is the ``torch_pruning.DependencyGraph`` of the module.
    """
    node = next(node for layer, node in graph.module2node.items() if module_path(graph, layer) == path)
    reader = module.get_submodule(path)
    while True:
        before = [source for source in node.inputs if source.inputs or isinstance(source.module, CONV_LINEAR)]
        if len(before) != 1 or len(before[0].outputs) != 1:
            return ""
        node = before[0]
        if isinstance(node.module, nn.modules.batchnorm._BatchNorm):
            alone = getattr(reader, "groups", 1) == 1 and node.module.num_features == inputs_of(reader)
            return module_path(graph, node.module) if alone else ""
        if node.type not in _PASSING:
            return ""


def select_connections(module: nn.Module, kept: Mapping[tuple[str, str], Tensor]) -> None:
    """Make layers read only the kept channels, in place.

    ``kept`` holds the indices of the inputs that stay, by the paths of the norm that gets a selection before it and of
    the layer behind the norm.
    """
    for (norm, reader), index in kept.items():
        _narrow_norm(module.get_submodule(norm), index)
        _narrow_reader(module.get_submodule(reader), index)
        selection = _selection_before(module, norm)
        if selection is None:
            insert_select(module, norm, index.tolist())
        else:
            selection.index = selection.index[index.to(selection.index.device)]


def _selection_before(module: nn.Module, path: str) -> ChannelSelect | None:
    """Return the selection that an earlier edit put before a norm, None if there is none."""
    parent = module.get_submodule(path.rpartition(".")[0])
    selection = parent._modules.get("select") if isinstance(parent, nn.Sequential) else None
    return selection if isinstance(selection, ChannelSelect) and path.endswith(".norm") else None


def _narrow_norm(norm: nn.Module, index: Tensor) -> None:
    """Keep only these channels of a norm, in place."""
    for name, tensor in norm._parameters.items():
        if tensor is not None:
            norm._parameters[name] = nn.Parameter(tensor.detach()[index].clone(), tensor.requires_grad)
    for name, buffer in norm._buffers.items():
        if buffer is not None and buffer.dim():
            norm._buffers[name] = buffer[index].clone()
    norm.num_features = len(index)  # type: ignore[assignment]


def _narrow_reader(layer: nn.Module, index: Tensor) -> None:
    """Keep only these input channels of a convolution or linear layer, in place."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    layer.weight = nn.Parameter(weight.detach()[:, index].clone(), weight.requires_grad)
    if isinstance(layer, nn.Linear):
        layer.in_features = len(index)
    else:
        layer.in_channels = len(index)  # type: ignore[assignment]
