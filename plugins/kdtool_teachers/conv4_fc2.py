"""The small students of Li, Zhang and Li (2020): four convolutions and two fully connected layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def conv4_fc2(classes: int, in_channels: int, image_size: int, width: int) -> nn.Sequential:
    """Return convolutions of w, w, 2w and 2w maps with a pool after every second one, then 4w units; w is the width.

    Maps images [batch, in_channels, image_size, image_size] to logits [batch, classes]. At CIFAR-10's size (32x32x3,
    10 classes) it has 575 w^2 + 77 w + 10 parameters: about 0.2 M with w = 19, 1.0 M with 42 and 2.6 M with 67.
    Maps with a side of 16 pixels or more are averaged to 8 to 15 pixels before the first fully connected layer, which
    would otherwise hold most of the parameters.
    """
    side = image_size // 4
    average = max(1, side // 8)
    side //= average
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(in_channels, width, 3, padding=1)),
        ("relu1", nn.ReLU()),
        ("conv2", nn.Conv2d(width, width, 3, padding=1)),
        ("relu2", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv3", nn.Conv2d(width, 2 * width, 3, padding=1)),
        ("relu3", nn.ReLU()),
        ("conv4", nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
        ("relu4", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("average", nn.AvgPool2d(average) if average > 1 else nn.Identity()),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(2 * width * side * side, 4 * width)),
        ("relu5", nn.ReLU()),
        ("fc2", nn.Linear(4 * width, classes)),
    ]
    return nn.Sequential(OrderedDict(layers))
