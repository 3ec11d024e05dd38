"""Pickles of plain data and numpy arrays, read without running what is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from kdtool import Error

# What an array of numbers is made of; nothing else in a pickle may be called.
ALLOWED = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in ((f"{package}.multiarray", "_reconstruct"), (f"{package}.numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it would run {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dict that a pickle of Python 2 or 3 holds, with texts as str.

    Raises:
        kdtool.Error: the file is missing or damaged, holds code or anything but plain data.
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise Error(f"there is no {path}; unpack the data set anew, or fetch it with --download") from error
    # A damaged pickle fails in whatever its opcodes run into.
    except (
        pickle.UnpicklingError,
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ImportError,
        MemoryError,
        OverflowError,
    ) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Error(f"{path}: no data of plain arrays ({reason}); fetch it again") from error
    if not isinstance(content, dict):
        raise Error(f"{path}: holds a {type(content).__name__}, not a batch of images; fetch it again")
    return content
