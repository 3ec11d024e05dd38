"""ONNX graphs that are changed field by field, for everything that runs one."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import onnx
from google.protobuf.message import Message
from hypothesis import strategies as st

from benchmarks.safety.networks import classifier, network
from benchmarks.safety.target import Target

# Sizes, numbers of types, axes and what is far out of their range.
INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 8, 9, 16, 64, 255, 1000, 2**20, 2**31 - 1, 2**31, 2**40, 2**62)

FLOATS = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("nan"))

TEXTS = ("", "x", "images", "logits", "../x", "/dev/zero", "a" * 3000, "\x1b[2J", "\u202e", "NOTSET", "SAME_UPPER")

BYTES = (b"", b"\0", b"\xff" * 4, b"\0" * 64, b"\xff" * 1000)


@functools.cache
def operators() -> tuple[str, ...]:
    """Return the names of all operators of ONNX."""
    return tuple(sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}))


def changed_graph(content: bytes) -> st.SearchStrategy[bytes]:
    """Return an ONNX file in which one to three fields are changed, wherever they are."""
    return st.integers(0, 2**40).map(lambda number: _changed(content, Random(number)))


def _changed(content: bytes, random: Random) -> bytes:
    model = onnx.ModelProto.FromString(content)
    for _ in range(random.randint(1, 3)):
        places = list(_places(model))
        # As many of the graph's own fields as of the names and the metadata around them.
        kinds = sorted({(type(message).__name__, field.name) for message, field in places})
        kind = random.choice(kinds)
        _change(*random.choice([place for place in places if (type(place[0]).__name__, place[1].name) == kind]), random)
    made: bytes = model.SerializeToString()
    return made


def _places(message: Message) -> Any:
    """Yield each message in a message, and itself, with each field that it has, and with some that are not set."""
    for field in message.DESCRIPTOR.fields:
        is_set = len(getattr(message, field.name)) > 0 if field.is_repeated else message.HasField(field.name)
        if is_set or field.message_type is None:
            yield message, field
        if is_set and field.message_type is not None:
            for inner in getattr(message, field.name) if field.is_repeated else [getattr(message, field.name)]:
                yield from _places(inner)


def _change(message: Any, field: Any, random: Random) -> None:
    if field.is_repeated:
        _change_list(getattr(message, field.name), field, random)
    elif field.message_type is not None or random.random() < 0.1:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(field, random, getattr(message, field.name)))


def _change_list(values: Any, field: Any, random: Random) -> None:
    what = random.choice(["change", "change", "change", "remove", "repeat", "swap"])
    if not len(values):
        if field.message_type is None:
            values.append(_value(field, random, None))
        return
    place = random.randrange(len(values))
    if what == "remove":
        del values[place]
    elif what == "repeat":
        values.extend([values[place]] * random.choice([1, 1, 1, 40]))
    elif what == "swap":
        other, copies = random.randrange(len(values)), list(values)
        if field.message_type is None:
            values[place], values[other] = copies[other], copies[place]
        else:  # names and types stay, what is between them is another one's
            values[place].CopyFrom(copies[other])
    elif field.message_type is None:
        values[place] = _value(field, random, values[place])


def _value(field: Any, random: Random, before: Any) -> Any:
    if field.enum_type is not None:
        return random.choice([value.number for value in field.enum_type.values])
    match field.cpp_type:
        case field.CPPTYPE_STRING if field.type == field.TYPE_BYTES:
            return _bytes(random, before or b"")
        case field.CPPTYPE_STRING:
            return random.choice([*TEXTS, *random.sample(operators(), 5)])
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return random.choice(FLOATS)
        case field.CPPTYPE_INT32:
            return random.choice([number for number in INTEGERS if -(2**31) <= number < 2**31])
        case field.CPPTYPE_UINT64:
            return random.choice([number for number in INTEGERS if number >= 0])
        case _:
            return random.choice([*INTEGERS, (before or 0) + 1, (before or 0) * 2]) % 2**63


def _bytes(random: Random, before: bytes) -> bytes:
    if not before or random.random() < 0.3:
        return random.choice(BYTES)
    data = bytearray(before)
    match random.choice(["bits", "cut", "double"]):
        case "bits":
            for _ in range(random.randint(1, 8)):
                data[random.randrange(len(data))] = random.choice([0, 1, 127, 128, 255])
        case "cut":
            del data[random.randrange(len(data)) :]
        case "double":
            data *= 2
    return bytes(data)


class Forked:
    """Stands for `subprocess.Popen` of the process of onnxruntime: a fork of this one, which has its imports."""

    def __init__(self, words: Any, **streams: Any) -> None:
        from benchmarks.safety.attempts import WATCH

        on, WATCH.on = WATCH.on, False
        (taken, given), (read, written) = os.pipe(), os.pipe()
        self.returncode: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                from kdtool.exporting.contained_child import main

                os.setsid()
                os.dup2(taken, 0)
                os.dup2(written, 1)
                os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
                main(parent)
            finally:
                os._exit(0)
        os.close(taken)
        os.close(written)
        self.stdin, self.stdout = os.fdopen(given, "wb"), os.fdopen(read, "rb")
        WATCH.on = on

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; it is not waited for longer than it takes."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        """End it."""
        if self.returncode is None:
            os.kill(self.pid, 9)


@contextlib.contextmanager
def forking() -> Iterator[None]:
    """Let the process of onnxruntime be a fork: to start Python takes ten times as long as what is tried."""
    import subprocess

    import onnxruntime  # noqa: F401

    from kdtool.exporting import contained_process

    class Module:
        PIPE, DEVNULL, TimeoutExpired, Popen = subprocess.PIPE, subprocess.DEVNULL, subprocess.TimeoutExpired, Forked

    before = contained_process.subprocess  # type: ignore[attr-defined]
    contained_process.subprocess = Module  # type: ignore[attr-defined,assignment]
    try:
        yield
    finally:
        contained_process.subprocess = before  # type: ignore[attr-defined]


@forking()
def evaluate(path: Path) -> None:
    """Measure the accuracy of a file, as ``kdtool evaluate`` does."""
    from kdtool import api

    api.evaluate([path])


@forking()
def compare(path: Path) -> None:
    """Compare a file with the one that is not changed, as ``kdtool compare`` does."""
    from kdtool import api

    api.compare(path.with_name("whole.onnx"), path)


@forking()
def measure(path: Path) -> None:
    """Measure the latency of a file, as ``kdtool measure`` does."""
    from kdtool import api

    api.measure(path, pairs=2, seconds=0.01)


@forking()
def teach(path: Path) -> None:
    """Take a file for a teacher, and give it a batch."""
    import torch

    from kdtool.commands.onnx_teacher import load_teacher

    teacher = load_teacher(path)
    teacher.module(torch.rand(64, *teacher.architecture.input))


def described() -> dict[str, str]:
    """Return the metadata of a network of digits, as ``kdtool export`` writes them."""
    from kdtool.data.opening import open_data
    from kdtool.data.options import DataOptions

    spec = open_data(DataOptions(data="digits", augment="none")).spec
    return {"kdtool.data": json.dumps({**spec.as_data(), "directory": None})}


def graph_targets() -> list[Target]:
    """Return what runs ONNX files."""
    digits = classifier(described())
    seeds = {"evaluate": [digits], "compare": [digits], "measure": [digits, network()], "as a teacher": [digits]}
    readers = {"evaluate": evaluate, "compare": compare, "measure": measure, "as a teacher": teach}
    return [
        Target(
            f"ONNX graphs: {name}", "n.onnx", st.sampled_from(whole).flatmap(changed_graph), readers[name], whole,
            beside={"whole.onnx": digits},
        )
        for name, whole in seeds.items()
    ]  # fmt: skip
