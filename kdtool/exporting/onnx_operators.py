"""Tell whether another program changed an ONNX file that kdtool wrote: such a file keeps the metadata.

Python's standard library suffices, as for the other files that measure.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kdtool.exporting.onnx_limits import GRAPH, MODEL, NODE
from kdtool.exporting.protobuf_wire import Wire
from kdtool.utils.progress import say

OPERATORS = "kdtool.operators"
"""The entry of a file's metadata by which it is known whether its operators are those that kdtool wrote."""

STRUCTURE = "kdtool.structure"
"""The entry of a file's metadata that tells networks of other structure apart."""

PRECISION = "kdtool.precision"
"""The entry of a file's metadata that says its precision, if it is not float32."""

UNKNOWN = "unknown"
"""The precision of a file that was changed."""


def operators(names: Iterable[str]) -> str:
    """Return 16 hexadecimal digits that depend on the names of a graph's operators, in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def believed(path: Path, metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Return the metadata of a file that `check_file` accepts, without those that another program made untrue.

    If the operators are not those that kdtool wrote, that is said, the precision is `UNKNOWN`, and the structure and
    the accuracy are left out.

    Raises:
        Error: the file was damaged since it was checked.
    """
    if OPERATORS not in metadata or metadata[OPERATORS] == operators(_operators_in(path)):
        return metadata
    say(f"{path}: was changed after kdtool export; what it tells of its accuracy and precision is not believed")
    gone = (OPERATORS, STRUCTURE, "kdtool.metrics")
    return {**{name: text for name, text in metadata.items() if name not in gone}, PRECISION: UNKNOWN}


def _operators_in(path: Path) -> Iterator[str]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        wire = Wire(path, descriptor)
        size = os.fstat(descriptor).st_size
        for graph in _fields(wire, (0, size), MODEL["graph"]):
            for node in _fields(wire, graph, GRAPH["node"]):
                yield from (wire.text(*name) for name in _fields(wire, node, NODE["op_type"]))
    finally:
        os.close(descriptor)


def _fields(wire: Wire, place: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the fields of a number in the message at a place."""
    return ((begin, end) for number, begin, end in wire.message(*place) if number == wanted and end >= 0)
