"""Reach a budget with width and depth together, like compound scaling (Tan and Le, 2019, arXiv:1905.11946)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Budget, UsageError, option
from kdtool.surgery import InheritingRefiner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdtool import Network


ROUND_TO = 8
"""The multiple of widths in `WidthDepth.ladders`, less in narrow networks; with 16 few sizes are near a budget."""


class WidthDepth(InheritingRefiner):
    """Drop blocks and narrow layers until a budget is met.

    To reach x times the size, dropped blocks bring x ** depth_share, as closely as whole blocks allow, and narrower
    layers bring the rest. In a network without stages of blocks, only the layers become narrower.
    """

    also_called: ClassVar[tuple[str, ...]] = ("compound", "scale", "budget")

    target_macs: Budget | None = option(None, help="multiply-accumulates of the result: 0.25x of the network's, or 90M")
    target_params: Budget | None = option(None, help="parameters of the result: 0.25x of the network's, or 0.8M")
    depth_share: float = option(
        0.5, minimum=0, maximum=1, help="share of the reduction that dropped blocks bring; 0: only width, 1: only depth"
    )
    round_to: int = option(1, minimum=1, help="round widths up to multiples of this")

    def __post_init__(self) -> None:
        """Check that exactly one budget is given."""
        super().__post_init__()
        if self.target_macs is not None and self.target_params is not None:
            raise UsageError("--target-macs and --target-params are two budgets; give one")
        if self.target_macs is None and self.target_params is None:
            raise UsageError(f"{self.name} needs a budget: --target-macs 0.25x, or --target-params 0.25x")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return budgets of MACs in steps of a 128th of the network's; widths are multiples of what runs fast."""
        from kdtool.pruning import round_to

        common = {"round_to": min(ROUND_TO, round_to(network))}
        return [[{**common, "target_macs": f"{step / 128:.4f}x"} for step in range(126, 1, -1)]]

    def refine(self, network: Network) -> Network:
        """Return a network within the budget, as close to it as whole blocks and channels allow."""
        from kdtool.surgery import reach_budget

        budget, count = (self.target_macs, "macs") if self.target_macs else (self.target_params, "parameters")
        assert budget is not None
        return reach_budget(
            network, budget, count=count, depth_share=self.depth_share, round_to=self.round_to, init=self.init
        )
