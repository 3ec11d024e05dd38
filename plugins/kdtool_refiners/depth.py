"""Drop residual blocks, as for the students of Kulkarni et al. (2019) and the halved networks of IKD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import option
from kdtool.surgery import InheritingRefiner, LayerOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdtool import Network


class Depth(LayerOptions, InheritingRefiner):
    """Drop blocks from the stages of the network.

    ``only`` and ``skip`` choose the blocks that may go; the others stay, beside the first of each stage.
    """

    also_called: ClassVar[tuple[str, ...]] = ("layers", "blocks", "shallow", "shallower")

    times: int = option(1, minimum=1, help="how many times to halve the blocks of every stage")
    keep: tuple[int, ...] | None = option(None, minimum=1, help="blocks to keep in each stage, such as 1,1,2,2")
    blocks: int | None = option(None, minimum=1, help="blocks to keep in all stages together")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return the numbers of blocks to keep, from all but one to one in each stage."""
        from kdtool.surgery import stages

        found = stages(network.module, network.architecture.input)
        whole = sum(len(stage.blocks) for stage in found)
        return [[{"blocks": blocks} for blocks in range(whole - 1, len(found) - 1, -1)]] if found else []

    def refine(self, network: Network) -> Network:
        """Return a network with fewer blocks in its stages."""
        from kdtool.surgery import drop_blocks, stages

        stay: list[str] = []
        if self.restricts:
            found = stages(network.module, network.architecture.input)
            blocks = [block for stage in found for block in stage.blocks]
            chosen = self.chosen(blocks, network.architecture.spec)
            stay = [block for block in blocks if block not in chosen]
            self.tell_left(stay, "blocks")
        return drop_blocks(network, keep=self.keep, blocks=self.blocks, times=self.times, init=self.init, stay=stay)
