"""Prove that a network without some channels is the same as the one in which nobody listens to them."""

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
"""How far two ways to the same outputs may be apart in float32, as a part of the largest."""


class VerifiedSurgery(Surgery):
    """Cuts copies of one network whose outputs are those of the network with zeros for the cut channels' weights."""

    def __init__(self, network: Network, original: nn.Module, limits: Limits) -> None:
        super().__init__(network, original, limits)
        shape = network.architecture.input
        self.images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))

    def without(self, chosen: Sequence[tuple[Ranked, int]]) -> nn.Module | None:
        """Return a copy without the chosen channels, or None where it is not the same as silencing them."""
        module = super().without(chosen)
        if module is None:
            return None
        lost: dict[str, list[Tensor]] = defaultdict(list)
        for one, step in chosen:
            gone = one.lost(step)
            for member in one.group.members:
                if member.role == "inputs":
                    lost[member.path].append(member.channels[torch.isin(member.roots, gone)])
        silent = silenced(self.original, {path: torch.cat(found) for path, found in lost.items()})
        try:
            with torch.no_grad():
                if agree(silent(self.images), module(self.images)):
                    return module
            self.reason = "what else it computes of its channels (a norm over them, say) changes with their number"
        except FAILURES as error:
            self.reason = first_line(error)
        return None


def agree(ours: Tensor, theirs: Tensor) -> bool:
    """Whether outputs are the same but for rounding."""
    return bool((ours - theirs).abs().max() <= ROUNDING * theirs.abs().max())


def silenced(module: nn.Module, columns: Mapping[str, Iterable[int] | Tensor]) -> nn.Module:
    """Return a copy in which the layers at these paths do not listen to these of their input channels."""
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
    """Return a factor for each input channel in the shape that multiplies the columns of a layer's weight."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    split = getattr(layer, "groups", 1)
    if split > 1:  # [out, in / groups, ...]: the rows of a group read its own channels
        scale = scale.view(split, -1).repeat_interleave(weight.shape[0] // split, dim=0)
        return scale.view(*scale.shape, *[1] * (weight.dim() - 2))
    return scale.view(1, -1, *[1] * (weight.dim() - 2))


def randomised(module: nn.Module) -> nn.Module:
    """Return a copy whose every channel counts: no gain is zero, and no two layers are alike."""
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
