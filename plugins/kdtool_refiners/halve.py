"""Halve the widths of all layers, as iterative distillation does (Yalburgi et al., 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdtool import Refiner, option

if TYPE_CHECKING:
    from kdtool import Network


class Halve(Refiner):
    """Make all layers half as wide, by slicing."""

    times: int = option(1, minimum=1, help="how many times in a row")
    ratio: float = option(0.5, above=0, below=1, help="width of the result over the width before")
    round_to: int = option(1, minimum=1, help="round widths up to multiples of this")

    scope: str = option("all", choices=("all", "inner"), help="all widths, or only those inside of residual blocks")

    def refine(self, network: Network) -> Network:
        """Return a network with ``ratio`` of every width, ``times`` times over."""
        from kdtool.surgery import halve_widths

        return halve_widths(
            network,
            ratio=self.ratio,
            round_to=self.round_to,
            times=self.times,
            init=self.init,
            scope=self.scope,
        )
