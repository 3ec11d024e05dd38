"""Networks that were cut from another network, and remember where their channels come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from kdtool.models.architecture import Network
from kdtool.models.edits import base_path


@dataclass
class InheritedNetwork(Network):
    """A network whose weights are the kept part of another network's."""

    kept: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """By the path of a layer of this network, the output channels that it kept. Layers that are missing kept all."""


def origins(network: Network, original: Network) -> dict[str, str]:
    """Return for each module of ``network`` the path in ``original`` of the module that it was cut from.

    Both are edits of one base network, so that they are the same module if the base has it at the same path.
    """
    before = {base: path for path, base in _base_paths(original).items()}
    return {path: before[base] for path, base in _base_paths(network).items() if base in before}


def composed(network: InheritedNetwork, before: InheritedNetwork) -> InheritedNetwork:
    """Return ``network``, which was cut from ``before``, as one that was cut from what ``before`` was cut from."""
    kept = dict(network.kept)
    for path, origin in origins(network, before).items():
        earlier = before.kept.get(origin)
        if earlier is not None:
            kept[path] = earlier[kept[path]] if path in kept else earlier
    return InheritedNetwork(network.architecture, network.module, kept)


def _base_paths(network: Network) -> dict[str, str]:
    dropped = network.architecture.dropped
    module: nn.Module = network.module
    return {path: base_path(module, path, dropped) for path, _ in module.named_modules()}
