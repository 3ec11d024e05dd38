"""A row of stages, the mean of every map and one linear layer: how the networks for small images are put together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """Return a convolution of ``size`` x ``size`` that keeps height and width where its stride is 1."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=bias)


def with_head(parts: Iterable[tuple[str, nn.Module]], width: int, classes: int) -> nn.Sequential:
    """Return the parts in a row, which end in ``width`` maps of any size, with their mean and the classifier.

    Convolutions start as He et al. (2015, arXiv:1502.01852) have it, by the connections that leave them, and their
    biases at zero.
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
