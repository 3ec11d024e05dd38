"""ResNet-9 for small images, which learns in few epochs (Page, 2018, "How to Train Your ResNet", myrtle.ai)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from kdtool_teachers.pooled_head import conv, with_head


class Residual(nn.Module):
    """Two 3x3 convolutions with batch-norm and ReLU, added to their input: [batch, width, h, w] to the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = conv(width, width), nn.BatchNorm2d(width), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = conv(width, width), nn.BatchNorm2d(width), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the input and what the convolutions make of it."""
        y: Tensor = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        return x + y


def resnet9(classes: int, in_channels: int, width: int = 64) -> nn.Sequential:
    """Return ResNet-9: four stages of ``width`` times 1, 2, 4 and 8 maps; the second and the fourth are residual.

    Maps images [batch, in_channels, height, width] of at least 8x8 pixels to logits [batch, classes]. As in the later
    posts of the series, images are pooled right after the convolution, which halves the work of the norm. The maps
    are averaged before the classifier, where the original takes their maximum and divides the logits by 8.
    """
    parts: list[tuple[str, nn.Module]] = []
    inputs = in_channels
    for number, factor in enumerate((1, 2, 4, 8), 1):
        outputs = width * factor
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv(inputs, outputs))
        if number > 1:
            layers["pool"] = nn.MaxPool2d(2)
        layers["bn"], layers["relu"] = nn.BatchNorm2d(outputs), nn.ReLU()
        if number in (2, 4):
            layers["residual"] = Residual(outputs)
        parts.append((f"layer{number}", nn.Sequential(layers)))
        inputs = outputs
    return with_head(parts, inputs, classes)
