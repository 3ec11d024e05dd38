"""DenseNet-BC for small images (Huang et al., 2017), the search space of Gu and Tresp (2020)."""

from __future__ import annotations

from torch import nn
from torchvision.models import DenseNet


def densenet_bc(classes: int, in_channels: int, *, layers: int = 100, growth: int = 12) -> DenseNet:
    """Return DenseNet-BC with three dense blocks, bottlenecks of 4 x growth maps and compression 0.5.

    Maps images [batch, in_channels, height, width] of at least 4x4 pixels to logits [batch, classes]. With 100 layers
    and growth 12 it has 769,162 parameters for CIFAR-10 and 288 M multiply-accumulates in its convolutions (the paper
    counts 296 M in all). It is torchvision's DenseNet with the stem for small images: a 3x3 convolution of 2 x growth
    maps without norm, activation or pool. Convolutions are initialised as in He et al. (2015).
    """
    # One layer is the stem, two are the transitions, one is the classifier; each dense layer counts as two.
    repeats = (layers - 4) // 6
    net = DenseNet(
        growth_rate=growth,
        block_config=(repeats, repeats, repeats),  # type: ignore[arg-type]
        num_init_features=2 * growth,
        num_classes=classes,
    )
    stem = nn.Conv2d(in_channels, 2 * growth, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight)
    net.features.conv0 = stem
    for name in ("norm0", "relu0", "pool0"):
        delattr(net.features, name)
    return net
