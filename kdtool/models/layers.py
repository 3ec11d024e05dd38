"""Kinds of layers, and their shapes."""

from __future__ import annotations

from torch import nn

CONV_LINEAR = (nn.modules.conv._ConvNd, nn.Linear)
"""Layers whose every output depends on many input channels."""

LAYERS = (*CONV_LINEAR, nn.RNNBase)
"""Those, and recurrent ones."""


def inputs_of(layer: nn.Module) -> int:
    """Return how many channels a convolution, linear or recurrent layer is given; 0 where it is none of these."""
    names = ("in_features", "in_channels", "input_size")
    return next((int(getattr(layer, name)) for name in names if getattr(layer, name, 0)), 0)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a convolution's every output channel depends on one input channel alone."""
    return (
        isinstance(layer, nn.modules.conv._ConvNd)
        and layer.groups > 1
        and layer.groups == layer.in_channels
        and layer.out_channels % layer.in_channels == 0
    )


def is_channelwise(module: nn.Module) -> bool:
    """Whether a layer has tensors of its own, mixes nothing and holds no other layer with parameters."""
    own = [*module._parameters.values(), *module._buffers.values()]
    return (
        any(tensor is not None for tensor in own)
        and not isinstance(module, LAYERS)
        and not any(True for child in module.children() for _ in child.parameters())
    )
