"""Modules that edits insert into a network, and the deletion of modules.

A projector converts the maps of a layer to another number of channels, a selection keeps some channels, and a skip
takes the place of a deleted residual branch. An opaque network stands where a teacher is not built here at all.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import UsageError

# Upper bounds for files, in weights and in numbers of a map: without them a few bytes could ask for a projector that
# fills the memory.
LARGEST = 2**28
LARGEST_MAP = 2**26


class Opaque(nn.Module):
    """A network of which only the outputs are known, such as an ONNX file: it can teach by its logits alone.

    Its ``state_dict`` has to differ between networks that differ, since caches and runs recognise it by that.
    """

    def __init__(self, title: str) -> None:
        """Make the module; ``title`` is what messages call it."""
        super().__init__()
        self.title = title


def is_opaque(module: nn.Module) -> bool:
    """Return whether a module, or a part of it, is opaque."""
    return any(isinstance(part, Opaque) for part in module.modules())


def check_transparent(module: nn.Module, what: str) -> None:
    """Check that the layers of a network can be used; ``what`` says for what.

    Raises:
        UsageError: it is opaque.
    """
    for part in module.modules():
        if isinstance(part, Opaque):
            raise UsageError(
                f"{part.title}: is an ONNX file, of which only the logits are known, and {what}; use a loss of logits "
                "and a student that is named, such as --method kd --student timm:resnet18, or the checkpoint that it "
                "was exported from"
            )


class Projector(nn.Sequential):
    """Three convolutions, each with batch-norm and ReLU (Chen et al., 2022, arXiv 2203.14001).

    Maps [batch, channels, height, width] to [batch, out, height, width]; between them are ``middle`` channels.
    """

    def __init__(self, channels: int, middle: int, out: int) -> None:
        super().__init__(
            *_conv_norm_relu(nn.Conv2d(channels, middle, 1, bias=False)),
            *_conv_norm_relu(nn.Conv2d(middle, middle, 3, padding=1, bias=False)),
            *_conv_norm_relu(nn.Conv2d(middle, out, 1, bias=False)),
        )


def _conv_norm_relu(conv: nn.Conv2d) -> tuple[nn.Module, ...]:
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()


class Projected(nn.Sequential):
    """A layer and the projector behind it, with a pool between them if the form has a height and width."""

    def __init__(self, layer: nn.Module, form: Sequence[int]) -> None:
        first, middle, out, *size = form
        parts: OrderedDict[str, nn.Module] = OrderedDict(layer=layer)
        if size:
            parts["pool"] = nn.AdaptiveAvgPool2d((size[0], size[1]))
        parts["projector"] = Projector(first, middle, out)
        super().__init__(parts)


def insert_projector(module: nn.Module, path: str, form: Sequence[int]) -> None:
    """Insert a projector behind the layer at ``path``, which becomes ``path.layer``, in place.

    ``form`` are the channels of the projector's input, middle and output, and, if the maps are averaged to a smaller
    size first, the height and width of that size.
    """
    parent_path, _, name = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    parent._modules[name] = Projected(parent.get_submodule(name), form)


def projectors_of(module: nn.Module) -> dict[str, list[int]]:
    """Return the form of every projector by the path of the layer in front of it, outer ones first."""
    return {path: _form(layer) for path, layer in module.named_modules() if isinstance(layer, Projected)}


def _form(layer: Projected) -> list[int]:
    convs = [child for child in layer.get_submodule("projector").children() if isinstance(child, nn.Conv2d)]
    pools = [child for child in layer.children() if isinstance(child, nn.AdaptiveAvgPool2d)]
    size = [int(side) for pool in pools for side in pool.output_size]  # type: ignore[union-attr, arg-type]
    return [convs[0].weight.shape[1], *(conv.weight.shape[0] for conv in convs[1:]), *size]


def are_projectors(value: Any) -> bool:
    """Return whether plain data maps paths to the forms of projectors, none of them too large."""
    return isinstance(value, Mapping) and all(
        isinstance(path, str) and path and _is_small(form) for path, form in value.items()
    )


def _is_small(form: Any) -> bool:
    if not isinstance(form, list | tuple) or len(form) not in (3, 5):
        return False
    if any(type(number) is not int or number < 1 for number in form):
        return False
    first, middle, out, *size = map(int, form)
    weights, places = middle * (first + 9 * middle + out), math.prod(size)
    return weights <= LARGEST and places * max(first, middle, out) <= LARGEST_MAP


class ChannelSelect(nn.Module):
    """Select channels: [batch, channels, ...] to [batch, len(index), ...].

    The index is structure, not a weight: the architecture stores it, the state dict does not.
    """

    index: Tensor

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor(list(index), dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected channels, in the order of the index."""
        return x.index_select(1, self.index)


def insert_select(module: nn.Module, path: str, index: Sequence[int]) -> None:
    """Insert a selection in front of the layer at ``path``, which becomes ``path.norm``, in place."""
    parent_path, _, name = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    layer = parent.get_submodule(name)
    parent._modules[name] = nn.Sequential(OrderedDict(select=ChannelSelect(index), norm=layer))


def selects_of(module: nn.Module) -> dict[str, list[int]]:
    """Return the index of every selection by the path of the layer behind it."""
    return {
        path.removesuffix(".select"): [int(i) for i in layer.index]
        for path, layer in module.named_modules()
        if isinstance(layer, ChannelSelect)
    }


ITERATED = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Containers whose children can be deleted: a network iterates over them and does not call them by name."""


class Skip(nn.Module):
    """Return the first argument unchanged, whatever its type: a residual block without its branch."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return ``x``."""
        return x


def leave_out(parent: nn.Module, names: Iterable[str]) -> None:
    """Delete children, in place; a parent that calls its children by name gets a `Skip` in the place of each.

    The remaining children of a Sequential or ModuleList are numbered anew from 0.
    """
    deleted = set(names)
    if not isinstance(parent, ITERATED):
        for name in deleted:
            parent._modules[name] = Skip()
        return
    kept = [(name, child) for name, child in parent._modules.items() if name not in deleted]
    if isinstance(parent, nn.Sequential | nn.ModuleList):
        # The children of a Sequential with names, not numbers, keep their names.
        numbered = all(name.isdecimal() for name in parent._modules)
        kept = [(str(i) if numbered else name, child) for i, (name, child) in enumerate(kept)]
    parent._modules.clear()
    parent._modules.update(kept)


@contextlib.contextmanager
def left_out(module: nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """Delete modules while the block runs; see `leave_out`."""
    names_of: dict[str, list[str]] = {}
    for path in paths:
        parent_path, _, name = path.rpartition(".")
        names_of.setdefault(parent_path, []).append(name)
    parents = [(module.get_submodule(path), names) for path, names in names_of.items()]
    before = [dict(parent._modules) for parent, _ in parents]
    try:
        for parent, names in parents:
            leave_out(parent, names)
        yield
    finally:
        for (parent, _), children in zip(parents, before, strict=True):
            parent._modules.clear()
            parent._modules.update(children)
