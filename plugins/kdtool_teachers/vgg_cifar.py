"""VGG for small images (Simonyan and Zisserman, 2014; in the form of Tian et al., 2020, arXiv:1910.10699)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from kdtool_teachers.pooled_head import conv, with_head

WIDTHS = (64, 128, 256, 512, 512)


def vgg_cifar(classes: int, in_channels: int, *, convolutions: int) -> nn.Sequential:
    """Return five stages of 3x3 convolutions with batch-norm, then global average pooling and one linear layer.

    Maps images [batch, in_channels, height, width] of at least 8x8 pixels to logits [batch, classes]. Every stage has
    ``convolutions`` of them: one gives VGG-8, two give VGG-13. The second to fourth stage begin with a pool, so that
    the output of a stage is that of its last ReLU, and the last two stages see 4x4 positions of a 32x32 image.
    """
    parts: list[tuple[str, nn.Module]] = []
    inputs = in_channels
    for number, width in enumerate(WIDTHS, 1):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if number in (2, 3, 4):
            layers["pool"] = nn.MaxPool2d(2)
        for index in range(1, convolutions + 1):
            layers[f"conv{index}"] = conv(inputs, width, bias=True)
            layers[f"bn{index}"] = nn.BatchNorm2d(width)
            layers[f"relu{index}"] = nn.ReLU()
            inputs = width
        parts.append((f"layer{number}", nn.Sequential(layers)))
    return with_head(parts, inputs, classes)
