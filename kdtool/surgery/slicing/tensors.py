"""Cut the tensors of a network to the channels it keeps, in place."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.models.layers import CONV_LINEAR, is_depthwise
from kdtool.models.modules import ChannelSelect
from kdtool.models.used_weights import kind_of
from kdtool.surgery.slicing.naming import is_width
from kdtool.surgery.slicing.ties import Ties
from kdtool.surgery.tracing.flow import Cuts, Flow
from kdtool.surgery.tracing.recurrent import cut_recurrent, is_plain, outputs_of

Widths = dict[int, set[int]]
"""The new sizes of dimensions, by their old size."""

_HEAD_WIDTHS = ("head_dim", "dim_head_qk", "dim_head_v")

PLAIN_FIRST = "make it a plain layer first (torch.nn.utils.parametrize.remove_parametrizations)"
"""What to do about a layer that computes its weight."""

Keep = Callable[[str, int, int], Tensor]
"""Returns the kept indices of a dimension, from the tensor's path, the dimension and its size."""


def copy_to_cut(module: nn.Module) -> nn.Module:
    """Return a copy in float32 on the CPU, in eval mode.

    It shares the weights of convolutions and linear layers, because a cut replaces these instead of changing them.
    """
    shared: dict[int, Any] = {}
    for part in module.modules():
        if isinstance(part, CONV_LINEAR):
            weight: Any = part.weight
            if weight.device.type == "cpu" and weight.dtype == torch.float32:
                shared[id(weight)] = weight
    return copy.deepcopy(module, shared).cpu().float().eval()


def slice_tensors(module: nn.Module, flow: Flow, keep: Keep) -> dict[str, Widths]:
    """Cut the tensors of ``module`` in place; return the new sizes, by the path of the module that has the tensors.

    ``keep`` decides about dimensions that the flow does not know. Tensors that modules share stay shared.

    Raises:
        Error: a grouped convolution would keep different numbers of channels in its groups, a layer is of a kind that
            cannot be cut, or modules that share a tensor would keep different channels of it.
    """
    widths: dict[str, Widths] = {}
    unknown = []
    ties = Ties()
    for path, part in module.named_modules():
        own_widths = widths.setdefault(path, {})
        if isinstance(part, CONV_LINEAR):
            _slice_conv_linear(path, part, flow, keep, own_widths, ties)
        elif isinstance(part, nn.RNNBase):
            _slice_recurrent(path, part, flow, keep, own_widths)
        elif isinstance(part, ChannelSelect):
            _slice_select(part, flow.inputs.get(path))
        else:
            for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
                full = f"{path}.{name}".removeprefix(".")
                if tensor is None or not tensor.dim() or not tensor.is_floating_point():
                    continue
                if full in flow.tensors:
                    flow.cuts[full] = tuple(tensor.shape), flow.tensors[full]
                    _cut(full, part, name, flow.tensors[full], own_widths, ties)
                else:
                    unknown.append((path, part, name))
    for path, part in module.named_modules():
        _add_head_width(path, part, widths)
    for path, part, name in unknown:
        _slice_by_size(path, part, name, widths, keep, flow.cuts, ties)
    return widths


