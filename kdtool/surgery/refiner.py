"""The contract of a refiner, and the call that holds a refiner to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool.errors import Error
from kdtool.plugins.method import Method
from kdtool.plugins.options import option
from kdtool.utils.seeds import derive

if TYPE_CHECKING:
    from kdtool.models.architecture import Network


class Refiner(Method):
    """Make a smaller structure of a network."""

    kind: ClassVar[str] = "refiners"
    must_shrink: ClassVar[bool] = True
    """Whether a result that is no smaller is an error; not so where the user names the result."""

    init: str = option(
        "fresh",
        choices=("fresh", "inherit"),
        help="start from fresh weights, or from the kept part of the old ones",
    )

    def refine(self, network: Network) -> Network:
        """Return a smaller network; the given one is left as it is.

        Raises:
            kdtool.Error: this network cannot be made smaller this way; nothing was changed.
        """
        raise NotImplementedError


def refined(refiner: Refiner, network: Network, *seed: object) -> Network:
    """Return the refiner's network, whose fresh weights depend on ``seed`` alone.

    Raises:
        Error: the network cannot be made smaller this way.
    """
    import torch

    from kdtool.models.size import measure

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("refine", *seed))
        smaller = refiner.refine(network)
    if refiner.must_shrink and measure(smaller)["parameters"] >= measure(network)["parameters"]:
        raise Error(
            f"{network.architecture.spec}: {refiner.name} makes it no smaller (every width is at its least"
            ", or there is nothing left to drop); use another refiner or fewer iterations"
        )
    return smaller
