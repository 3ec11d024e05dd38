"""Learning Efficient Convolutional Networks through Network Slimming (Liu et al., 2017, arXiv:1708.06519)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Callback, ChannelPruner, Error, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run
    from kdtool.surgery import Scores


class BnScale(ChannelPruner):
    """Remove the channels with the smallest batch-norm scales, then retrain the smaller network (Liu et al., 2017).

    s_j = |gamma_j|, compared over the whole network; the mean if a channel passes several batch-norms. Channels that
    pass none stay. The paper first trains the network with lambda * sum |gamma| added to its loss, so that the scales
    of unneeded channels become small: ``--sparse-epochs`` sets the number of these epochs.
    """

    also_called: ClassVar[tuple[str, ...]] = ("slim", "slimming", "network-slimming", "batch-norm", "bn")

    sparse_epochs: int = option(
        0, minimum=0, help="epochs of training with a penalty on the scales, before the pruning"
    )
    penalty: float = option(1e-4, above=0, help="weight lambda of the penalty on the scales")

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a smaller, retrained copy."""
        if not scales(network.module):
            raise Error(f"bn-scale: {network.architecture.spec} has no batch-norm with scales; use filter-l1")
        if self.sparse_epochs:
            sparse_run = run.with_training(epochs=self.sparse_epochs)
            network = sparse_run.fit("sparse", network, callbacks=[ScalePenalty(self.penalty)]).network
        return super().prune(run, network, teacher)

    def importance(self, run: Run, network: Network) -> Scores:
        """Return `scales_of`, which scores each channel by its scales."""
        return scales_of


class ScalePenalty(Callback):
    """Add lambda * sum |gamma| over all batch-norms to the loss (equation 1 of the paper)."""

    def __init__(self, weight: float) -> None:
        """Set the weight of the sum, the paper's lambda."""
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
    """Return |gamma| [channels], averaged over the batch-norms that a channel passes; None if there are none."""
    import torch

    from kdtool.surgery import over_norms

    def score(path: str, layer: Any) -> Tensor:
        return layer.weight.detach().abs() if layer.affine else torch.ones(layer.num_features)

    return over_norms(group, score)
