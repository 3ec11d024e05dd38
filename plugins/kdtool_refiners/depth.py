"""Drop residual blocks, as for the students of Kulkarni et al. (2019) and the halved networks of IKD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import option
from kdtool.surgery import InheritingRefiner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdtool import Network


class Depth(InheritingRefiner):
    """Drop blocks from the stages of the network."""

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
        from kdtool.surgery import drop_blocks

        return drop_blocks(network, keep=self.keep, blocks=self.blocks, times=self.times, init=self.init)
