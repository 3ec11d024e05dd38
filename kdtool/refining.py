"""Ask a refiner for a smaller network, and hold it to that."""

from __future__ import annotations

import copy

import torch

from kdtool.architecture import Network, skeleton
from kdtool.errors import Error
from kdtool.methods import Refiner
from kdtool.seeds import derive
from kdtool.structure.fresh import fill
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


def anew(network: Network) -> Network:
    """Return a network of the same structure whose weights are drawn under the current random state."""
    module = copy.deepcopy(network.module)
    fill(module, skeleton(network.architecture))
    return Network(network.architecture, module)
