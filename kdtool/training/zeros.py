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

# Layers that keep several weights, such as in_proj_weight and weight_ih_l0, as parameters of their own.
_INNER = (nn.MultiheadAttention, nn.RNNBase)


def prunable(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of convolutions, linear layers, attention and recurrent layers by name.

    Biases and norms are left out. A weight that several layers share has the name of the first one. Layers that compute
    the weights that they use are left out, too (see `unprunable`): zeros of their parameters would be no zeros of these
    weights.
    """
    computed = computed_weights(module)
    weights: dict[str, Tensor] = {}
    known: set[int] = set()
    for path, layer in module.named_modules():
        for name, weight in ({} if path in computed else _weights(layer)).items():
            if id(weight) not in known:
                known.add(id(weight))
                weights[f"{path}.{name}" if path else name] = weight.detach()
    return weights


def _weights(layer: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a layer by their names in it, {} for one that no mask is for."""
    if isinstance(layer, _LAYERS):
        return {"weight": layer.weight}
    own = layer._parameters.items() if isinstance(layer, _INNER) else ()
    return {name: weight for name, weight in own if weight is not None and "weight" in name}


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
    """Return the fraction (0..1) of zeros among the weights that `prunable` has.

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

    def __init__(self, module: nn.Module | None = None) -> None:
        """Hold those of ``module``, which learns in the same steps as the student; None: those of the student."""
        self.other = module

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Remember where the zeros of the module's `prunable` weights are."""
        module = module if self.other is None else self.other
        masks = {name: weight != 0 for name, weight in prunable(module).items()}
        self.masks = {name: mask.float() for name, mask in masks.items() if mask.any() and not mask.all()}

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Set these weights to zero again, in place."""
        if not self.masks:
            return
        module = module if self.other is None else self.other
        weights: list[Tensor] = [module.get_parameter(name) for name in self.masks]
        with torch.no_grad():
            torch._foreach_mul_(weights, [*self.masks.values()])
