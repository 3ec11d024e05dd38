"""Pruning Filters for Efficient ConvNets (Li, Kadav, Durdanovic, Samet and Graf, 2017, arXiv:1608.08710)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Pruner, hookimpl, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class FilterL1(Pruner):
    """Remove the filters with the smallest L1 norms for good, then retrain the rest (Li et al., 2017).

    The norm of a filter is the sum of its absolute weights, s_j = sum |F_j|. Filters whose outputs are added go
    together, by the mean of theirs. The paper prunes each layer by a ratio of its own; here the norms, divided by
    their layer's mean, are compared over the whole network, or every layer loses the same part (``scope="layer"``).
    """

    name: ClassVar[str] = "filter-l1"

    ratio: float = option(0.3, above=0, below=1, help="fraction of the size to remove")
    of: str = option("params", choices=("params", "macs", "channels"), help="the size that the ratio is of")
    scope: str = option(
        "global", choices=("global", "layer"), help="what filters are compared with: all, or their layer"
    )
    round_to: int = option(
        16, minimum=1, help="layers keep multiples of this many channels; 16 is what onnxruntime likes"
    )

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a smaller, retrained copy."""
        from kdtool import remove_channels

        removal = remove_channels(
            network, ratio=self.ratio, importance=filter_norms, of=self.of, scope=self.scope, round_to=self.round_to
        )
        run.entry["reached"] = removal.as_data()
        return self.retrain(run, removal.network, teacher)


def filter_norms(group: Any) -> Tensor:
    """Return the L1 norm of each filter relative to its layer's mean, averaged over layers whose outputs are added."""
    import torch
    from torch_pruning.pruner import function

    filters = (function.prune_conv_out_channels, function.prune_linear_out_channels)
    scores = torch.zeros(2, len(group[0].idxs))
    for item in group:
        if item.dep.handler in filters:
            layer = item.dep.target.module
            weight = (
                layer.weight.detach().transpose(0, 1) if getattr(layer, "transposed", False) else layer.weight.detach()
            )
            norms = weight.abs().flatten(1).sum(1)
            found = torch.stack([norms / norms.mean().clamp_min(1e-12), torch.ones_like(norms)])
            scores.index_add_(1, torch.tensor(item.root_idxs), found[:, item.idxs])
    return scores[0] / scores[1]


@hookimpl
def pruners() -> list[type[Pruner]]:
    """Bring the method."""
    return [FilterL1]
