"""The two LeNets of the pruning literature (LeCun et al., 1998; Han et al., 2015; Li, Zhang and Li, 2020)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def lenet_300_100(classes: int, in_channels: int, image_size: int) -> nn.Sequential:
    """Return LeNet-300-100, with hidden layers of 300 and 100 units.

    It has 266,610 parameters for 10 classes and 28x28x1 pixels.

    Maps images [batch, in_channels, image_size, image_size] to logits [batch, classes].
    """
    layers: list[tuple[str, nn.Module]] = [
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(in_channels * image_size * image_size, 300)),
        ("relu1", nn.ReLU()),
        ("fc2", nn.Linear(300, 100)),
        ("relu2", nn.ReLU()),
        ("fc3", nn.Linear(100, classes)),
    ]
    return nn.Sequential(OrderedDict(layers))


def lenet_5(classes: int, in_channels: int, image_size: int) -> nn.Sequential:
    """Return LeNet-5, with convolutions of 6, 16 and 120 maps, then 84 units.

    It has 61,706 parameters for 10 classes and one channel.

    Maps images [batch, in_channels, image_size, image_size] to logits [batch, classes]. Images smaller than
    32x32 are padded with zeros, like MNIST's 28x28 in 1998; for larger ones the 120 maps are averaged over all
    positions. ReLU and max-pooling replace the scaled tanh and the trainable subsampling of 1998.
    """
    border = max(0, 32 - image_size)
    near, far = border // 2, border - border // 2
    layers: list[tuple[str, nn.Module]] = [
        ("pad", nn.ZeroPad2d((near, far, near, far))),
        ("conv1", nn.Conv2d(in_channels, 6, 5)),
        ("relu1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(6, 16, 5)),
        ("relu2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("conv3", nn.Conv2d(16, 120, 5)),
        ("relu3", nn.ReLU()),
        ("average", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(120, 84)),
        ("relu4", nn.ReLU()),
        ("fc2", nn.Linear(84, classes)),
    ]
    return nn.Sequential(OrderedDict(layers))
