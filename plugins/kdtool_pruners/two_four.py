"""Accelerating Sparse Deep Neural Networks (Mishra et al., 2021, arXiv:2104.08378): 2:4 sparsity."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Error, Pruner
from kdtool.surgery import LayerOptions

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class TwoFour(LayerOptions, Pruner):
    """Set two of every four neighbouring weights to zero, as sparse tensor cores require, then retrain the rest.

    The four are neighbours along a layer's input channels, at one output and one kernel position; the two with the
    smallest |w| become zero. Layers are not pruned if their number of inputs is not a multiple of four, or if they
    compute the weights that they use (standardised convolutions).
    """

    also_called: ClassVar[tuple[str, ...]] = ("nm", "n:m", "semi-structured", "24", "2in4")

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a pruned and retrained copy."""
        from kdtool.pruning import apply_masks, dense_layers, layers_to_mask
        from kdtool.training import prunable

        layers = layers_to_mask(self, network)
        dense = dense_layers(network, 0.5, layers)
        every = prunable(network.module)
        weights = {name: weight for name, weight in every.items() if name.removesuffix(".weight") in layers}
        masks = {name: two_of_four(weight) for name, weight in weights.items() if weight.shape[1] % 4 == 0}
        if not masks:
            raise Error(f"2:4: no layer of {network.architecture.spec} has a multiple of four inputs; use magnitude")
        total = sum(weight.numel() for weight in weights.values()) + (dense.weights if dense else 0)
        removed = sum(int((~mask).count_nonzero()) for mask in masks.values())
        skipped = [name.removesuffix(".weight") for name in weights if name not in masks]
        reached = {"of": "weights", "asked": 0.5, "removed": round(removed / total, 4)}
        if skipped:
            names = f"{', '.join(skipped[:3])}{', ...' if skipped[3:] else ''}"
            reached["capped"] = f"the number of inputs is not a multiple of four: {names}"
        if dense:
            reached["dense"] = dense.layers
        if len(weights) < len(every):
            reached["left"] = ", ".join(name.removesuffix(".weight") for name in every if name not in weights)
        run.record(reached=reached)
        run.keep_zeros()
        return self.retrain(run, apply_masks(network, masks), teacher)


def two_of_four(weight: Tensor) -> Tensor:
    """Return the mask of a weight [outputs, inputs, ...], False for two of every four neighbouring inputs."""
    import torch

    fours = weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, 4))
    kept = torch.zeros_like(fours, dtype=torch.bool)
    kept.scatter_(-1, fours.argsort(dim=-1, stable=True, descending=True)[..., :2], True)
    return kept.flatten(-2).movedim(-1, 1)
