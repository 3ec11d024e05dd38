"""Remove channels until a given fraction of the latency in onnxruntime is gone.

The latency of a network cannot be computed from its MACs, so that candidates are exported and measured.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kdtool.errors import Error
from kdtool.exporting.exporter import Exporter, check_measurable, exporter_of_suffix
from kdtool.exporting.latency import measure_latency
from kdtool.models.architecture import Network
from kdtool.plugins.registry import make
from kdtool.surgery.channels.remove import Removal, remove_channels
from kdtool.utils.processes import decided

TRIES = 7
"""How many candidates are measured at most; each costs a removal, an export and `SECONDS` of running both files."""

SECONDS = 10.0

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
    spec, exporter = network.architecture.spec, exporter or make("exporters", exporter_of_suffix(".onnx").name)
    check_measurable(exporter)
    where = {name: getattr(exporter, name) for name in ("provider", "threads", "batch") if hasattr(exporter, name)}
    with tempfile.TemporaryDirectory() as scratch:
        whole = _export(exporter, network, Path(scratch) / f"whole{exporter.suffix}")
        low, high = 0.0, 1.0
        best: Removal | None = None
        for _ in range(TRIES):
            # The latency falls roughly with the MACs, so the first guess is the requested fraction itself.
            fraction = ratio if (low, high) == (0.0, 1.0) else (low + high) / 2
            try:
                removal = remove_channels(network, ratio=fraction, of="macs", **how)
            except Error:
                low = fraction  # too little for any layer to lose ``round_to`` channels
                continue
            file = _export(exporter, removal.network, Path(scratch) / f"part{exporter.suffix}")
            removed = 1 - decided(partial(_ratio, file, whole, where))
            timed = dataclasses.replace(removal, of="latency", asked=ratio, removed=removed)
            if best is None or abs(removed - ratio) < abs(best.removed - ratio):
                best = timed
            if abs(removed - ratio) <= TOLERANCE or (removal.capped and removed < ratio):
                break
            low, high = (fraction, high) if removed < ratio else (low, fraction)
    if best is None:
        raise Error(f"{spec}: no channels can be removed to save {ratio:.0%} of its latency; use --of params or macs")
    return best


def _ratio(file: Path, whole: Path, where: Mapping[str, Any]) -> float:
    """Return the latency of a file as a fraction of that of the ``whole`` network."""
    ratio: float = measure_latency(file, whole, seconds=SECONDS, **where)["ratio"]
    return ratio


def _export(exporter: Exporter, network: Network, path: Path) -> Path:
    exporter.draft(network, path)
    return path
