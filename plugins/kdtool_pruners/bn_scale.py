"""Learning Efficient Convolutional Networks through Network Slimming (Liu et al., 2017, arXiv:1708.06519)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdtool import Callback, ChannelPruner, Error, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run
    from kdtool.surgery import Scores


class BnScale(ChannelPruner):
    """Remove the channels with the smallest scales in batch-norm for good, then retrain the rest (Liu et al., 2017).

    s_j = |gamma_j|, compared over the whole network; the mean where a channel goes through several batch-norms.
    Channels that go through none stay. The paper trains the network with lambda * sum |gamma| added to its loss
    before, so that the scales of what is not needed become small: ``--sparse-epochs`` says for how long.
    """

    sparse_epochs: int = option(0, minimum=0, help="train so many epochs with the penalty on the scales, before")
    penalty: float = option(1e-4, above=0, help="weight lambda of that penalty")

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a smaller, retrained copy."""
        if not scales(network.module):
            raise Error(f"bn-scale: {network.architecture.spec} has no batch-norm with scales; use filter-l1")
        if self.sparse_epochs:
            longer = run.with_training(epochs=self.sparse_epochs)
            network = longer.fit("sparse", network, callbacks=[ScalePenalty(self.penalty)]).network
        return super().prune(run, network, teacher)

    def importance(self, run: Run, network: Network) -> Scores:
        """Return the scales."""
        return scales_of


class ScalePenalty(Callback):
    """Add lambda * sum |gamma| over all batch-norms to the loss, equation 1 of the paper."""

    def __init__(self, weight: float) -> None:
        """Weight the sum with ``weight``, the paper's lambda."""
        self.weight = weight

    def penalty(self, module: nn.Module) -> Tensor:
        """Return the penalty, a scalar tensor."""
        import torch

        return self.weight * torch.stack([scale.abs().sum() for scale in scales(module)]).sum()


def scales(module: nn.Module) -> list[Tensor]:
    """Return gamma of every batch-norm that has one."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return [part.weight for part in module.modules() if isinstance(part, _BatchNorm) and part.affine]


def scales_of(group: Any) -> Tensor | None:
    """Return |gamma| of each channel, averaged over the batch-norms that it goes through; None where it is in none."""
    import torch

    from kdtool.surgery import over_norms

    def score(path: str, layer: Any) -> Tensor:
        return layer.weight.detach().abs() if layer.affine else torch.ones(layer.num_features)

    return over_norms(group, score)
