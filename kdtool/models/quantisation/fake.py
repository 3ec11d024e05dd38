"""A network that rounds like one of 8-bit integers, while it computes in float and learns.

Weights are rounded to signed integers from -127 to 127 with one scale for each output channel, activations to unsigned
integers with one scale and zero point for each tensor, which follow the smallest and the largest value of its batches
in training, until they are held. The gradient passes through the rounding where a value is within the range (Jacob et
al., 2018, arXiv:1712.05877). All of this is computed in float32; the layers between may compute in bfloat16.

A batch-norm that scales the channels of a convolution by g_c scales their largest weights and so their scales too:
round(g_c w / (g_c s)) g_c s = g_c round(w / s) s. So the weights are rounded in front of their batch-norm, and the file
in which it is folded into them gives the same.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.quantisation.calls import CallMode, Scopes, argument, put
from kdtool.models.quantisation.places import INPUT, Places, find_places

NAME = "kdtool_quantiser"
"""The name of the `Quantiser` among the submodules of a network."""

FOLLOWING = 0.1
"""How far a range follows the values of a batch in training: torch.ao.quantization's 0.01 stays behind short ones."""

LEVELS, LARGEST_WEIGHT = 255, 127


def scale_and_zero_point(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point (int32) of unsigned 8-bit integers for values from ``low`` to ``high``.

    The range is widened to contain 0, which is an integer exactly: scale = (high - low) / 255, zero point =
    round(-low / scale).
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.float32).eps)
    return scale, torch.round(-low / scale).clamp(0, LEVELS).to(torch.int32)


def weight_scales(weight: Tensor) -> Tensor:
    """Return the scale of each output channel of a weight [channels, ...]: its largest absolute value / 127."""
    largest = weight.detach().float().flatten(1).abs().amax(1)
    return (largest / LARGEST_WEIGHT).clamp(min=torch.finfo(torch.float32).eps)


class Quantiser(nn.Module):
    """The ranges of the rounded tensors of a network; it is a submodule of the network, without parameters."""

    low: Tensor
    high: Tensor

    def __init__(self, places: Places) -> None:
        """Begin without ranges: `calibrate` finds the first ones."""
        super().__init__()
        self.places, self.scopes = places, Scopes()
        self.index = {name: number for number, name in enumerate(places.activations)}
        self.weights = frozenset(places.weights)
        self.register_buffer("low", torch.zeros(len(self.index)))
        self.register_buffer("high", torch.zeros(len(self.index)))
        self.calibrated: int | None = None
        """The number of batches that a calibration has seen; None if none is under way."""
        self.held = False
        """Whether the ranges stay as they are in training, and batch-norms use their running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the input: a network that is a sequence of its submodules runs this one last."""
        return x

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Round what a forward pass computes while the block runs."""
        self.scopes.begin()
        with CallMode(self.scopes, self.answer):
            yield

    def answer(self, name: str, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Return the rounded result of a call, with rounded weights."""
        if name in self.weights:
            put(args, kwargs, 1, "weight", self.weight(name, argument(args, kwargs, 1, "weight")))
        result = func(*args, **kwargs)
        return self.activation(name, result) if name in self.index else result

    def weight(self, name: str, weight: Tensor) -> Tensor:
        """Return a weight [channels, ...], rounded."""
        scales = weight_scales(weight)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight.float(), scales, zeros, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT)

    def activation(self, name: str, x: Tensor) -> Tensor:
        """Return a tensor, rounded; in train mode its range follows the values, unless it is held."""
        x, number = x.float(), self.index[name]
        if (self.training and not self.held) or self.calibrated is not None:
            with torch.no_grad():
                share = FOLLOWING if self.calibrated is None else 1 / (self.calibrated + 1)
                low, high = torch.aminmax(x)
                self.low[number].lerp_(low, share)
                self.high[number].lerp_(high, share)
        scale, zero_point = scale_and_zero_point(self.low[number], self.high[number])
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, LEVELS)

    def as_data(self) -> dict[str, Any]:
        """Return the rounded tensors and weights as plain data."""
        ranges = zip(self.index, self.low.tolist(), self.high.tolist(), strict=True)
        return {
            "precision": "int8",
            "ranges": {name: [low, high] for name, low, high in ranges},
            "weights": list(self.places.weights),
        }


