"""Stand-ins for harmless objects in weight files: what training scripts save beside the weights is read, not run.

A file may hold scalars and arrays of numpy, paths, dates, command-line arguments and configurations. No class or
function that the file names is imported or called: a number or a text of numpy is decoded from its bytes here, a
dictionary or a list of another class becomes a plain one, command-line arguments are kept by name, and everything else
is an `Inert` object without content.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

# numpy's codes of numbers, and of text (four bytes a character).
_NUMBER = re.compile(r"[fiu][1248]|b1")
_TEXT = re.compile(r"U\d{1,4}")

# An array with more elements is not decoded.
_LARGEST = 100_000


class Inert:
    """Takes the place of an object of which nothing is known or needed."""

    def __init__(self, *args: Any) -> None:
        pass

    def __new__(cls, *args: Any) -> Inert:
        """Return an object whatever the arguments are."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""


class _Namespace(Inert):
    """Command-line arguments by name, which are looked at when they are needed."""

    content: Any = None

    def __setstate__(self, state: Any) -> None:
        self.content = state


class _Type(Inert):
    """The type of numpy's numbers: its code, such as ``f8``, and its byte order."""

    def __init__(self, code: Any = "", *args: Any) -> None:
        self.code = code if isinstance(code, str) else ""
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = state[1]

    def values(self, content: Any, count: int) -> list[Any] | None:
        """Return so many numbers or texts from their bytes, or None if they are of another kind or size."""
        kind = self.code
        if not (_NUMBER.fullmatch(kind) or _TEXT.fullmatch(kind)) or not isinstance(content, bytes):
            return None
        dtype = np.dtype(self.order + kind if self.order != "|" else kind)
        if count > _LARGEST or len(content) != count * dtype.itemsize or not dtype.itemsize:
            return None
        values: list[Any] = np.frombuffer(content, dtype=dtype).tolist()
        return values


class _Scalar(Inert):
    """A number or a text of numpy; it is decoded when it is needed, so that a small file cannot ask for much memory."""

    def __init__(self, kind: Any = None, content: Any = None) -> None:
        self.kind, self.content = kind, content


class _Array(Inert):
    """An array of numpy, of which those with one dimension are decoded when they are needed."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def arguments(value: Any) -> dict[Any, Any]:
    """Return the arguments that a script was called with, as it saved them: by name, undecoded; {} if it is no such."""
    content = value.content if isinstance(value, _Namespace) else value
    return content if isinstance(content, dict) else {}


def plain(value: Any) -> Any:
    """Return a number, a text, or a list or an array of them as Python's own; other values as they are."""
    if isinstance(value, _Array) and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, kind, _, content = value.state
        if isinstance(shape, tuple) and len(shape) == 1 and isinstance(shape[0], int) and isinstance(kind, _Type):
            value = content if isinstance(content, list) else kind.values(content, shape[0]) or value
    return [_decoded(item) for item in value] if isinstance(value, list | tuple) else _decoded(value)


def _decoded(value: Any) -> Any:
    if isinstance(value, _Scalar) and isinstance(value.kind, _Type):
        return next(iter(value.kind.values(value.content, 1) or ()), value)
    return value


def _array(*args: Any) -> _Array:
    return _Array()


def _dict(*args: Any) -> dict[Any, Any]:
    return {}


class _Dict:
    """Makes a plain dictionary in the place of one of a subclass."""

    def __new__(cls, *args: Any) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


def _list(*args: Any) -> list[Any]:
    return []


def _named(module: str, names: str, stand_in: Callable[..., Any]) -> list[tuple[Callable[..., Any], str]]:
    return [(stand_in, f"{module}.{name}") for name in names.split()]


STAND_INS: list[tuple[Callable[..., Any], str]] = [
    *_named("numpy", "dtype", _Type),
    *_named("numpy.core.multiarray", "scalar", _Scalar),
    *_named("numpy._core.multiarray", "scalar", _Scalar),
    *_named("numpy.core.multiarray", "_reconstruct", _array),
    *_named("numpy._core.multiarray", "_reconstruct", _array),
    (_Array, "kdtool.utils.stand_ins._Array"),
    *_named("numpy", "ndarray float64 float32 float16 int64 int32 int16 int8 uint8 bool_ bool str_", Inert),
    *_named("numpy.random", "__RandomState_ctor", Inert),
    *_named("numpy.random._pickle", "__randomstate_ctor __bit_generator_ctor __generator_ctor", Inert),
    *_named("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence SeedSequence", Inert),
    *_named("numpy.random._mt19937", "MT19937", Inert),
    *_named("numpy.random._pcg64", "PCG64", Inert),
    *_named("collections", "defaultdict", _dict),
    *_named("collections", "deque", _list),
    *_named("builtins", "list dict tuple int float str bool bytes frozenset range slice object", Inert),
    *_named("pathlib", "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath", Inert),
    *_named("pathlib._local", "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath", Inert),
    *_named("datetime", "datetime date time timedelta timezone", Inert),
    *_named("argparse", "Namespace", _Namespace),
    *_named("types", "SimpleNamespace", _Namespace),
    *_named("decimal", "Decimal", Inert),
    *_named("fractions", "Fraction", Inert),
    *_named("uuid", "UUID", Inert),
    *_named("typing", "Any", Inert),
    *_named("torch.torch_version", "TorchVersion", Inert),
    *_named("omegaconf.dictconfig", "DictConfig", Inert),
    *_named("omegaconf.listconfig", "ListConfig", Inert),
    *_named("omegaconf.base", "ContainerMetadata Metadata", Inert),
    *_named("omegaconf.nodes", "AnyNode BooleanNode FloatNode IntegerNode StringNode EnumNode PathNode", Inert),
    *_named("easydict", "EasyDict", _Dict),
    *_named("addict.addict", "Dict", _Dict),
    *_named("yacs.config", "CfgNode", _Dict),
    *_named("fvcore.common.config", "CfgNode", _Dict),
    *_named("detectron2.config.config", "CfgNode", _Dict),
    *_named("mmcv.utils.config", "ConfigDict", _Dict),
    *_named("mmengine.config.config", "ConfigDict", _Dict),
    *_named("mmengine.logging.history_buffer", "HistoryBuffer", Inert),
    *_named("pytorch_lightning.utilities.parsing", "AttributeDict", _Dict),
    *_named("lightning.pytorch.utilities.parsing", "AttributeDict", _Dict),
    *_named("lightning_fabric.utilities.data", "AttributeDict", _Dict),
    *_named("lightning.fabric.utilities.data", "AttributeDict", _Dict),
]
"""The stand-ins that `torch.serialization.safe_globals` takes, each with the name that a file has for the object."""