def _add_head_width(path: str, part: nn.Module, widths: dict[str, Widths]) -> None:
    """Add the width of an attention's heads to its widths: embeddings of positions may be as wide as a head."""
    heads = heads_of(part)
    places = near(path, widths) if heads is not None else []
    if heads is None or not places:
        return
    for width in [vars(part).get(name) for name in _HEAD_WIDTHS]:
        if type(width) is int:
            sizes = {size // heads for size in places[0].get(heads * width, set()) if size % heads == 0}
            if sizes:
                widths[path].setdefault(width, set()).update(sizes)


def _slice_conv_linear(path: str, layer: nn.Module, flow: Flow, keep: Keep, own_widths: Widths, ties: Ties) -> None:
    """Cut a convolution or linear layer, and add its sizes to ``own_widths``."""
    if "weight" not in layer._parameters:
        raise Error(f"{path}: its weight is computed by {kind_of(layer)} and cannot be cut; {PLAIN_FIRST}")
    weight: Tensor = layer.weight  # type: ignore[assignment]
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    groups = layer.groups if isinstance(layer, nn.modules.conv._ConvNd) else 1
    n_in = weight.shape[0] if transposed else weight.shape[1] * groups
    n_out = weight.shape[1] * groups if transposed else weight.shape[0]
    in_dim, out_dim = (0, 1) if transposed else (1, 0)

    kept_in = flow.inputs.get(path)
    if kept_in is None or not len(kept_in):
        kept_in = keep(f"{path}.weight", in_dim, n_in)
    kept_out = flow.outputs.get(path)
    if kept_out is None:
        kept_out = keep(f"{path}.weight", out_dim, n_out)
        if is_depthwise(layer):
            times = n_out // n_in
            kept_out = (kept_in[:, None] * times + torch.arange(times)).flatten()
    if groups == 1:
        cut = weight.detach().index_select(in_dim, kept_in).index_select(out_dim, kept_out)
    elif is_depthwise(layer):
        cut = weight.detach()[kept_in if transposed else kept_out]
        groups = len(kept_in)
    else:
        cut, groups = _cut_groups(path, weight.detach(), kept_in, kept_out, n_in, n_out, groups, transposed)
    layer.weight = ties.replacement(f"{path}.weight", weight, cut.contiguous())  # type: ignore[assignment]
    bias = layer.bias
    if isinstance(bias, Tensor):
        layer.bias = ties.replacement(f"{path}.bias", bias, bias.detach()[kept_out].clone())  # type: ignore[assignment]
    for name, tensor in list(layer._parameters.items()):
        # Convolutions with weight standardisation have gains [out, 1, 1, 1].
        if name not in ("weight", "bias") and tensor is not None and tensor.dim() and tensor.shape[0] == n_out:
            layer._parameters[name] = ties.replacement(f"{path}.{name}", tensor, tensor.detach()[kept_out].clone())  # type: ignore[assignment]
    own_widths.setdefault(n_in, set()).add(len(kept_in))
    own_widths.setdefault(n_out, set()).add(len(kept_out))
    if isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = len(kept_in), len(kept_out)
    elif isinstance(layer, nn.modules.conv._ConvNd):
        layer.in_channels, layer.out_channels, layer.groups = len(kept_in), len(kept_out), groups


def _slice_recurrent(path: str, layer: nn.RNNBase, flow: Flow, keep: Keep, own_widths: Widths) -> None:
    """Cut a recurrent layer, and add its sizes to ``own_widths``."""
    if not is_plain(layer):
        raise Error(f"{path}: recurrent layers that have a projection or are not batch-first cannot be cut")
    kept, state = flow.inputs.get(path), flow.outputs.get(path)
    if kept is None:
        kept = keep(f"{path}.weight_ih_l0", 1, layer.input_size)
    if state is None:
        state = keep(f"{path}.weight_hh_l0", 1, layer.hidden_size)
    outputs = outputs_of(layer, torch.arange(layer.hidden_size))
    for old, new in ((layer.input_size, kept), (layer.hidden_size, state), (len(outputs), outputs_of(layer, state))):
        own_widths.setdefault(old, set()).add(len(new))
    cut_recurrent(layer, kept, state)


def _cut_groups(
    path: str,
    weight: Tensor,
    kept_in: Tensor,
    kept_out: Tensor,
    n_in: int,
    n_out: int,
    groups: int,
    transposed: bool,
) -> tuple[Tensor, int]:
    """Return the cut weight [out, in / groups, ...] of a grouped convolution, and how many groups are left.

    The weight of a ``transposed`` convolution is [in, out / groups, ...].
    """
    ins = _by_group(kept_in, n_in // groups, groups)
    outs = _by_group(kept_out, n_out // groups, groups)
    sizes = {(len(kept_ins), len(kept_outs)) for kept_ins, kept_outs in zip(ins, outs, strict=True)} - {(0, 0)}
    if len(sizes) != 1 or 0 in next(iter(sizes)):
        raise Error(f"{path}: its {groups} groups would not keep equally many channels each")
    pairs = [(i, o) if transposed else (o, i) for i, o in zip(ins, outs, strict=True)]
    cut = [
        block[rows][:, columns]
        for block, (rows, columns) in zip(weight.chunk(groups, 0), pairs, strict=True)
        if len(rows)
    ]
    return torch.cat(cut), len(cut)


def _by_group(kept: Tensor, size: int, groups: int) -> list[Tensor]:
    """Return for each group of ``size`` channels which of its channels are kept, counted inside of the group."""
    return [kept[kept // size == g] % size for g in range(groups)]


def _slice_select(layer: ChannelSelect, kept: Tensor | None) -> None:
    """Renumber a selection's channels to their places among the kept ones; drop those that are lost."""
    if kept is None:
        return
    places = {int(channel): i for i, channel in enumerate(kept)}
    left = [places[int(channel)] for channel in layer.index if int(channel) in places]
    layer.index = torch.tensor(left, dtype=torch.long)


def _cut(full: str, part: nn.Module, name: str, dims: dict[int, Tensor], own_widths: Widths, ties: Ties) -> None:
    """Cut a tensor of a module to the kept indices by dimension, and add its sizes to ``own_widths``."""
    tensors: dict[str, Any] = part._parameters if name in part._parameters else part._buffers
    tensor = tensors[name]
    cut = tensor.detach()
    for dim, kept in dims.items():
        own_widths.setdefault(tensor.shape[dim], set()).add(len(kept))
        if len(kept) < tensor.shape[dim]:
            cut = cut.index_select(dim, kept)
    tensors[name] = ties.replacement(full, tensor, cut if cut.shape != tensor.shape else tensor)
    if isinstance(part, nn.GroupNorm) and name == "weight":
        part.num_groups = math.gcd(part.num_groups, cut.shape[0])


def _slice_by_size(
    path: str, part: nn.Module, name: str, widths: dict[str, Widths], keep: Keep, cuts: Cuts, ties: Ties
) -> None:
    """Cut a tensor that the flow does not know (an embedding, a scale, a bias of attention) by its sizes."""
    tensors: dict[str, Any] = part._parameters if name in part._parameters else part._buffers
    tensor = tensors[name]
    shared = ties.of(tensor)
    if shared is not None:
        tensors[name] = shared
        return
    sides = [size for size in tensor.shape if size > 1]
    if name in part._buffers and len(set(sides)) < len(sides):
        return  # a mask, or a table of positions by positions
    full = f"{path}.{name}".removeprefix(".")
    dims: dict[int, Tensor] = {}
    places = near(path, widths)
    # In an embedding [1, positions, channels], the number of positions may happen to be a multiple of a width.
    exact = tensor.dim() > 2 and any(resized(size, places, (1,)) for size in sides)
    for dim, size in enumerate(tensor.shape):
        kept = keep(full, dim, size)
        if size == 1 or len(kept) == size:
            continue
        new = resized(size, places, (1,)) if exact else resized(size, places)
        if new is None and tensor.dim() == 1:
            new = _part_of_width(part, size, places)
        if new is not None and new < size:
            if tensor.dim() == 3 and tensor.shape[0] == 1:
                dims.clear()  # [1, positions, channels]: the positions only happened to be as many as some width
            dims[dim] = kept if len(kept) == new else torch.arange(new) * size // new
    cuts[full] = tuple(tensor.shape), dims
    _cut(full, part, name, dims, {}, ties)


def near(path: str, widths: dict[str, Widths]) -> list[Widths]:
    """Return the widths in a module's subtree, then those in its parent's, and so on up to the root."""
    places = []
    while True:
        prefix = f"{path}." if path else ""
        merged: Widths = {}
        for other, sizes in widths.items():
            if other == path or other.startswith(prefix):
                for old, new in sizes.items():
                    merged.setdefault(old, set()).update(new)
        if merged:
            places.append(merged)
        if not path:
            return places
        path = path.rpartition(".")[0]


def resized(size: int, places: list[Widths], multiples: tuple[int, ...] = (1, 2, 3, 4)) -> int | None:
    """Return the new size of a dimension that is a multiple of a width, from the nearest place that has that width."""
    for widths in places[:3]:
        for times in multiples:
            if size % times == 0 and size // times in widths:
                return min(widths[size // times]) * times
    return None


def _part_of_width(part: nn.Module, size: int, places: list[Widths]) -> int | None:
    """Return the new size of a dimension that is an even part of a width attribute, but not itself a tensor's width.

    Examples are the frequencies of rotary embeddings, and one of several states that a layer computes at once.
    """
    for name, width in vars(part).items():
        if type(width) is not int or not is_width(name, width) or width % size or width // size not in (1, 2, 4):
            continue
        for widths in places[:3]:
            for times in (1, 2, 3):
                for new in sorted(widths.get(width * times, ())):
                    if new * size % (width * times) == 0:
                        return new * size // (width * times)
    return None


def heads_of(part: nn.Module) -> int | None:
    """Return the number of attention heads from a module's attributes, or None if it has no such attribute."""
    for name in ("num_heads", "heads", "n_heads", "num_attention_heads"):
        value = vars(part).get(name)
        if type(value) is int:
            return value
    return None
