"""The network of airbench94 for small images (Jordan, 2024, arXiv:2404.00498), which learns in few epochs."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from kdtool_teachers.pooled_head import conv


def airbench94(classes: int, in_channels: int, width: int = 64) -> nn.Sequential:
    """Return a 2x2 convolution and three stages of two 3x3 convolutions with ``width`` times 1, 4 and 4 maps.

    Maps images [batch, in_channels, height, width] of at least 9x9 pixels to logits [batch, classes]. The first
    convolution of a stage is followed by a pool, and every one by batch-norm and GELU; the maps of the last stage are
    reduced to their maximum. The 3x3 convolutions begin as the identity, as far as they have as many inputs (Dirac
    initialisation). Three things of the paper are left out: the first convolution is learnt like all others instead of
    being fixed to filters that whiten the images, norms have a scale, and their statistics follow the batches slowly
    (momentum 0.1): with batches of 128 images instead of 1024, those of the paper (0.4) are noise.
    """
    first = 8 * in_channels
    parts: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(in_channels, first, 2)),
        ("gelu", nn.GELU()),
    ]
    inputs = first
    for number, factor in enumerate((1, 4, 4), 1):
        outputs = width * factor
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index in (1, 2):
            layers[f"conv{index}"] = conv(inputs if index == 1 else outputs, outputs)
            if index == 1:
                layers["pool"] = nn.MaxPool2d(2)
            layers[f"bn{index}"] = nn.BatchNorm2d(outputs)
            layers[f"gelu{index}"] = nn.GELU()
        for layer in layers.values():
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight[: layer.in_channels])
        parts.append((f"layer{number}", nn.Sequential(layers)))
        inputs = outputs
    parts += [("pool", nn.AdaptiveMaxPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Linear(inputs, classes))]
    return nn.Sequential(OrderedDict(parts))
