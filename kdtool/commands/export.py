"""Hand a checkpoint over in another format, with what it costs to run beside its teacher."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from kdtool.commands.history import public_line
from kdtool.commands.inputs import data_for, load
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Architecture, Network, build
from kdtool.models.checkpoint import Checkpoint, fingerprint, read
from kdtool.models.size import measure
from kdtool.plugins.registry import make
from kdtool.utils.files import beside, check_output, slug
from kdtool.utils.progress import say


def export(
    checkpoint: str | Path | Checkpoint,
    method: str = "onnx",
    *,
    output: str | Path | None = None,
    force: bool = False,
    against: str | Path | Checkpoint | None = None,
    data_dir: str | Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write a network in another format and return what was measured, as plain data.

    The latency is compared with ``against``, by default the checkpoint's first teacher: its file where that still
    lies there unchanged, else the same network rebuilt without its weights. Where the data set is at hand, the
    accuracy of the written file on the test split is measured too.

    Raises:
        Error: the network cannot be written, or the file does not give the network's outputs; nothing is written.
    """
    found = load(checkpoint)
    exporter = make("exporters", method, **options)
    named_after = found.path or Path(f"{slug(found.architecture.name)}.pt")
    target = Path(output) if output is not None else beside(named_after, exporter.suffix)
    if target.suffix != exporter.suffix:
        raise UsageError(f"-o {target}: the name of a {method} file ends in {exporter.suffix}")
    check_output(target, force=force)
    teacher, described = _teacher(found, against)
    result: dict[str, Any] = exporter.export(
        found.network,
        target,
        metadata=_metadata(found),
        teacher=teacher,
        test=_test_batches(found, Path(data_dir) if data_dir else None),
    )
    size = measure(found.network)
    return {
        "checkpoint": str(found.path) if found.path else found.architecture.spec,
        "against": described,
        **size,
        "compression": found.compression(size["parameters"]),
        **result,
    }


def _metadata(found: Checkpoint) -> dict[str, str]:
    """What a user of the file needs to feed it, and how it was made, without paths of this machine."""
    about = {
        "kdtool.source": found.architecture.spec,
        "kdtool.input": json.dumps(found.architecture.input),
        "kdtool.history": json.dumps([public_line(entry["line"]) for entry in found.history]),
    }
    if found.data is not None:
        about |= {
            "kdtool.classes": json.dumps(list(found.data.classes)),
            "kdtool.mean": json.dumps(list(found.data.mean)),
            "kdtool.std": json.dumps(list(found.data.std)),
        }
    return about


def _teacher(found: Checkpoint, against: str | Path | Checkpoint | None) -> tuple[Network | None, str | None]:
    """Return the network to compare with, and how to speak of it."""
    if against is not None:
        other = load(against)
        return other.network, str(other.path) if other.path else other.architecture.spec
    if len(found.history) < 2:
        return None, None
    first, second = found.history[:2]
    given = next(entry for entry in second["inputs"] if entry["role"] == "checkpoint")
    recorded = Path(given["path"])
    places = [recorded] if found.path is None else [recorded, found.path.parent / recorded.name]
    for place in places:
        if place.is_file():
            try:
                candidate = read(place)
            except Error:
                continue
            if fingerprint(candidate.module.state_dict()) == given["weights"]:
                return candidate.network, str(place)
    if "architecture" not in first:
        return None, None
    architecture = Architecture.from_data(first["architecture"])
    return Network(architecture, build(architecture)), f"{architecture.spec}, rebuilt without its weights"


def _test_batches(found: Checkpoint, data_dir: Path | None) -> Iterator[tuple[Tensor, Tensor]] | None:
    """Return the test split's batches, or None where the data set is not at hand."""
    if found.data is None:
        return None
    try:
        test = data_for(found, {"data_dir": data_dir} if data_dir else {}).test
    except Error as error:
        say(f"the file's accuracy is not measured: {error}")
        return None
    if test is None:
        return None
    return ((images, labels) for _, images, labels in test.batches(64))
