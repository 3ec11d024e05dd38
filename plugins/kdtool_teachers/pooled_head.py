"""The common form of the networks for small images: stages, global average pooling and one linear layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """Return a ``size`` x ``size`` convolution; with an odd size and stride 1 it keeps height and width."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=bias)


def with_head(parts: Iterable[tuple[str, nn.Module]], width: int, classes: int) -> nn.Sequential:
    """Return the parts in sequence, then global average pooling and the classifier.

    The parts end in ``width`` maps of any size. Convolutions are initialised as in He et al. (2015, arXiv:1502.01852)
    by their number of outgoing connections (fan-out), and their biases are zero.
    """
    head: list[tuple[str, nn.Module]] = [
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(width, classes)),
    ]
    net = nn.Sequential(OrderedDict([*parts, *head]))
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return net
