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


def _base_paths(network: Network) -> dict[str, str]:
    dropped = network.architecture.dropped
    module: nn.Module = network.module
    return {path: base_path(module, path, dropped) for path, _ in module.named_modules()}
