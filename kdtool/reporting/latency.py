"""The latency of the networks of a report, each measured in turn with the first one."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdtool.reporting.sources import CheckpointSource


def latencies(sources: Sequence[CheckpointSource]) -> dict[str, dict[str, Any]]:
    """Return ``latency_ms`` (the median for one image on one thread) and ``latency_ratio`` of each, by its path.

    The ratio is that of paired samples to the first network, which has 1.0 (see `measure_latency`). The milliseconds of
    the others are those of the first one times the ratio: medians that are measured one after the other differ by what
    else the machine did, and would contradict it.
    """
    from kdtool.commands.inputs import load
    from kdtool.exporting.contained import measure_contained
    from kdtool.exporting.exporter import Exporter, exporter_of_suffix
    from kdtool.plugins.registry import make

    exporter: Exporter = make("exporters", exporter_of_suffix(".onnx").name, latency=False)
    result: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        first: Path | None = None
        milliseconds = 0.0
        for number, source in enumerate(source for source in sources if source.about and source.about["path"]):
            assert source.about is not None
            file = Path(source.about["path"])
            if file.suffix != exporter.suffix:
                checkpoint = load(file)
                file = Path(folder) / f"{number}{exporter.suffix}"
                exporter.export(checkpoint.network, file, metadata={})
            measured = measure_contained(file, first)
            ratio = 1.0 if measured["ratio"] is None else measured["ratio"]
            if first is None:
                first, milliseconds = file, measured["student"]["p50_ms"]
            result[source.about["path"]] = {"latency_ms": milliseconds * ratio, "latency_ratio": ratio}
    return result
