"""Begin to round a network that is to be trained, and tell which of its layers do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from kdtool.models.architecture import Network
from kdtool.models.quantisation.fake import calibrate, quantised, quantiser_of, without_quantiser
from kdtool.models.quantisation.places import find_places


def begin_to_round(
    network: Network, images: Iterable[Tensor], skip: Sequence[str] = (), only: Sequence[str] = ()
) -> Network:
    """Return a copy of a network that rounds to 8 bits, with ranges that ``images`` (batches) set.

    The layers that match a pattern of ``skip``, or none of ``only`` if there are any, stay in float.

    Raises:
        UsageError: a pattern matches no layer, or no layer is left.
        Error: the network has no layer that runs in 8 bits.
    """
    network = without_quantiser(network)
    made = quantised(network, find_places(network, skip, only))
    calibrate(made.module, images)
    return made


def quantisation_of(network: Network) -> dict[str, Any]:
    """Return how many layers of a rounding network run in 8 bits, and which stay in float, as plain data."""
    quantiser = quantiser_of(network.module)
    assert quantiser is not None
    places = quantiser.places
    every = find_places(without_quantiser(network))
    left = [name.partition(":")[0] for name in every.weights if name not in places.weights]
    return {"precision": "int8", "layers": len(places.weights), "float_layers": left}
