"""How a pruner of channels is sized to a cost: the fractions that are tried share one computation of the importance."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kdtool.models.architecture import Network
from kdtool.models.layers import CONV_LINEAR, outputs_of
from kdtool.pruning.layers import limited
from kdtool.surgery.channels.remove import remove_channels

if TYPE_CHECKING:
    from kdtool.surgery.channels.groups import Scores
    from kdtool.training.run import Run

ROUND_TO = (16, 8, 4, 2)
"""Numbers of channels by which layers shrink; onnxruntime gains in steps of 16."""

STEPS_OF_A_LAYER = 4
"""A layer of median width can be cut to this many widths at least."""


OF_THE_SIZE = ("ratio", "of", "round_to", "floor")
"""Options on which the importance of channels does not depend."""


def round_to(network: Network) -> int:
    """Return the multiple of channels that layers keep: 16, or less where layers are so narrow that little could go."""
    widths = [outputs_of(layer) for layer in network.module.modules() if isinstance(layer, CONV_LINEAR)]
    middle = statistics.median(widths) if widths else 1
    return next((multiple for multiple in ROUND_TO if middle >= STEPS_OF_A_LAYER * multiple), 1)


def cutter(make: Callable[..., Any], run: Run, network: Network) -> Callable[[Mapping[str, Any]], Network]:
    """Return a function from the options of a pruner to the network without its least important channels.

    ``make`` returns the `ChannelPruner` of options. Its importance is computed once for all fractions.
    """
    known: dict[str, Scores] = {}

    def cut(options: Mapping[str, Any]) -> Network:
        pruner = make(**options)
        key = repr({name: value for name, value in pruner.as_data().items() if name not in OF_THE_SIZE})
        if key not in known:
            known[key] = pruner.importance(run, network)
        return remove_channels(
            network,
            ratio=pruner.ratio,
            of=pruner.of,
            importance=limited(pruner, known[key], network),
            scope=pruner.scope,
            round_to=pruner.round_to,
            floor=pruner.floor,
        ).network

    return cut
