"""Channels removed until a part of the time that onnxruntime takes is gone, which no count of operations tells."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from kdtool.errors import Error
from kdtool.exporting.exporter import Exporter, exporter_of_suffix
from kdtool.exporting.latency import measure_latency
from kdtool.models.architecture import Network
from kdtool.plugins.registry import make
from kdtool.surgery.channels.remove import Removal, remove_channels

TRIES = 7
"""A measurement costs a removal, an export and seconds of running both files."""

SECONDS = 10.0

NEAR = 0.01
"""So near to the part that was asked for, no further try is made; two sessions of one file differ by as much."""


def remove_latency(network: Network, *, ratio: float, **how: Any) -> Removal:
    """Return a copy of the network without its least important channels, so that about ``ratio`` of its time is gone.

    The time is that of one image in onnxruntime, on one thread of this machine's CPU, measured beside the network
    itself. By halving intervals it is looked for which part of the MACs has to go; ``how`` is what `remove_channels` is
    told else.

    Raises:
        Error: no channels of this network can be removed.
    """
    spec, exporter = network.architecture.spec, make("exporters", exporter_of_suffix(".onnx").name, latency=False)
    with tempfile.TemporaryDirectory() as scratch:
        whole = _export(exporter, network, Path(scratch) / f"whole{exporter.suffix}")
        low, high = 0.0, 1.0
        best: Removal | None = None
        for _ in range(TRIES):
            # MACs and time go together, so that the first guess is the part itself.
            part = ratio if (low, high) == (0.0, 1.0) else (low + high) / 2
            try:
                found = remove_channels(network, ratio=part, of="macs", **how)
            except Error:
                low = part  # too little for any layer to lose a step of its width
                continue
            file = _export(exporter, found.network, Path(scratch) / f"part{exporter.suffix}")
            gone = 1 - measure_latency(file, whole, seconds=SECONDS)["ratio"]
            timed = dataclasses.replace(found, of="latency", asked=ratio, removed=gone)
            if best is None or abs(gone - ratio) < abs(best.removed - ratio):
                best = timed
            if abs(gone - ratio) <= NEAR or (found.capped and gone < ratio):
                break
            low, high = (part, high) if gone < ratio else (low, part)
    if best is None:
        raise Error(f"{spec}: no channels of it can be removed to save {ratio:.0%} of its time")
    return best


def _export(exporter: Exporter, network: Network, path: Path) -> Path:
    exporter.export(network, path, metadata={})
    return path
