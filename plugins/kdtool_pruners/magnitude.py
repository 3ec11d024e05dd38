"""Magnitude pruning with retraining (Han, Pool, Tran and Dally, 2015, arXiv:1506.02626)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from kdtool import Pruner, hookimpl, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run


class Magnitude(Pruner):
    """Set the smallest weights of the whole network to zero, then retrain the rest (Han et al., 2015).

    Of all n weights of convolutions and linear layers together (biases and norms stay), the round(ratio * n) with the
    least |w| become zero, and stay zero in retraining. Where the network already has zeros they count as removed.
    """

    name: ClassVar[str] = "magnitude"

    ratio: float = option(0.8, above=0, below=1, help="fraction of the weights to remove")

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a pruned and retrained copy."""
        from kdtool import Network

        module = copy.deepcopy(network.module)
        masks = smallest(prunable(module), self.ratio)
        apply_masks(module, masks)
        pruned = Network(network.architecture, module)
        return self.retrain(run, pruned, teacher, constraint=lambda trained: apply_masks(trained, masks))


def prunable(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of all convolutions and linear layers by name."""
    from torch import nn

    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return {
        f"{name}.weight" if name else "weight": layer.weight.detach()
        for name, layer in module.named_modules()
        if isinstance(layer, layers)
    }


def smallest(weights: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """Return a mask for each weight, False for the round(ratio * n) of least magnitude over all of them."""
    import torch

    magnitudes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    removed = magnitudes.argsort(stable=True)[: round(ratio * len(magnitudes))]
    keep = torch.ones(len(magnitudes), dtype=torch.bool)
    keep[removed] = False
    sizes = [weight.numel() for weight in weights.values()]
    return {
        name: mask.view(weight.shape) for (name, weight), mask in zip(weights.items(), keep.split(sizes), strict=True)
    }


def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the masked weights to zero, in place."""
    import torch

    with torch.no_grad():
        for name, mask in masks.items():
            weight = module.get_parameter(name)
            weight.mul_(mask.to(weight.device))


@hookimpl
def pruners() -> list[type[Pruner]]:
    """Bring the method."""
    return [Magnitude]
