"""Checks of an ONNX file of a stranger before onnxruntime opens it.

The fields are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Weights are skipped, and
nothing but counts is kept. Python's standard library suffices, since `kdtool measure` runs where the package onnx is
not installed.
"""

from __future__ import annotations

import math
import os
import stat
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from kdtool.errors import Error
from kdtool.exporting.protobuf_wire import Wire
from kdtool.utils.formatting import printable

# protobuf itself reads no larger message.
MOST_BYTES = (1 << 31) - 1

# The largest networks of timm have some ten thousand nodes.
MOST_NODES, MOST_NESTED, MOST_DIMENSIONS = 200_000, 8, 32

# Sparse weights become whole tensors in memory; these are 1 GiB of float32.
MOST_SPARSE_ELEMENTS = 1 << 28

METADATA_BYTES = 64 << 20

# The operators that onnxruntime brings along. Those of other domains are in libraries, which kdtool does not load.
DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
)

# Nodes that name files or libraries of their own.
COMPILED = frozenset({"EPContext"})

# With this location onnxruntime takes the offset for an address in its memory.
ADDRESS = "_ORT_MEM_ADDR_"

EXTERNAL = 1

# The numbers of the fields that are looked at (onnx.proto).
MODEL = {"graph": 7, "metadata_props": 14, "training_info": 20, "functions": 25}
GRAPH = {"node": 1, "initializer": 5, "sparse_initializer": 15}
NODE = {"op_type": 4, "attribute": 5, "domain": 7, "overload": 8}
ATTRIBUTE = {"t": 5, "g": 6, "tensors": 10, "graphs": 11, "sparse_tensor": 22, "sparse_tensors": 23}
TENSOR = {"dims": 1, "external_data": 13, "data_location": 14}
SPARSE = {"values": 1, "indices": 2, "dims": 3}
FUNCTION = {"name": 1, "node": 7, "domain": 10, "attribute_proto": 11, "overload": 13}
ENTRY = {"key": 1, "value": 2}

Operator = tuple[str, str, str]
"""The domain, the name and the overload of an operator or a function."""


class _Walk(Wire):
    """What is counted while a file is read."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, descriptor)
        self.nodes = 0
        # The operators of the graph or function that is read now.
        self.uses: Counter[Operator] = Counter()
        # The dimensions of the tensor of most elements.
        self.largest: list[int] = []
        # Files of external data, with their sizes in bytes.
        self.files: dict[str, int] = {}


def check_file(path: Path) -> dict[Path, int]:
    """Check that onnxruntime can be given a file, and return the size in bytes of it and of its external data, by path.

    Raises:
        Error: it is no ONNX file, is too large or nested, names files elsewhere, declares tensors that it does not
            hold, or has operators that onnxruntime does not bring along.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}") from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Error(f"{path}: is no regular file")
        if not 0 < about.st_size <= MOST_BYTES:
            what = "is empty" if not about.st_size else "is larger than 2 GiB, which no ONNX file can be"
            raise Error(f"{path}: {what}")
        walk = _Walk(path, descriptor)
        _model(walk, about.st_size)
    finally:
        os.close(descriptor)
    files = {path: about.st_size, **{path.parent / name: size for name, size in walk.files.items()}}
    size = sum(files.values())
    # An element takes at least half a byte (int4).
    if math.prod(walk.largest) > 2 * size + 16:
        shape = " x ".join(map(str, walk.largest))
        raise Error(f"{path}: declares a tensor of {shape} elements, and has {size:,} bytes in all")
    return files


