"""Weights that a pruner set to zero, and the callback that keeps them zero while a network is trained."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from kdtool.models.used_weights import computed_weights
from kdtool.training.callback import Callback

if TYPE_CHECKING:
    from kdtool.training.step import Step

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def prunable(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of convolutions and linear layers by name, without biases and norms.

    A weight that several layers share has the name of the first one. Layers that compute the weights that they use are
    left out (see `unprunable`): zeros of their parameters would be no zeros of these weights.
    """
    computed = computed_weights(module)
    weights: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, layer in module.named_modules():
        if isinstance(layer, _LAYERS) and name not in computed and id(layer.weight) not in known:
            known.add(id(layer.weight))
            weights[f"{name}.weight" if name else "weight"] = layer.weight.detach()
    return weights


def unprunable(module: nn.Module) -> dict[str, int]:
    """Return the layers that compute the weights that they use: by path, how many weights they use.

    A parameter that several of them share counts for the first one.
    """
    sizes: dict[str, int] = {}
    known: set[int] = set()
    for name, weight in computed_weights(module).items():
        layer = module.get_submodule(name)
        if isinstance(layer, _LAYERS):
            own = [parameter for key, parameter in layer.named_parameters() if key != "bias"]
            size = weight.numel() if weight is not None else max((tensor.numel() for tensor in own), default=0)
            sizes[name] = 0 if any(id(tensor) in known for tensor in own) else size
            known.update(map(id, own))
    return sizes


def sparsity(module: nn.Module, chosen: Collection[str] | None = None) -> float:
    """Return the fraction (0..1) of the weights of all convolutions and linear layers that is zero.

    With ``chosen`` only the layers of these paths count. In layers that compute the weights that they use, none counts
    as zero.
    """
    weights = [
        weight for name, weight in prunable(module).items() if chosen is None or name.removesuffix(".weight") in chosen
    ]
    computed = sum(size for path, size in unprunable(module).items() if chosen is None or path in chosen)
    zeros = sum(weight.numel() - int(weight.count_nonzero()) for weight in weights)
    return zeros / max(1, sum(weight.numel() for weight in weights) + computed)


class HoldZeros(Callback):
    """Keep the weights zero that are zero when the phase begins.

    A layer whose weights are all zero was initialised so and not pruned: it is free to learn.
    """

    reads_step: ClassVar[bool] = False
    recordable: ClassVar[bool] = True

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Remember where the zeros of the module's convolutions and linear layers are."""
        masks = {name: weight != 0 for name, weight in prunable(module).items()}
        self.masks = {name: mask.float() for name, mask in masks.items() if mask.any() and not mask.all()}

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Set these weights to zero again, in place."""
        if not self.masks:
            return
        weights: list[Tensor] = [module.get_parameter(name) for name in self.masks]
        with torch.no_grad():
            torch._foreach_mul_(weights, [*self.masks.values()])
