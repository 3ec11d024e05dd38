"""Accelerating Sparse Deep Neural Networks (Mishra et al., 2021, arXiv:2104.08378): 2:4 sparsity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdtool import Error, Pruner

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class TwoFour(Pruner):
    """Set two of every four neighbouring weights to zero, as sparse tensor cores want it, then retrain the rest.

    The four are neighbours along a layer's input channels, at one output and one position of the kernel; the two with
    the least |w| go. Layers whose number of inputs is no multiple of four stay as they are.
    """

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a pruned and retrained copy."""
        from kdtool.pruning import apply_masks
        from kdtool.training import prunable

        weights = prunable(network.module)
        masks = {name: two_of_four(weight) for name, weight in weights.items() if weight.shape[1] % 4 == 0}
        if not masks:
            raise Error(f"2:4: no layer of {network.architecture.spec} has a multiple of four inputs")
        total = sum(weight.numel() for weight in weights.values())
        gone = sum(int((~mask).count_nonzero()) for mask in masks.values())
        left = [name.removesuffix(".weight") for name in weights if name not in masks]
        reached = {"of": "weights", "asked": 0.5, "removed": round(gone / total, 4)}
        if left:
            reason = f"{', '.join(left[:3])}{', ...' if left[3:] else ''} have no multiple of four inputs"
            reached["capped"] = reason
        run.record(reached=reached)
        run.keep_zeros()
        return self.retrain(run, apply_masks(network, masks), teacher)


def two_of_four(weight: Tensor) -> Tensor:
    """Return a mask for a weight [outputs, inputs, ...], False for two of every four neighbouring inputs."""
    import torch

    fours = weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, 4))
    kept = torch.zeros_like(fours, dtype=torch.bool)
    kept.scatter_(-1, fours.argsort(dim=-1, stable=True, descending=True)[..., :2], True)
    return kept.flatten(-2).movedim(-1, 1)
