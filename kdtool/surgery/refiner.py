"""The contract of a refiner, and the function that runs a refiner and checks its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool.errors import Error
from kdtool.plugins.method import Method
from kdtool.plugins.options import option
from kdtool.utils.seeds import seeded

if TYPE_CHECKING:
    from kdtool.models.architecture import Network


class Refiner(Method):
    """Make a smaller structure of a network."""

    kind: ClassVar[str] = "refiners"
    must_shrink: ClassVar[bool] = True
    """Whether a result that is not smaller is an error. False for refiners whose user names the result."""

    init: str = option(
        "fresh",
        choices=("fresh", "inherit"),
        help="start from fresh weights, or from the kept part of the old ones",
    )

    def refine(self, network: Network) -> Network:
        """Return a smaller network; the given network is not changed.

        Raises:
            kdtool.Error: this network cannot be made smaller in this way.
        """
        raise NotImplementedError


def refined(refiner: Refiner, network: Network, *seed: object) -> Network:
    """Return the refiner's network; its fresh weights depend only on ``seed``.

    Raises:
        Error: the network cannot be made smaller in this way.
    """
    from kdtool.models.conversion import plain
    from kdtool.models.size import measure

    network = plain(network)
    with seeded("refine", *seed):
        smaller = refiner.refine(network)
    if refiner.must_shrink and measure(smaller)["parameters"] >= measure(network)["parameters"]:
        raise Error(
            f"{network.architecture.spec}: {refiner.name} makes it no smaller (every width is at its minimum"
            ", or there is nothing left to drop); use another refiner or fewer iterations"
        )
    return smaller
