"""Classifiers in the middle of a network, as self-distillation trains them beside it (Zhang et al., 2019)."""

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

# What the authors put behind a ResNet's four stages.
EXITS = 3


def taps_of(network: Network, named: Sequence[str] | None) -> list[Tap]:
    """Return where exits are put, and behind them the end of the last stage.

    These are the ends of the stages but the stem. In a network of one stage, such as a vision transformer, they are the
    ends of three of its blocks, spread evenly.

    Raises:
        Error: the network has one stage and no blocks; the message says what to do.
    """
    found = stage_taps(network, stem=False)
    if named is not None:
        taps = [tap_of(network, path) for path in named]
        if found[-1] in taps:
            raise UsageError(f"--exits {found[-1].path}: is the end of the last stage, which teaches the exits")
        return [*taps, found[-1]]
    if len(found) > 1:
        return found
    rows = [stage.blocks for stage in stages(network.module, network.architecture.input)]
    blocks = max(rows, key=len, default=())
    count = min(EXITS, len(blocks) - 1)
    if count < 1:
        raise Error(
            f"{network.architecture.spec}: has one stage and no blocks in it, so that it is unknown where an early "
            "exit could be; name layers with --exits"
        )
    at = [max(number * len(blocks) // (count + 1) - 1, 0) for number in range(1, count + 1)]
    return [*(tap_of(network, blocks[one]) for one in at), found[-1]]


class Exits(nn.Module):
    """An exit behind each tap but the last: maps to the features of the last tap, then the features and the logits of
    each exit."""

    def __init__(self, taps: Sequence[Tap], classes: int) -> None:
        super().__init__()
        *early, last = taps
        self.ways = nn.ModuleList(_way(one, last) for one in early)
        self.heads = nn.ModuleList(nn.Linear(last.channels, classes) for _ in early)

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return features [batch, channels of the last tap] and logits [batch, classes]."""
        *early, last = maps
        found = [last.mean(dim=(2, 3))]
        for way, head, one in zip(self.ways, self.heads, early, strict=True):
            features = way(one).mean(dim=(2, 3))
            found += [features, head(features)]
        return found


def _way(tap: Tap, last: Tap) -> nn.Sequential:
    """Return the authors' bottleneck: convolutions of 1x1, of k x k in steps of k down to the last map's resolution,
    and of 1x1, each with batch-norm and ReLU, whose middle has a quarter of the last map's channels."""
    middle = max(last.channels // 4, 1)
    steps = (max(tap.grid[0] // last.grid[0], 1), max(tap.grid[1] // last.grid[1], 1))
    mixes = (
        nn.Conv2d(tap.channels, middle, 1),
        nn.Conv2d(middle, middle, steps, stride=steps),
        nn.Conv2d(middle, last.channels, 1),
    )
    return nn.Sequential(*(layer for mix in mixes for layer in (mix, nn.BatchNorm2d(mix.out_channels), nn.ReLU())))
