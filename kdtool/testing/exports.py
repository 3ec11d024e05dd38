"""The check of what an exporter writes and returns."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kdtool.commands.history import public_content
from kdtool.exporting.exporter import GROUPS, Exporter
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.testing.require import failing, require

_IMAGES = 16


def check_export(exporter: Exporter, network: Network) -> None:
    """Check that an exporter writes what it declares and nothing else, and returns measurements as plain data."""
    name, extra = exporter.name, _extra(exporter, network)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / f"network{exporter.suffix}"
        with failing(f"{name}: export() fails"):
            measured = exporter.export(network, output, metadata={"kdtool.classes": json.dumps(["a", "b"])}, **extra)
        written = output.is_dir() if exporter.folder else output.is_file() and output.stat().st_size > 0
        require(written, f"{name}: did not write {output.name}")
        companions = [output.with_suffix(suffix) for suffix in exporter.companions]
        missing = [path.name for path in companions if not path.is_file()]
        require(not missing, f"{name}: did not write {', '.join(missing)}, which its companions name")
        own = {path.name for path in (output, *companions)}
        others = sorted(path.name for path in Path(scratch).iterdir() if path.name not in own)
        require(not others, f"{name}: left {', '.join(others)} beside its file")
    _check_measurements(name, measured)


def _extra(exporter: Exporter, network: Network) -> dict[str, Any]:
    """Return the further arguments that an exporter asks for, as `kdtool export` gives them."""
    extra: dict[str, Any] = {}
    if exporter.uses_validation:
        images = torch.rand(_IMAGES, *network.architecture.input, generator=torch.Generator().manual_seed(0))
        extra["val"] = [(images, torch.arange(_IMAGES) % network.architecture.classes)]
    if exporter.uses_content:
        extra["content"] = public_content(Checkpoint(network))
    return extra


def _check_measurements(name: str, measured: Any) -> None:
    mapping = isinstance(measured, Mapping)
    require(mapping, f"{name}: export() returned {type(measured).__name__}, not measurements by name")
    for key in GROUPS:  # `kdtool export` reads what they hold
        value = measured.get(key)
        fits = value is None or isinstance(value, Mapping)
        require(fits, f"{name}: its {key} is {value!r}; it must be numbers by name, or None")
    with failing(f"{name}: its measurements are not plain data"):
        json.dumps(measured)
