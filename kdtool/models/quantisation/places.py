"""Which tensors of a network onnxruntime computes in 8 bits.

A convolution runs in 8 bits if its input, its weights and its output are rounded; an addition and a concatenation if
all their inputs and their output are. A batch-norm behind a convolution becomes part of it, and a
ReLU or another clipping becomes part of the rounding, so that the rounding stands behind them. A layer of a transformer
needs no rounded output: of such networks only the linear layers are rounded, and their sums stay in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.hooks import evaluating
from kdtool.models.quantisation.calls import CallMode, Scopes, argument, operation, tensors_in
from kdtool.utils.patterns import matching

INPUT = "input"
"""The name of the images among the rounded tensors."""

_WEIGHTED = ("conv2d", "linear")
_CLIPS = ("relu", "relu6", "hardtanh", "clamp", "clamp_min")
_JOINS = ("add", "cat")
_PASSES = (
    *("flatten", "reshape", "view", "permute", "transpose", "contiguous", "dropout", "chunk", "split", "getitem"),
    *("squeeze", "unsqueeze", "unflatten", "to", "max_pool2d", "pad", "expand", "clone", "detach", "pixel_unshuffle"),
    *("channel_shuffle", "movedim", "swapaxes", "unbind", "fn", "boolean_dispatch", "_max_pool2d", "float", "type_as"),
)
"""Functions whose outputs are numbers of their input, or zero: a rounded tensor stays rounded."""


@dataclass
class _Value:
    """A tensor of a forward pass: the call that made it, and the calls that read it."""

    call: str
    kind: str
    inputs: list[int]
    shape: tuple[int, ...]
    readers: list[int] = field(default_factory=list)


@dataclass
class Places:
    """The calls of a network that are rounded."""

    activations: tuple[str, ...]
    """The names of the calls whose outputs are rounded, and `INPUT` if the images are."""
    weights: tuple[str, ...]
    """The names of the convolutions and linear layers whose weights are rounded."""
    folds: dict[str, str]
    """By the name of a convolution, the batch-norm that becomes part of it."""
    passes: dict[str, str]
    """By the name of a call that moves the numbers of a rounded tensor, the name of the call that it comes from."""

    def only(self, activations: Iterable[str], weights: Iterable[str]) -> Places:
        """Return some of these places."""
        activations, weights = tuple(activations), tuple(weights)
        folds = {name: norm for name, norm in self.folds.items() if name in weights}
        passes = {name: source for name, source in self.passes.items() if source in activations}
        return Places(activations, weights, folds, passes)


class _Record:
    """The tensors of one forward pass."""

    def __init__(self, images: Tensor) -> None:
        self.values = [_Value(INPUT, INPUT, [], tuple(images.shape))]
        self.numbers = {id(images): 0}
        self.alive: list[Tensor] = [images]  # an id is used again when its object is gone
        self.weights: dict[str, tuple[int, int, int]] = {}

    def __call__(self, name: str, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        kind = operation(func)
        read = tensors_in([args, kwargs])
        numbers = [self.numbers[id(tensor)] for tensor in read if id(tensor) in self.numbers]
        result = func(*args, **kwargs)
        if not numbers:
            return result
        if kind in _WEIGHTED and id(argument(args, kwargs, 0, "input")) in self.numbers:
            weight = argument(args, kwargs, 1, "weight")
            self.weights[name] = (len(self.values), weight.numel(), args[0].dim() if args else 0)
        floats = all(id(tensor) in self.numbers for tensor in read)
        for tensor in tensors_in(result):
            if tensor.is_floating_point():
                number = len(self.values)
                for other in numbers:
                    self.values[other].readers.append(number)
                known = kind if floats or kind not in _JOINS else f"{kind} with a constant"
                self.values.append(_Value(name, known, numbers, tuple(tensor.shape)))
                self.numbers[id(tensor)] = number
                self.alive.append(tensor)
        return result


def find_places(network: Network, skip: Sequence[str] = (), only: Sequence[str] = ()) -> Places:
    """Return what is rounded in a network.

    Layers that match a pattern of ``skip``, or none of ``only`` if there are any, stay in float.

    Raises:
        UsageError: a pattern matches no layer, or no layer is left.
        Error: no layer can be rounded.
    """
    module, spec = network.module, network.architecture.spec
    first = next(module.parameters(), torch.zeros(0))
    images = torch.zeros(2, *network.architecture.input, device=first.device)
    record, scopes = _Record(images), Scopes()
    scopes.begin()
    handles = scopes.follow(module)
    try:
        with torch.no_grad(), evaluating(module), CallMode(scopes, record):
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    layers = {name.partition(":")[0]: name for name in record.weights}
    if not layers:
        raise Error(f"{spec}: has no convolution and no linear layer that runs in 8 bits; train it in float")
    left = matching(only, list(layers), "--quantize-only", spec) if only else set(layers)
    left -= matching(skip, list(layers), "--quantize-skip", spec)
    if not left:
        raise UsageError(f"{spec}: --quantize-only and --quantize-skip leave all layers in float; drop one of them")
    chosen = {name: found for name, found in record.weights.items() if name.partition(":")[0] in left}
    return _places(record.values, chosen, _is_transformer(record.weights))


def _is_transformer(weights: dict[str, tuple[int, int, int]]) -> bool:
    """Return whether most weights are in linear layers of sequences or of maps."""
    linear = sum(count for name, (_, count, dims) in weights.items() if ":linear:" in name and dims > 2)
    return linear > sum(count for name, (_, count, _) in weights.items() if ":conv2d:" in name)


def _places(values: list[_Value], weights: dict[str, tuple[int, int, int]], transformer: bool) -> Places:
    layers = {name: number for name, (number, _, _) in weights.items() if not (transformer and ":conv2d:" in name)}
    needed: set[int] = set()
    for name, number in layers.items():
        needed.add(values[number].inputs[0])
        if ":conv2d:" in name:
            needed.add(number)
    for number, value in enumerate(values):
        if value.kind in _JOINS and len(value.inputs) > 1 and len(value.shape) == 4 and not transformer:
            needed |= {number, *value.inputs}
    places = {_settled(values, _source(values, number)) for number in needed}
    folds = {
        name: values[reader].call
        for name, number in layers.items()
        if ":conv2d:" in name and (reader := _only_reader(values, number, ("batch_norm",))) is not None
    }
    passes = {
        value.call: values[_source(values, number)].call
        for number, value in enumerate(values)
        if value.kind in _PASSES and _source(values, number) in places
    }
    return Places(tuple(values[number].call for number in sorted(places)), tuple(layers), folds, passes)


def _source(values: list[_Value], number: int) -> int:
    """Return the tensor whose numbers a tensor has."""
    while values[number].kind in _PASSES and values[number].inputs:
        number = values[number].inputs[0]
    return number


def _settled(values: list[_Value], number: int) -> int:
    """Return where the rounding of a tensor stands: behind the batch-norm and the clipping that it goes through."""
    if values[number].kind == "conv2d" and (norm := _only_reader(values, number, ("batch_norm",))) is not None:
        number = norm
    clip = _only_reader(values, number, _CLIPS)
    return number if clip is None else clip


def _only_reader(values: list[_Value], number: int, kinds: Sequence[str]) -> int | None:
    readers = values[number].readers
    return readers[0] if len(readers) == 1 and values[readers[0]].kind in kinds else None
