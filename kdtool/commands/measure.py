"""Measure the latency of ONNX files where they are to run.

This module, like those of `kdtool.exporting` that it uses, needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdtool.exporting.measurement import measure_file
from kdtool.plugins.options import Options, option
from kdtool.plugins.places import split


class LatencyOptions(Options):
    """How latency is measured."""

    provider: str = option("cpu", help="what onnxruntime runs networks on")
    threads: int = option(1, minimum=1, help="threads of onnxruntime")
    batch: int = option(1, minimum=1, help="images in a batch")


class MeasureOptions(LatencyOptions):
    """How the latency of files is measured."""

    pairs: int = option(50, minimum=1, help="pairs of samples")
    seconds: float = option(20.0, above=0, help="measure fewer pairs if they would take longer than this")


def measure(*models: str | Path, **options: Any) -> list[dict[str, Any]]:
    """Return the latency of each ONNX file, as plain data; ``options`` are those of `measure_file`.

    Raises:
        UsageError: there is no such file or option, or the installed onnxruntime does not have the provider.
        Error: a file is no classifier of images, or onnxruntime cannot run it.
    """
    (options,) = split(options, MeasureOptions)
    how = MeasureOptions(**options).as_data()
    return [measure_file(model, **how) for model in models]
