"""The ResNets for small images (He, Zhang, Ren and Sun, 2015, arXiv:1512.03385, section 4.2).

Among them are the wide ones of the distillation literature (Tian, Krishnan and Isola, 2020, arXiv:1910.10699).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from kdtool_teachers.pooled_head import conv, with_head


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: [batch, inputs, h, w] to [batch, outputs, h/stride, w/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, projects: bool) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = conv(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            # He et al.'s options B and A.
            self.shortcut = (
                nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
                if projects
                else nn.AvgPool2d(1, stride)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified sum; a shortcut with too few maps is padded with zeros."""
        y: Tensor = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        x = self.shortcut(x)
        if x.shape[1] < y.shape[1]:
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        y = self.relu2(x + y)
        return y


def resnet_cifar(
    classes: int,
    in_channels: int,
    *,
    depth: int,
    widths: tuple[int, int, int, int] = (16, 16, 32, 64),
    projects: bool = False,
) -> nn.Sequential:
    """Return a ResNet of ``depth`` = 6 n + 2 layers: a 3x3 convolution, then three stages of n blocks.

    Maps images [batch, in_channels, height, width] of any size to logits [batch, classes]. ``widths`` are the maps of
    the first convolution and of the stages. Shortcuts between stages are He et al.'s option A, zeros for the new
    maps, which gives the parameter counts of their Table 6 (with option B ResNet-32 would have 0.47 M parameters
    instead of the published 0.46 M, and ResNet-56 0.86 M instead of 0.85 M). With ``projects`` they are option B, a 1x1
    convolution with a norm, as in the ResNets of Tian et al. (resnet20b and resnet56b; resnet8x4 and resnet32x4, which
    have twice the first width and four times the others).
    """
    blocks = (depth - 2) // 6
    parts: list[tuple[str, nn.Module]] = [
        ("conv1", conv(in_channels, widths[0])),
        ("bn1", nn.BatchNorm2d(widths[0])),
        ("relu", nn.ReLU()),
    ]
    for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
        head = Block(inputs, outputs, 1 if number == 1 else 2, projects=projects)
        others = [Block(outputs, outputs, 1, projects=projects) for _ in range(blocks - 1)]
        parts.append((f"layer{number}", nn.Sequential(head, *others)))
    return with_head(parts, widths[-1], classes)
