"""The ResNets of Kulkarni et al. (2021, Data Efficient Stagewise Knowledge Distillation) with their head."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock


class ConcatPool(nn.Module):
    """Concatenate the maximum and the mean of every map: [batch, c, h, w] to [batch, 2c, 1, 1]."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maxima, then the means."""
        return torch.cat([maps.amax(dim=(2, 3), keepdim=True), maps.mean(dim=(2, 3), keepdim=True)], dim=1)


def resnet_concat_head(classes: int, in_channels: int, blocks: tuple[int, int, int, int]) -> ResNet:
    """Return torchvision's ResNet of basic blocks with the authors' head in place of ``avgpool`` and ``fc``.

    Maps images [batch, in_channels, height, width] to logits [batch, classes]. The head is the concatenation of
    maximum and mean (1024), a linear layer to 256, ReLU and a linear layer to the classes, without dropout or
    norm. With 10 classes the parameter counts are those of the paper's Table 1: 21,549,642 for ResNet-34 and
    5,170,762, 11,072,074, 12,622,154 and 17,712,202 for ResNet-10, -14, -20 and -26.
    """
    net = ResNet(BasicBlock, list(blocks))
    if in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.avgpool = ConcatPool()
    net.fc = nn.Sequential(
        OrderedDict[str, nn.Module](
            fc1=nn.Linear(2 * 512, 256),
            relu=nn.ReLU(),
            fc2=nn.Linear(256, classes),
        )
    )
    return net
