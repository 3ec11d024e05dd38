"""Export a network once in a process, however often its file is asked for.

A comparison exports what an export has just written, and each student of a series is compared with the same teacher.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool.models import behaviour
from kdtool_exporters.onnx_disk import write_errors
from kdtool_exporters.onnx_model import frozen, set_metadata, write
from kdtool_exporters.onnx_parity import check_parity
from kdtool_exporters.onnx_session import open_file

if TYPE_CHECKING:
    from kdtool import Network

MOST_KEPT = 8
"""The largest number of files that are kept."""

MOST_BYTES = 1 << 30
"""The most that all kept files hold."""


@dataclass
class _Export:
    """The file of a network without metadata, and its parity if that was checked."""

    folder: tempfile.TemporaryDirectory[str]
    file: Path
    parity: dict[str, Any] | None = None


_kept: dict[tuple[str, int], _Export] = {}
"""The exports of this process by what was exported, the latest last; they are deleted when it ends."""


def write_once(
    network: Network,
    path: Path,
    *,
    opset: int,
    metadata: Mapping[str, str] | Callable[[Path], Mapping[str, str]],
    output: Path,
    check: bool = True,
) -> dict[str, Any] | None:
    """Write a network as ``path`` with ``metadata``, and return the parity of the file, or None without ``check``.

    ``metadata`` may be a function that is given a file of the network without metadata, to measure it. The network is
    exported and checked only if this process has not done so with the same ``opset``. A file whose weights are in a
    second file is not kept. ``output`` is the name of the result in an error.

    Raises:
        kdtool.Error: the network cannot be exported, its file does not give its outputs, or cannot be written.
    """
    key = behaviour(network), opset
    export = _kept.pop(key, None)
    if export is None:
        with write_errors(output):
            folder = tempfile.TemporaryDirectory(prefix="kdtool-onnx-")
        export = _Export(folder, Path(folder.name) / path.name)
        with write_errors(output):
            write(frozen(network.module), network.architecture, export.file, opset=opset, metadata={})
    if check and export.parity is None:
        session = open_file(export.file, network.architecture.spec)
        export.parity = check_parity(session, frozen(network.module), network.architecture)
    told = metadata(export.file) if callable(metadata) else metadata
    with write_errors(output):
        set_metadata(export.file, path, told)
        others = [file for file in Path(export.folder.name).iterdir() if file != export.file]
        for file in others:
            os.replace(file, path.parent / file.name)
    if not others:
        _keep(key, export)
    return export.parity if check else None


def _keep(key: tuple[str, int], export: _Export) -> None:
    _kept[key] = export
    while len(_kept) > MOST_KEPT or sum(kept.file.stat().st_size for kept in _kept.values()) > MOST_BYTES:
        _kept.pop(next(iter(_kept))).folder.cleanup()
