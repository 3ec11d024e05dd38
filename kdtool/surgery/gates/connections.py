"""Connections: layers that read a concatenation of others' channels, each through a norm of its own, as in DenseNets.

Such a layer can do without a channel that another one keeps: its norm is given a selection (`ChannelSelect`) and gets
smaller, and so does the layer behind it. A gate after the norm and its activation, not before: batch-norm makes a
constant of a channel that is zero, which would not be gone.
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

_PASSING = (ops.OPTYPE.ELEMENTWISE, ops.OPTYPE.RESHAPE)
"""What may lie between a norm and its reader: activations, pools, flattening."""


@dataclass
class Readers:
    """The groups of channels whose readers have gates of their own, by ``id``, and the norm of each such reader."""

    own: set[int] = field(default_factory=set)
    norms: dict[str, str] = field(default_factory=dict)


def readers_of(found: Sequence[Group], module: nn.Module) -> Readers:
    """Return which of a network's groups are concatenated and read through norms of the readers' own."""
    norms: dict[str, str] = {}
    reading = Counter(path for group in found for path in _paths(group, "inputs"))
    readers = Readers()
    for group in found:
        paths = _paths(group, "inputs")
        if len(_paths(group, "outputs")) != 1 or any(member.role == "both" for member in group.members):
            continue  # channels of several layers are added up: what reads one reads all
        for path in paths:
            if path not in norms:
                norms[path] = own_norm(group.graph._DG, module, path)
        if all(norms[path] for path in paths) and any(reading[path] > 1 for path in paths):
            readers.own.add(id(group))
            readers.norms.update({path: norms[path] for path in paths})
    return readers


def _paths(group: Group, role: str) -> set[str]:
    return {member.path for member in group.members if member.role == role}


def own_norm(graph: Any, module: nn.Module, path: str) -> str:
    """Return the path of the batch-norm whose outputs go to the layer at ``path`` one to one and nowhere else.

    Empty where there is none.
    """
    names = graph._module2name
    node = next(node for layer, node in graph.module2node.items() if names.get(layer) == path)
    reader = module.get_submodule(path)
    while True:
        before = [one for one in node.inputs if one.inputs or isinstance(one.module, CONV_LINEAR)]
        if len(before) != 1 or len(before[0].outputs) != 1:
            return ""
        node = before[0]
        if isinstance(node.module, nn.modules.batchnorm._BatchNorm):
            alone = getattr(reader, "groups", 1) == 1 and node.module.num_features == inputs_of(reader)
            return str(names[node.module]) if alone else ""
        if node.type not in _PASSING:
            return ""


def select_connections(module: nn.Module, kept: Mapping[tuple[str, str], Tensor]) -> None:
    """Let layers read the kept channels alone, in place.

    ``kept`` holds indices of inputs by the paths of the norm that is given a selection and of the layer behind it.
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
    """Return the selection that a norm was given by an earlier edit."""
    parent = module.get_submodule(path.rpartition(".")[0])
    found = parent._modules.get("select") if isinstance(parent, nn.Sequential) else None
    return found if isinstance(found, ChannelSelect) and path.endswith(".norm") else None


def _narrow_norm(norm: nn.Module, index: Tensor) -> None:
    for name, tensor in norm._parameters.items():
        if tensor is not None:
            norm._parameters[name] = nn.Parameter(tensor.detach()[index].clone(), tensor.requires_grad)
    for name, buffer in norm._buffers.items():
        if buffer is not None and buffer.dim():
            norm._buffers[name] = buffer[index].clone()
    norm.num_features = len(index)  # type: ignore[assignment]


def _narrow_reader(layer: nn.Module, index: Tensor) -> None:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    layer.weight = nn.Parameter(weight.detach()[:, index].clone(), weight.requires_grad)
    if isinstance(layer, nn.Linear):
        layer.in_features = len(index)
    else:
        layer.in_channels = len(index)  # type: ignore[assignment]
