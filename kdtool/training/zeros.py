"""Weights that are zero and stay so while a network is trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def prunable(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of all convolutions and linear layers by name; biases and norms are left alone."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return {
        f"{name}.weight" if name else "weight": layer.weight.detach()
        for name, layer in module.named_modules()
        if isinstance(layer, layers)
    }


def sparsity(module: nn.Module) -> float:
    """Return which part of the weights that can be pruned is zero."""
    weights = prunable(module).values()
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / max(1, sum(one.numel() for one in weights))


class Zeros:
    """Keeps weights zero that are zero now: called with a module after every step of its training.

    A layer that is zero as a whole was made so by its initialisation, and not by a mask: it may learn.
    """

    def __init__(self, module: nn.Module) -> None:
        """Remember where the zeros of a module's convolutions and linear layers are."""
        masks = {name: weight != 0 for name, weight in prunable(module).items()}
        self.masks = {name: mask.float() for name, mask in masks.items() if mask.any() and not mask.all()}

    def __call__(self, module: nn.Module) -> None:
        """Set the weights to zero again, in place."""
        if not self.masks:
            return
        weights: list[Tensor] = [module.get_parameter(name) for name in self.masks]
        # Moved to the module's device once.
        self.masks = {name: self.masks[name].to(one.device) for name, one in zip(self.masks, weights, strict=True)}
        with torch.no_grad():
            torch._foreach_mul_(weights, [*self.masks.values()])


def holding_zeros(module: nn.Module, constraint: Callable[[nn.Module], None] | None) -> Callable[[nn.Module], None]:
    """Return what is called after every step of a module's training: its own constraint, then what holds its zeros."""
    zeros = Zeros(module)

    def both(trained: nn.Module) -> None:
        if constraint is not None:
            constraint(trained)
        zeros(trained)

    return both
