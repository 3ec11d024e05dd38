"""Exits: classifiers behind the early stages of a network, for self-distillation (Zhang et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from kdtool import Error, UsageError
from kdtool.features import stage_taps, tap as tap_of
from kdtool.surgery import stages

if TYPE_CHECKING:
    from kdtool import Network
    from kdtool.features import Tap

# The authors put three exits into a ResNet with four stages.
EXITS = 3


def taps_of(network: Network, named: Sequence[str] | None) -> list[Tap]:
    """Return the layers behind which exits are put, followed by the end of the last stage.

    By default these are the ends of all stages; the stem is no stage. In a network of one stage, such as a vision
    transformer, exits are put behind three of its blocks, evenly spaced. ``named`` are paths of layers to use instead.

    Raises:
        Error: the network has one stage and no blocks, or no stages at all.
        UsageError: there is no layer of a name, or it is the end of the last stage.
    """
    ends = stage_taps(network, stem=False)
    if named is not None:
        taps = [tap_of(network, path) for path in named]
        if ends[-1] in taps:
            raise UsageError(
                f"--exits {ends[-1].path}: is the end of the last stage, which teaches the exits; name earlier layers"
            )
        return [*taps, ends[-1]]
    if len(ends) > 1:
        return ends
    rows = [stage.blocks for stage in stages(network.module, network.architecture.input)]
    blocks = max(rows, key=len, default=())
    count = min(EXITS, len(blocks) - 1)
    if count < 1:
        raise Error(
            f"{network.architecture.spec}: has one stage without blocks, so there is no default place for an early "
            "exit; name layers with --exits"
        )
    indices = [max(number * len(blocks) // (count + 1) - 1, 0) for number in range(1, count + 1)]
    return [*(tap_of(network, blocks[index]) for index in indices), ends[-1]]


class Exits(nn.Module):
    """An exit behind each tap except the last.

    It turns the maps at the taps into a list: the features of the last tap, then the features and the logits of each
    exit.
    """

    def __init__(self, taps: Sequence[Tap], classes: int) -> None:
        super().__init__()
        *early, last = taps
        self.bottlenecks = nn.ModuleList(_bottleneck(tap, last) for tap in early)
        self.heads = nn.ModuleList(nn.Linear(last.channels, classes) for _ in early)

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return features [batch, channels of the last tap] and logits [batch, classes], in the order of the taps.

        ``maps`` are [batch, channels, height, width], one per tap; ``images`` are not used.
        """
        *early, last = maps
        outputs = [last.mean(dim=(2, 3))]
        for bottleneck, head, early_map in zip(self.bottlenecks, self.heads, early, strict=True):
            features = bottleneck(early_map).mean(dim=(2, 3))
            outputs += [features, head(features)]
        return outputs


def _bottleneck(tap: Tap, last: Tap) -> nn.Sequential:
    """Return the authors' bottleneck, from the map at ``tap`` to a map of the shape of the last one.

    It has three convolutions, each with batch-norm and ReLU: 1x1, k x k with stride k down to the resolution of the
    last map, and 1x1. The middle one has a quarter of the channels of the last map.
    """
    middle = max(last.channels // 4, 1)
    stride = (max(tap.grid[0] // last.grid[0], 1), max(tap.grid[1] // last.grid[1], 1))
    convolutions = (
        nn.Conv2d(tap.channels, middle, 1),
        nn.Conv2d(middle, middle, stride, stride=stride),
        nn.Conv2d(middle, last.channels, 1),
    )
    return nn.Sequential(
        *(layer for conv in convolutions for layer in (conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()))
    )