def _model(walk: _Walk, size: int) -> None:
    functions: dict[Operator, Counter[Operator]] = {}
    called: Counter[Operator] = Counter()
    found = metadata = 0
    for number, begin, end in walk.message(0, size):
        if end < 0:
            continue
        if number == MODEL["graph"]:
            found += 1
            _graph(walk, begin, end, 0)
            called += walk.uses
            walk.uses = Counter()
        elif number == MODEL["functions"]:
            name, body = _function(walk, begin, end)
            if name in functions:
                raise walk.refuse(f"defines the function {printable(name[1])} twice")
            functions[name] = body
        elif number == MODEL["metadata_props"]:
            metadata += end - begin
        elif number == MODEL["training_info"]:
            raise walk.refuse("is a graph for training; export the network for inference")
    if found != 1:
        raise walk.refuse("is damaged or is no ONNX file: it has no graph" if not found else "has several graphs")
    if metadata > METADATA_BYTES:
        raise walk.refuse(f"has metadata of more than {METADATA_BYTES >> 20} MiB")
    for uses in (called, *functions.values()):
        _check_operators(walk, uses, functions)
    if _expanded(walk, called, functions, {}, ()) > MOST_NODES:
        raise walk.refuse(f"has more than {MOST_NODES:,} nodes after its functions are put in their places")


def _graph(walk: _Walk, begin: int, end: int, nested: int) -> None:
    if nested > MOST_NESTED:
        raise walk.refuse(f"has graphs within graphs, more than {MOST_NESTED} deep")
    for number, inner, stop in walk.message(begin, end):
        if number == GRAPH["node"] and stop >= 0:
            _node(walk, inner, stop, nested)
        elif number == GRAPH["initializer"] and stop >= 0:
            _tensor(walk, inner, stop)
        elif number == GRAPH["sparse_initializer"] and stop >= 0:
            _sparse(walk, inner, stop)


def _function(walk: _Walk, begin: int, end: int) -> tuple[Operator, Counter[Operator]]:
    outer, walk.uses = walk.uses, Counter()
    texts: dict[int, str] = {}
    for number, inner, stop in walk.message(begin, end):
        if stop < 0:
            continue
        if number in (FUNCTION["name"], FUNCTION["domain"], FUNCTION["overload"]):
            texts[number] = walk.text(inner, stop)
        elif number == FUNCTION["node"]:
            _node(walk, inner, stop, 0)
        elif number == FUNCTION["attribute_proto"]:
            _attribute(walk, inner, stop, 0)
    body, walk.uses = walk.uses, outer
    domain, name, overload = (texts.get(FUNCTION[key], "") for key in ("domain", "name", "overload"))
    return (domain, name, overload), body


def _node(walk: _Walk, begin: int, end: int, nested: int) -> None:
    walk.nodes += 1
    if walk.nodes > MOST_NODES:
        raise walk.refuse(f"has more than {MOST_NODES:,} nodes")
    texts: dict[int, str] = {}
    for number, inner, stop in walk.message(begin, end):
        if stop < 0:
            continue
        if number in (NODE["op_type"], NODE["domain"], NODE["overload"]):
            texts[number] = walk.text(inner, stop)
        elif number == NODE["attribute"]:
            _attribute(walk, inner, stop, nested)
    domain, name, overload = (texts.get(NODE[key], "") for key in ("domain", "op_type", "overload"))
    walk.uses[domain, name, overload] += 1


def _attribute(walk: _Walk, begin: int, end: int, nested: int) -> None:
    for number, inner, stop in walk.message(begin, end):
        if stop < 0:
            continue
        if number in (ATTRIBUTE["t"], ATTRIBUTE["tensors"]):
            _tensor(walk, inner, stop)
        elif number in (ATTRIBUTE["g"], ATTRIBUTE["graphs"]):
            _graph(walk, inner, stop, nested + 1)
        elif number in (ATTRIBUTE["sparse_tensor"], ATTRIBUTE["sparse_tensors"]):
            _sparse(walk, inner, stop)


def _tensor(walk: _Walk, begin: int, end: int) -> None:
    dims: list[int] = []
    entries: list[tuple[str, str]] = []
    location = 0
    for number, inner, stop in walk.message(begin, end):
        if number == TENSOR["dims"]:
            dims += walk.integers(inner, stop, MOST_DIMENSIONS)
        elif number == TENSOR["data_location"] and stop < 0:
            location = inner
        elif number == TENSOR["external_data"] and stop >= 0:
            entries.append(_entry(walk, inner, stop))
    if len(dims) > MOST_DIMENSIONS:
        raise walk.refuse(f"has a tensor of more than {MOST_DIMENSIONS} dimensions")
    if any(size >= 1 << 63 for size in dims):
        raise walk.refuse("declares a tensor with a negative dimension")
    if math.prod(dims) > math.prod(walk.largest or [0]):
        walk.largest = dims
    if location == EXTERNAL or entries:
        _external(walk, dict(entries))


