"""What a file is, as far as its name tells; checked before a library is imported that reads it."""

from __future__ import annotations

from pathlib import Path

from kdtool.errors import UsageError

DESCRIPTION = "kdtool.json"
"""The file that makes a folder a checkpoint."""

WEIGHTS = "model.safetensors"
"""The file of the weights in such a folder."""

TENSORS = "kdtool.safetensors"
"""The file of the other tensors in such a folder, if there are any."""


def is_checkpoint_folder(path: Path) -> bool:
    """Return whether a path is a folder that is read as a checkpoint, see `kdtool.utils.tensor_folder`."""
    return (path / DESCRIPTION).is_file()


def weights_file(path: Path) -> Path:
    """Return the file of a checkpoint's weights: the checkpoint itself, or the file in its folder."""
    return path / WEIGHTS if is_checkpoint_folder(path) else path


def bytes_of(path: Path | None) -> int | None:
    """Return the bytes of the file of a checkpoint's weights; None if there is no file, or not from here any more."""
    file = path and weights_file(path)
    return file.stat().st_size if file and file.is_file() else None


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the files of a folder that is read as a checkpoint; others in it, such as a README, are not read."""
    return [folder / name for name in (DESCRIPTION, WEIGHTS, TENSORS) if (folder / name).is_file()]


def check_checkpoint(path: Path) -> None:
    """Check that a name is not that of an ONNX file, which has no weights that could be trained.

    Raises:
        UsageError: it is.
    """
    if path.suffix.lower() == ".onnx":
        pt = path.with_suffix(".pt")
        hint = f", such as {pt}" if pt.exists() else ""
        raise UsageError(f"{path}: is an ONNX file, which cannot be trained; give the checkpoint it is made from{hint}")
