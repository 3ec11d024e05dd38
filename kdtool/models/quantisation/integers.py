"""The network of real 8-bit integers that is exported: it gives what the rounding network gives.

Its weights are integers, and its batch-norms are folded into them; torch.onnx writes the conversions between integers
and floats as QuantizeLinear and DequantizeLinear, which onnxruntime fuses with the layers between them.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

from kdtool.models.architecture import Network
from kdtool.models.quantisation.calls import argument, put
from kdtool.models.quantisation.fake import (
    LARGEST_WEIGHT,
    LEVELS,
    NAME,
    Quantiser,
    quantiser_of,
    scale_and_zero_point,
    weight_scales,
)

# A bias is added as a 32-bit integer of the product of both scales: the scale of a channel whose weights are nearly
# zero must be so large that its bias fits.
_LARGEST_BIAS = 2.0**30


def integer_network(network: Network) -> Network:
    """Return a copy of a rounding network, in eval mode on the CPU, that computes with integers; for export alone."""
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers torch's operators of integers
    module = copy.deepcopy(network.module).cpu().float().eval()
    before = quantiser_of(module)
    assert before is not None
    collected = _Collector(before)
    module._modules[NAME] = collected
    with torch.no_grad():
        module(torch.zeros(1, *network.architecture.input))
    module._modules[NAME] = _Integers(before, collected)
    return Network(network.architecture, module.eval())


class _Like(Quantiser):
    """A quantiser that takes its ranges and places from another one."""

    def __init__(self, other: Quantiser) -> None:
        super().__init__(other.places)
        self.scopes = other.scopes
        self.low.copy_(other.low)
        self.high.copy_(other.high)


class _Collector(_Like):
    """Keeps the weights of the layers and the constants of the batch-norms that are folded."""

    def __init__(self, other: Quantiser) -> None:
        super().__init__(other)
        self.layers: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.inputs: dict[str, str] = {}
        """By the name of a linear layer of vectors, the rounded tensor that it reads."""
        self.reads: dict[str, str] = {}
        """The same of every layer that reads one."""
        self.rounded: dict[int, tuple[str, Tensor]] = {}  # by id, with the tensor so that the id stays its own
        self.norms: dict[str, list[Any]] = {}

    def answer(self, name: str, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name in self.weights:
            self.layers[name] = argument(args, kwargs, 1, "weight"), argument(args, kwargs, 2, "bias")
            x = argument(args, kwargs, 0, "input")
            if id(x) in self.rounded:
                self.reads[name] = self.rounded[id(x)][0]
                if ":linear:" in name and x.dim() == 2:
                    self.inputs[name] = self.reads[name]
        if name in self.places.folds.values():
            names = ("running_mean", "running_var", "weight", "bias")
            self.norms[name] = [argument(args, kwargs, place, of) for place, of in enumerate(names, start=1)]
            eps = argument(args, kwargs, 7, "eps")
            self.norms[name].append(1e-5 if eps is None else eps)
        result = super().answer(name, func, args, kwargs)
        if name in self.places.passes and isinstance(result, Tensor):
            self.rounded[id(result)] = self.places.passes[name], result
        return result

    def activation(self, name: str, x: Tensor) -> Tensor:
        result = super().activation(name, x)
        self.rounded[id(result)] = name, result
        return result


class _Integers(_Like):
    """Computes with integers; each call gets its constants by its name."""

    def __init__(self, other: Quantiser, collected: _Collector) -> None:
        super().__init__(other)
        self.constants: dict[str, tuple[int, bool]] = {}
        self.inputs = collected.inputs
        zero_points = scale_and_zero_point(self.low, self.high)
        smallest = float(zero_points[0].min())
        self.numbers = {
            name: (float(scale), int(zero))
            for name, scale, zero in zip(self.index, *(of.tolist() for of in zero_points), strict=True)
        }
        for number, (name, (weight, bias)) in enumerate(collected.layers.items()):
            norm = self.places.folds.get(name)
            if norm is not None:
                mean, variance, factor, summand, eps = collected.norms[norm]
                weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, eps, factor, summand)
            weight, bias = weight.detach().float(), None if bias is None else bias.detach().float()
            scales = weight_scales(weight)
            if bias is not None:
                # The smallest scale of all may be that of a branch whose outputs are all zero.
                read = self.numbers[collected.reads[name]][0] if name in collected.reads else smallest
                scales = torch.maximum(scales, bias.abs() / (read * _LARGEST_BIAS))
            shape = (-1, *[1] * (weight.dim() - 1))
            integers = torch.round(weight / scales.view(shape)).clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
            for kind, tensor in (
                ("weight", integers.to(torch.int8)),
                ("scales", scales),
                ("zeros", torch.zeros_like(scales, dtype=torch.int64)),
            ):
                self.register_buffer(f"{kind}{number}", tensor)
            if bias is not None and name in collected.inputs:
                # onnxruntime rounds the bias of a layer itself only where the output is rounded, which this one's need
                # not be, and computes in float where it does not.
                bias_scales = scales * self.numbers[collected.inputs[name]][0]
                bias = torch.round(bias / bias_scales).to(torch.int32)
                self.register_buffer(f"bias_scales{number}", bias_scales)
            if bias is not None:
                self.register_buffer(f"bias{number}", bias)
            self.constants[name] = number, bias is not None
        self.norms = frozenset(self.places.folds.values())

    def answer(self, name: str, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name in self.constants:
            number, biased = self.constants[name]
            operators = torch.ops.quantized_decomposed
            integers, scales, zeros = (getattr(self, f"{kind}{number}") for kind in ("weight", "scales", "zeros"))
            of_channels = (0, -LARGEST_WEIGHT, LARGEST_WEIGHT, torch.int8)
            weight = operators.dequantize_per_channel(integers, scales, zeros, *of_channels)
            put(args, kwargs, 1, "weight", weight)
            bias = getattr(self, f"bias{number}") if biased else None
            if biased and name in self.inputs:
                bias_scales, whole = getattr(self, f"bias_scales{number}"), torch.iinfo(torch.int32)
                bias = operators.dequantize_per_channel(bias, bias_scales, zeros, 0, whole.min, whole.max, torch.int32)
            put(args, kwargs, 2, "bias", bias)
        result = args[0] if name in self.norms else func(*args, **kwargs)
        if name in self.index:
            return self.activation(name, result)
        # The same numbers once more, since onnxruntime looks for the integers right in front of a layer.
        source = self.places.passes.get(name)
        if source is None:
            return result
        if isinstance(result, Tensor):
            return self.activation(source, result)
        return type(result)(self.activation(source, part) for part in result)

    def activation(self, name: str, x: Tensor) -> Tensor:
        scale, zero_point = self.numbers[name]
        operators, form = torch.ops.quantized_decomposed, (scale, zero_point, 0, LEVELS, torch.uint8)
        rounded: Tensor = operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *form), *form)
        return rounded
