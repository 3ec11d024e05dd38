"""Read pickles of plain data and numpy arrays without running code that they contain."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from kdtool import Error

# The only functions and classes that a pickle may use: those that build an array of numbers.
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
    """Return the dict in a pickle of Python 2 or 3, with texts as str.

    Raises:
        kdtool.Error: the file is missing or damaged, or holds code or anything else that is not plain data.
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise Error(f"there is no {path}; unpack the data set again, or download it with --download") from error
    # A damaged pickle can raise any of these, depending on the opcode that fails.
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
        raise Error(f"{path}: not a pickle of plain arrays ({reason}); download it again") from error
    if not isinstance(content, dict):
        raise Error(f"{path}: holds a {type(content).__name__}, not a batch of images; download it again")
    return content
