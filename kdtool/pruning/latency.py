"""Remove channels until a given fraction of the latency in onnxruntime is gone.

The latency of a network cannot be computed from its MACs, so that candidates are exported and measured.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from kdtool.errors import Error
from kdtool.exporting.baseline import RelativeLatency
from kdtool.exporting.exporter import Exporter, check_measurable, exporter_of_suffix
from kdtool.models.architecture import Network
from kdtool.plugins.method_code import MethodError
from kdtool.plugins.registry import make
from kdtool.surgery.channels.remove import Removal, remove_channels
from kdtool.utils.progress import progress

TRIES = 7
"""How many candidates are measured at most; each costs a removal, an export and seconds of running both files."""

TOLERANCE = 0.01
"""The search ends this close to the requested fraction; two sessions of the same file differ by as much."""


def remove_latency(network: Network, *, ratio: float, exporter: Exporter | None = None, **how: Any) -> Removal:
    """Return a copy of the network without its least important channels, with about ``ratio`` of its latency removed.

    The latency is measured in turn with the whole network, in onnxruntime: with the ``provider``, ``threads`` and
    ``batch`` of the exporter, by default for one image on one thread of this CPU. Bisect the fraction of MACs to
    remove; ``how`` are further arguments of `remove_channels`.

    Raises:
        UsageError: the exporter does not tell how to measure here.
        Error: no channels of this network can be removed.
    """
    exporter = exporter or make("exporters", exporter_of_suffix(".onnx").name)
    check_measurable(exporter)
    latency = RelativeLatency(exporter, network)
    low, high = 0.0, 1.0
    best: Removal | None = None
    failed = None
    with progress("latency", TRIES) as advance:
        for _ in range(TRIES):
            # The latency falls roughly with the MACs, so the first guess is the requested fraction itself.
            fraction = ratio if (low, high) == (0.0, 1.0) else (low + high) / 2
            try:
                removal = remove_channels(network, ratio=fraction, of="macs", **how)
            except MethodError:
                raise
            except Error as error:
                low, failed = fraction, error  # too little for any layer to lose ``round_to`` channels
                advance()
                continue
            removed = 1 - latency.of(removal.network)
            timed = dataclasses.replace(removal, of="latency", asked=ratio, removed=removed)
            if best is None or abs(removed - ratio) < abs(best.removed - ratio):
                best = timed
            if abs(removed - ratio) <= TOLERANCE or (removal.capped and removed < ratio):
                break
            low, high = (fraction, high) if removed < ratio else (low, fraction)
            advance()
    if best is None:
        assert failed is not None
        raise failed
    return best
