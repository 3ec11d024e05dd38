"""Halve the widths of all layers, as iterative distillation does (Yalburgi et al., 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import option
from kdtool.surgery import InheritingRefiner, LayerOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdtool import Network


class Halve(LayerOptions, InheritingRefiner):
    """Halve the width of every layer.

    With ``only`` or ``skip``, the other layers keep their widths, and so do layers whose channels go with theirs, as
    the layers that are added in a stage of residual blocks; a layer behind a narrower one reads fewer channels.
    """

    also_called: ClassVar[tuple[str, ...]] = ("width", "narrow", "0.5", "0.5x", "half-width")

    times: int = option(1, minimum=1, help="how many times to do this in a row")
    ratio: float = option(0.5, above=0, below=1, help="new width over old width")
    round_to: int = option(1, minimum=1, help="round widths up to multiples of this")
    scope: str = option("all", choices=("all", "inner"), help="all widths, or only those inside residual blocks")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return ratios of all widths, and ratios of those inside residual blocks, in steps of a 64th.

        Widths are multiples of what runs fast.
        """
        from kdtool.pruning import round_to

        common = {"round_to": round_to(network)}
        ratios = [step / 64 for step in range(63, 1, -1)]
        return [[{**common, "ratio": ratio, "scope": scope} for ratio in ratios] for scope in ("all", "inner")]

    def refine(self, network: Network) -> Network:
        """Return a network with every width multiplied by ``ratio``, ``times`` times."""
        from kdtool.surgery import halve_widths, widths_of

        inside = None
        if self.restricts:
            inside, left = widths_of(network, self)
            self.tell_left(left)
        return halve_widths(
            network,
            ratio=self.ratio,
            round_to=self.round_to,
            times=self.times,
            init=self.init,
            scope=self.scope,
            inside=inside,
        )
