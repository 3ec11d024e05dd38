"""Ask a refiner for a smaller network, and hold it to that."""

from __future__ import annotations

import torch

from kdtool.architecture import Network
from kdtool.errors import Error
from kdtool.methods import Refiner
from kdtool.seeds import derive
from kdtool.structure.size import measure


def refined(refiner: Refiner, network: Network, *seed: object) -> Network:
    """Return the refiner's network, whose fresh weights depend on ``seed`` alone.

    Raises:
        Error: the network cannot be made smaller this way.
    """
    torch.manual_seed(derive("refine", *seed))
    smaller = refiner.refine(network)
    if refiner.must_shrink and measure(smaller)["parameters"] >= measure(network)["parameters"]:
        raise Error(
            f"{network.architecture.spec}: {refiner.name} makes it no smaller (every width is at its least"
            ", or there is nothing left to drop); use another refiner or fewer iterations"
        )
    return smaller
