"""What a file is, as far as its name tells; checked before a library is imported that reads it."""

from __future__ import annotations

from pathlib import Path

from kdtool.errors import UsageError


def check_checkpoint(path: Path) -> None:
    """Check that a name is not that of an ONNX file, which has no weights that could be trained.

    Raises:
        UsageError: it is.
    """
    if path.suffix.lower() == ".onnx":
        pt = path.with_suffix(".pt")
        hint = f", such as {pt}" if pt.exists() else ""
        raise UsageError(f"{path}: is an ONNX file, which cannot be trained; give the checkpoint it is made from{hint}")
