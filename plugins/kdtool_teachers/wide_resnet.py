"""Wide residual networks (Zagoruyko and Komodakis, 2016, arXiv:1605.07146)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from kdtool_teachers.pooled_head import conv, with_head


class Block(nn.Module):
    """Batch-norm, ReLU and a 3x3 convolution, twice: [batch, inputs, h, w] to [batch, outputs, h/stride, w/stride].

    The shortcut is the input, or if the shape changes, a 1x1 convolution of the input after the first norm and ReLU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = conv(inputs, outputs, stride=stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the convolutions and the shortcut."""
        active = self.relu1(self.bn1(x))
        y: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(active))


def wide_resnet(classes: int, in_channels: int, *, depth: int, factor: int) -> nn.Sequential:
    """Return WRN-``depth``-``factor``, with depth = 6 n + 4: a convolution of 16 maps, then three stages of n blocks.

    Maps images [batch, in_channels, height, width] of any size to logits [batch, classes]. The stages have 16, 32 and
    64 maps times ``factor``; there is no dropout.
    """
    blocks = (depth - 4) // 6
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    parts: list[tuple[str, nn.Module]] = [("conv1", conv(in_channels, widths[0]))]
    for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
        head = Block(inputs, outputs, 1 if number == 1 else 2)
        others = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
        parts.append((f"layer{number}", nn.Sequential(head, *others)))
    parts += [("bn", nn.BatchNorm2d(widths[-1])), ("relu", nn.ReLU())]
    return with_head(parts, widths[-1], classes)
