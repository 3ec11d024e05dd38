"""Check that removing channels gives the same outputs as zeroing every weight that reads them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, first_line
from kdtool.models.architecture import Network
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.reinit import fan_in
from kdtool.surgery.channels.graph import Limits
from kdtool.surgery.channels.remove import Surgery
from kdtool.surgery.channels.selection import Ranked

ROUNDING = 1e-3
"""How far two float32 computations of the same outputs may differ, as a fraction of the largest output."""


class VerifiedSurgery(Surgery):
    """Cuts copies of one network and checks that their outputs are those of the network with the channels silenced."""

    def __init__(self, network: Network, original: nn.Module, limits: Limits) -> None:
        super().__init__(network, original, limits)
        shape = network.architecture.input
        self.images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))

    def without(self, chosen: Sequence[tuple[Ranked, int]]) -> nn.Module | None:
        """Return a copy without the chosen channels, or None if its outputs differ from those with them silenced."""
        module = super().without(chosen)
        if module is None:
            return None
        lost: dict[str, list[Tensor]] = defaultdict(list)
        for ranking, step in chosen:
            gone = ranking.lost(step)
            for member in ranking.group.members:
                if member.role == "inputs":
                    lost[member.path].append(member.channels[torch.isin(member.roots, gone)])
        silent = silenced(self.original, {path: torch.cat(parts) for path, parts in lost.items()})
        try:
            with torch.no_grad():
                if agree(silent(self.images), module(self.images)):
                    return module
            self.reason = "something that it computes from all channels, such as a norm, changes with their number"
        except FAILURES as error:
            self.reason = first_line(error)
        return None


def agree(outputs: Tensor, expected: Tensor) -> bool:
    """Return whether outputs are the same apart from rounding."""
    return bool((outputs - expected).abs().max() <= ROUNDING * expected.abs().max())


def silenced(module: nn.Module, columns: Mapping[str, Iterable[int] | Tensor]) -> nn.Module:
    """Return a copy in which the weights that read these input channels of the layers at these paths are zero."""
    silent = copy.deepcopy(module)
    with torch.no_grad():
        for path, indices in columns.items():
            layer = silent.get_submodule(path)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            scale = weight.new_ones(weight.shape[1] * getattr(layer, "groups", 1))
            scale[torch.as_tensor(indices, dtype=torch.long)] = 0
            weight.mul_(as_columns(layer, scale))
    return silent


def as_columns(layer: nn.Module, scale: Tensor) -> Tensor:
    """Return a factor for each input channel in the shape that multiplies the columns of a layer's weight.

    ``scale`` is [input channels].
    """
    weight: Tensor = layer.weight  # type: ignore[assignment]
    split = getattr(layer, "groups", 1)
    if split > 1:  # [out, in / groups, ...]: the rows of each group read the channels of that group
        scale = scale.view(split, -1).repeat_interleave(weight.shape[0] // split, dim=0)
        return scale.view(*scale.shape, *[1] * (weight.dim() - 2))
    return scale.view(1, -1, *[1] * (weight.dim() - 2))


def randomised(module: nn.Module) -> nn.Module:
    """Return a copy with random weights in which every channel matters: no gain is zero, no two layers are equal."""
    drawn = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in drawn.modules():
            for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
                persistent = name not in part._non_persistent_buffers_set
                if tensor is None or not tensor.is_floating_point() or not persistent:
                    continue
                if isinstance(part, CONV_LINEAR) and name == "weight":
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in(part, tensor)) ** 0.5)
                else:
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return drawn
