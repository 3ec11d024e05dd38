"""Read pickles of plain data and numpy arrays: their instructions are read here, and nothing that they name is called.

Python's unpickler would import and call what a file names, and numpy's own functions trust what they are given: a file
of 247 bytes makes them write outside of their memory. So the few instructions that such a file needs are carried out
here. An array is at first its shape, its type and its bytes, and is made when these fit together.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdtool import Error
from kdtool.utils import printable

# The largest file (CIFAR-100 has 155 MB), and the most instructions (CIFAR-100 has about 400,000).
LARGEST, MOST_INSTRUCTIONS = 512 << 20, 2_000_000

# A batch has a few entries. Keys whose hashes collide would take time that grows with the square of their number.
MOST_KEYS = 256

_PACKAGES = ("numpy.core", "numpy._core")
RECONSTRUCT = {(f"{package}.multiarray", "_reconstruct") for package in _PACKAGES}
FROM_BUFFER = {(f"{package}.numeric", "_frombuffer") for package in _PACKAGES}

# Python 3 calls this without arguments for no bytes at all, in the older forms.
EMPTY_BYTES = {("__builtin__", "bytes"), ("builtins", "bytes")}

KNOWN = {*RECONSTRUCT, *FROM_BUFFER, *EMPTY_BYTES, ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

# numpy's codes of numbers.
_NUMBER = re.compile(r"[|<>=]?([iu][1248]|f[248]|b1)")

_MARK = object()


class _Damaged(Exception):
    """The pickle is not one of plain data."""


class _Name:
    """A function or class that the pickle names."""

    def __init__(self, module: Any, name: Any) -> None:
        self.module, self.name = module, name
        known = {
            *RECONSTRUCT,
            *EMPTY_BYTES,
            *FROM_BUFFER,
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
        if (module, name) not in known:
            raise _Damaged(f"it would run {module}.{name}")

    @property
    def key(self) -> tuple[str, str]:
        return self.module, self.name


class _Type:
    """The type of an array's numbers: its code, and its byte order once it is known."""

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise _Damaged("an array holds no numbers")
        self.code = code

    def set_state(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.code = state[1] + self.code.lstrip("|<>=")


class _Array:
    """An array, of which nothing is believed until all of it is known."""

    def __init__(self) -> None:
        self.parts: tuple[Any, Any, bool, Any] | None = None

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Damaged("an array is malformed")
        _, shape, kind, by_columns, content = state
        self.parts = shape, kind, bool(by_columns), content

    def value(self) -> Any:
        import numpy as np

        if self.parts is None:
            raise _Damaged("an array has no content")
        shape, kind, by_columns, content = self.parts
        sizes = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not sizes or len(shape) > 8 or not isinstance(kind, _Type):
            raise _Damaged("an array is malformed")
        data = content.encode("latin1") if isinstance(content, str) else content
        dtype = np.dtype(kind.code)
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
            raise _Damaged("an array has more or fewer numbers than its shape says")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")


class _Reader:
    """The stack and the memory that the instructions of a pickle work on."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def read(self, content: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
            if count >= MOST_INSTRUCTIONS:
                raise _Damaged("it has too many instructions")
            if opcode.name == "STOP":
                return self.stack[-1]
            if opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name](argument))
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            else:
                raise _Damaged(f"it has the instruction {opcode.name}")
        raise _Damaged("it has no end")

    def since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise _Damaged("it is damaged")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def collect(self, _: Any) -> None:
        self.stack.append(tuple(self.since_mark()))

    def collect_last(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise _Damaged("it is damaged")
        self.stack[-count:] = [items]

    def collect_list(self, _: Any) -> None:
        self.stack.append(self.since_mark())

    def collect_dict(self, _: Any) -> None:
        self.stack.append({})
        items = self.since_mark()
        self.stack.append(self.set_items(items.pop(), items))

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def extend(self, _: Any) -> None:
        items = self.since_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if not isinstance(self.stack[-1], list):
            raise _Damaged("it is damaged")
        return self.stack[-1]

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items(self.stack[-1], [key, value])

    def update(self, _: Any) -> None:
        items = self.since_mark()
        self.set_items(self.stack[-1], items)

    def set_items(self, target: Any, items: list[Any]) -> Any:
        if not isinstance(target, dict) or len(items) % 2:
            raise _Damaged("it is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            name = key.decode("latin1") if isinstance(key, bytes) else key
            if not isinstance(name, str) or len(target) >= MOST_KEYS:
                raise _Damaged("a dict has other keys than a few names")
            target[name] = value
        return target

    def remember(self, place: Any) -> None:
        self.memory[len(self.memory) if place is None else int(place)] = self.stack[-1]

    def recall(self, place: Any) -> None:
        self.stack.append(self.memory[int(place)])

    def name(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_Name(module, name))

    def name_on_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_Name(module, name))

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _Damaged("it is damaged")
        self.stack.append(_made(function.key, arguments))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Type | _Array):
            raise _Damaged("it is damaged")
        self.stack[-1].set_state(state)

    def drop(self, _: Any) -> None:
        self.stack.pop()


def _made(key: tuple[str, str], arguments: tuple[Any, ...]) -> Any:
    """Return what takes the place of the result of a function."""
    if key in EMPTY_BYTES and not arguments:
        return b""
    if key == ("numpy", "dtype") and arguments:
        return _Type(arguments[0])
    if key in RECONSTRUCT:
        return _Array()
    if key in FROM_BUFFER and len(arguments) == 4:
        content, kind, shape, order = arguments
        array = _Array()
        array.set_state((1, shape, kind, order == "F", content))
        return array
    # Python 3 writes bytes so in the older forms. Other codecs take time that grows with the square of the length.
    if key == ("_codecs", "encode") and arguments[1:] == ("latin1",) and isinstance(arguments[0], str):
        return arguments[0].encode("latin1")
    raise _Damaged(f"it would run {'.'.join(key)}")


def _same(argument: Any) -> Any:
    return argument


_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _same),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _same),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _same),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), bytes),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "MARK": lambda _: _MARK,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_TUPLE": lambda _: (),
}

_ACTIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "TUPLE": _Reader.collect,
    "TUPLE1": lambda reader, _: reader.collect_last(1),
    "TUPLE2": lambda reader, _: reader.collect_last(2),
    "TUPLE3": lambda reader, _: reader.collect_last(3),
    "LIST": _Reader.collect_list,
    "DICT": _Reader.collect_dict,
    "APPEND": _Reader.append,
    "APPENDS": _Reader.extend,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.update,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Reader.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Reader.recall),
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.name_on_stack,
    "REDUCE": _Reader.call,
    "BUILD": _Reader.build,
    "POP": _Reader.drop,
    **dict.fromkeys(("PROTO", "FRAME"), lambda reader, argument: None),
}


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dict in a pickle of Python 2 or 3, with texts as str, and arrays of numbers as numpy's.

    Raises:
        kdtool.Error: the file is missing or damaged, or holds code or anything else that is not plain data.
    """
    if not path.exists():
        raise Error(f"there is no {path}; unpack the data set again, or download it with --download")
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise _Damaged(f"it is no file, or larger than {LARGEST >> 20} MiB")
        content = _Reader().read(path.read_bytes())
        if isinstance(content, dict):
            return {key: value.value() if isinstance(value, _Array) else value for key, value in content.items()}
    # A damaged pickle can raise any of these, depending on the instruction that fails.
    except (_Damaged, OSError, ValueError, TypeError, KeyError, IndexError, MemoryError, OverflowError) as error:
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 120)
        raise Error(f"{path}: not a pickle of plain arrays ({reason}); download it again") from error
    raise Error(f"{path}: holds a {type(content).__name__}, not a batch of images; download it again")
