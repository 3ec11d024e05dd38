"""Kinds of layers: those that mix channels, and those that treat each channel by itself."""

from __future__ import annotations

from torch import nn

CONV_LINEAR = (nn.modules.conv._ConvNd, nn.Linear)
"""Convolutions and linear layers: an output channel may depend on many input channels."""

LAYERS = (*CONV_LINEAR, nn.RNNBase)
"""The same and recurrent layers."""


def inputs_of(layer: nn.Module) -> int:
    """Return the number of input channels of a convolution, linear or recurrent layer, and 0 for any other layer."""
    names = ("in_features", "in_channels", "input_size")
    return next((int(getattr(layer, name)) for name in names if getattr(layer, name, 0)), 0)


def convolved_side(side: int, kernel: int, padding: int, stride: int, dilation: int) -> int:
    """Return the height (or width) of a convolution's output in pixels, from that of its input."""
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def outputs_of(layer: nn.Module) -> int:
    """Return the number of output channels of a convolution or linear layer, and 0 for any other layer."""
    return int(getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0))


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether the layer is a convolution in which every output channel reads a single input channel."""
    return (
        isinstance(layer, nn.modules.conv._ConvNd)
        and layer.groups > 1
        and layer.groups == layer.in_channels
        and layer.out_channels % layer.in_channels == 0
    )


def is_channelwise(module: nn.Module) -> bool:
    """Return whether a layer has tensors of its own, mixes no channels and contains no other layer with parameters."""
    own = [*module._parameters.values(), *module._buffers.values()]
    return (
        any(tensor is not None for tensor in own)
        and not isinstance(module, LAYERS)
        and not any(True for child in module.children() for _ in child.parameters())
    )
