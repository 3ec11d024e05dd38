"""Measure the latency of ONNX files where they are to run.

This module, like those of `kdtool.exporting` that it uses, needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdtool.exporting.measurement import measure_file


def measure(*models: str | Path, **options: Any) -> list[dict[str, Any]]:
    """Return the latency of each ONNX file, as plain data; ``options`` are those of `measure_file`.

    Raises:
        UsageError: there is no such file, or the installed onnxruntime does not have the provider.
        Error: a file is no classifier of images, or onnxruntime cannot run it.
    """
    return [measure_file(model, **options) for model in models]