def _sparse(walk: _Walk, begin: int, end: int) -> None:
    dims: list[int] = []
    for number, inner, stop in walk.message(begin, end):
        if number in (SPARSE["values"], SPARSE["indices"]) and stop >= 0:
            _tensor(walk, inner, stop)
        elif number == SPARSE["dims"]:
            dims += walk.integers(inner, stop, MOST_DIMENSIONS)
    if len(dims) > MOST_DIMENSIONS or math.prod(dims) > MOST_SPARSE_ELEMENTS:
        raise walk.refuse(f"declares a sparse tensor of more than {MOST_SPARSE_ELEMENTS:,} elements")


def _entry(walk: _Walk, begin: int, end: int) -> tuple[str, str]:
    texts: dict[int, str] = {}
    for number, inner, stop in walk.message(begin, end):
        if stop >= 0:
            texts[number] = walk.text(inner, stop)
    return texts.get(ENTRY["key"], ""), texts.get(ENTRY["value"], "")


def _external(walk: _Walk, about: dict[str, Any]) -> None:
    """Check where weights are that are not in the file: in a regular file of its folder, which holds all of them."""
    name = about.get("location", "")
    shown = printable(name)
    foreign = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts
    if not name or "\0" in name or foreign or ADDRESS in name:
        raise walk.refuse(f"its weights are in {shown!r}, which is not a file in its folder; export it as one file")
    if name not in walk.files:
        walk.files[name] = _size_in(walk, name, shown)
    numbers = [about.get(key, "0") for key in ("offset", "length")]
    if not all(number.isascii() and number.isdigit() and len(number) < 19 for number in numbers):
        raise walk.refuse(f"its metadata about the weights in {shown!r} are damaged")
    if sum(map(int, numbers)) > walk.files[name]:
        raise walk.refuse(f"needs more of {shown!r} than its {walk.files[name]:,} bytes; copy the whole file again")


def _size_in(walk: _Walk, name: str, shown: str) -> int:
    """Return the size of a file beside the ONNX file, to which no link leads."""
    place = walk.path.parent
    for part in PurePosixPath(name).parts:
        place /= part
        if place.is_symlink():
            raise walk.refuse(f"its weights are in {shown!r}, which is a link; copy the file itself there")
    try:
        about = os.stat(place)
    except OSError as error:
        raise walk.refuse(f"its weights are in {shown!r}, which is missing; copy it beside the file") from error
    if not stat.S_ISREG(about.st_mode):
        raise walk.refuse(f"its weights are in {shown!r}, which is no regular file")
    # The package onnx refuses them too: an archive may make one to a file of yours.
    if about.st_nlink > 1:
        raise walk.refuse(f"its weights are in {shown!r}, which is a link; copy the file itself there")
    return about.st_size


def _check_operators(walk: _Walk, uses: Counter[Operator], functions: dict[Operator, Any]) -> None:
    for operator in uses:
        domain, name, _ = operator
        if operator in functions:
            continue
        if domain not in DOMAINS:
            raise walk.refuse(
                f"needs the operator {printable(name)} of {printable(domain)}, which onnxruntime does not have; kdtool "
                "loads no libraries of operators"
            )
        if name in COMPILED:
            raise walk.refuse(f"is compiled for one device ({name}); name the ONNX file that it was made of")


def _expanded(
    walk: _Walk,
    uses: Counter[Operator],
    functions: dict[Operator, Counter[Operator]],
    known: dict[Operator, int],
    within: tuple[Operator, ...],
) -> int:
    """Return the number of nodes after every call of a function is replaced by its body."""
    total = 0
    for name, times in uses.items():
        if name in functions and name not in known:
            if name in within or len(within) > 64:
                raise walk.refuse(f"has a function that calls itself, {printable(name[1])}")
            known[name] = _expanded(walk, functions[name], functions, known, (*within, name))
        total += times * known.get(name, 1)
    return total
