"""Weights that a pruner set to zero, and the callback that keeps them zero while a network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdtool.training.callback import Callback

if TYPE_CHECKING:
    from kdtool.training.step import Step


def prunable(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of all convolutions and linear layers by name, without biases and norms."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return {
        f"{name}.weight" if name else "weight": layer.weight.detach()
        for name, layer in module.named_modules()
        if isinstance(layer, layers)
    }


def sparsity(module: nn.Module) -> float:
    """Return the fraction (0..1) of the `prunable` weights that is zero."""
    weights = prunable(module).values()
    nonzero = sum(int(weight.count_nonzero()) for weight in weights)
    return 1 - nonzero / max(1, sum(weight.numel() for weight in weights))


class HoldZeros(Callback):
    """Keep the weights zero that are zero when the phase begins.

    A layer whose weights are all zero was initialised so and not pruned: it is free to learn.
    """

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
