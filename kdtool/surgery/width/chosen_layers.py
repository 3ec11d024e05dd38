"""The layers whose widths may change where the user leaves others out."""

from __future__ import annotations

import gc

from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.layers import CONV_LINEAR
from kdtool.surgery.layer_options import LayerOptions


def widths_of(network: Network, options: LayerOptions) -> tuple[frozenset[str], list[str]]:
    """Return the paths of the layers whose widths may change, and of those that keep theirs by ``only`` and ``skip``.

    Layers that have the same channels, as Torch-Pruning's graph shows, change together or not at all.

    Raises:
        UsageError: a pattern matches no layer.
        Error: no layer is left, or it cannot be found which layers have the same channels.
    """
    from kdtool.surgery.channels.groups import groups

    spec = network.architecture.spec
    names = [path for path, layer in network.module.named_modules() if isinstance(layer, CONV_LINEAR)]
    only, skip = options.matched(names, spec)
    try:
        found = [
            {(member.path, member.role) for member in group.members if member.role in ("outputs", "both")}
            for group in groups(network)
        ]
    except Error as error:
        raise Error(f"{spec}: --only and --skip need the layers that have the same channels, and {error}") from error
    gc.collect()  # the graph has reference cycles and holds the network's activations
    stays: set[str] = set()
    free: set[str] = set()
    for group in found:
        paths = {path for path, _ in group}
        # A depthwise convolution has the channels of the layer before it, so that nobody has to choose it.
        stay = paths & skip or {path for path, role in group if role == "outputs"} - only
        (stays if stay else free).update(paths)
    inside = frozenset(free - stays)
    if not inside:
        raise Error(
            f"{spec}: --only and --skip leave no layer to narrow: those that are chosen have the channels of others; "
            "choose all layers of a stage, or those inside of its blocks"
        )
    return inside, [name for name in names if name in stays or name in skip or name not in only]