def quantised(network: Network, places: Places) -> Network:
    """Return a copy of a network that rounds; its ranges are not known yet."""
    module = copy.deepcopy(without_quantiser(network).module)
    quantiser = Quantiser(places)
    first = next(module.parameters(), torch.zeros(0))
    quantiser.scopes.follow(module)
    module.add_module(NAME, quantiser.to(first.device).train(module.training))
    module.__class__ = _rounding(type(module))
    return Network(network.architecture, module)


def calibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the ranges of a rounding network to the means of the smallest and largest values of ``batches`` of images.

    It is left in eval mode.
    """
    quantiser = quantiser_of(module)
    assert quantiser is not None
    with torch.no_grad():
        for number, images in enumerate(batches):
            quantiser.calibrated = number
            module.eval()(images)
    quantiser.calibrated = None


def quantiser_of(module: nn.Module) -> Quantiser | None:
    """Return the quantiser of a network's root module, or None if it computes in float."""
    quantiser = module._modules.get(NAME)
    return quantiser if isinstance(quantiser, Quantiser) else None


def without_quantiser(network: Network) -> Network:
    """Return a network that computes in float: itself, or a copy with the same weights."""
    if quantiser_of(network.module) is None:
        return network
    module = copy.deepcopy(network.module)
    delattr(module, NAME)
    module.__class__ = type(module).__mro__[1]
    for part in module.modules():
        for hooks in (part._forward_pre_hooks, part._forward_hooks):
            for key in [key for key, hook in hooks.items() if _is_scope(hook)]:
                del hooks[key]
    return Network(network.architecture, module)


def _is_scope(hook: Any) -> bool:
    return type(getattr(hook, "__self__", None)).__module__ == Scopes.__module__


def float_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a network without its ranges."""
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(f"{NAME}.")}


def _rounding(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a class whose forward rounds, as torch.nn.utils.parametrize makes classes.

    A hook would round what other hooks of the root module do to the images too, such as another normalisation.
    """

    def forward(self: nn.Module, images: Tensor) -> Any:
        quantiser = quantiser_of(self)
        assert quantiser is not None
        if self.training and quantiser.held:
            for part in self.modules():
                if isinstance(part, _BatchNorm):
                    part.training = False
        with quantiser.active():
            if INPUT in quantiser.index:
                images = quantiser.activation(INPUT, images)
            return kind.forward(self, images)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def from_data(network: Network, data: Any) -> Network:
    """Return a network with the ranges that `Quantiser.as_data` described; a file may hold anything.

    Raises:
        Error: the data are malformed, or do not fit the network.
    """
    valid = isinstance(data, Mapping) and set(data) == {"precision", "ranges", "weights"}
    if not valid or data["precision"] != "int8":
        raise Error("its 8-bit ranges are malformed; the file is damaged or of a newer kdtool")
    ranges, weights = data["ranges"], data["weights"]
    if not (_are_ranges(ranges) and _are_names(weights)):
        raise Error("its 8-bit ranges are malformed; the file is damaged")
    known = find_places(network)
    odd = [name for name in (*ranges, *weights) if name not in (*known.activations, *known.weights)]
    if odd:
        raise Error(
            f"{network.architecture.spec}: its 8-bit ranges do not fit the network, which has no call {odd[0]!r}; it "
            "was trained with another release of its source: train it again with --quantize int8"
        )
    made = quantised(network, known.only(ranges, weights))
    quantiser = quantiser_of(made.module)
    assert quantiser is not None
    quantiser.low.copy_(torch.tensor([low for low, _ in ranges.values()]))
    quantiser.high.copy_(torch.tensor([high for _, high in ranges.values()]))
    return made


def _are_ranges(ranges: Any) -> bool:
    return isinstance(ranges, Mapping) and all(
        isinstance(name, str)
        and isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(number, float) and math.isfinite(number) for number in pair)
        for name, pair in ranges.items()
    )


def _are_names(names: Any) -> bool:
    return isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
