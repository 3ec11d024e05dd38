"""The layers that a pruner may change, where the user leaves some of them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.layers import CONV_LINEAR
from kdtool.surgery.layer_options import LayerOptions
from kdtool.training.zeros import prunable, unprunable

if TYPE_CHECKING:
    from kdtool.surgery.channels.groups import Scores


def layers_to_mask(options: LayerOptions, network: Network) -> set[str]:
    """Return the paths of the layers that may get zeros, as `prunable` names them, and say which others stay.

    Raises:
        UsageError: a pattern matches no layer.
        Error: no layer is left.
    """
    names = [name.removesuffix(".weight") for name in prunable(network.module)]
    names += [path for path in unprunable(network.module) if path not in names]
    return _chosen(options, names, network)


def limited(options: LayerOptions, scores: Scores, network: Network) -> Scores:
    """Return scores that are None for groups with a layer that keeps its width, and say which layers keep it.

    Raises:
        UsageError: a pattern matches no layer.
        Error: no layer is left.
    """
    if not options.restricts:
        return scores
    from kdtool.surgery.channels.importance import narrowed_by

    names = [path for path, layer in network.module.named_modules() if isinstance(layer, CONV_LINEAR)]
    _chosen(options, names, network)
    only, skip = options.matched(names, network.architecture.spec)

    def chosen_scores(group: Any) -> Tensor | None:
        # A depthwise convolution has the channels of the layer before it, so that nobody has to choose it.
        stays = narrowed_by(group, depthwise=True) & skip or narrowed_by(group, depthwise=False) - only
        return None if stays else scores(group)

    return chosen_scores


def _chosen(options: LayerOptions, names: list[str], network: Network) -> set[str]:
    spec = network.architecture.spec
    chosen = options.chosen(names, spec)
    if not chosen:
        raise Error(f"{spec}: --only and --skip leave no layer to change; leave one of them out")
    options.tell_left([name for name in names if name not in chosen])
    return chosen
