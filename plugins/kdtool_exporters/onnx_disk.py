"""Files that are written completely or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from kdtool import Error


@contextlib.contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """Yield a folder on the same disk as ``output``, and delete it afterwards, also after an error.

    After a kill the next export to this file deletes it.

    A temporary folder and not a temporary file name: a model refers to a second file of weights by that file's name.
    """
    from kdtool.utils import scratch_folder as folder_beside

    with contextlib.ExitStack() as stack:
        with write_errors(output):
            folder = stack.enter_context(folder_beside(output))
        yield folder


@contextlib.contextmanager
def write_errors(output: Path) -> Iterator[None]:
    """Turn an OSError into an error that names ``output``."""
    try:
        yield
    except OSError as error:
        raise Error(f"{output}: cannot be written: {error.strerror or error}; name another with -o") from error


def move(folder: Path, target: Path) -> None:
    """Move the files of a folder to ``target``; after a crash each of them is there completely or not at all."""
    # The model last: without its weights it cannot be loaded, and a description belongs to a model that comes.
    for file in sorted(folder.iterdir(), key=lambda file: file.suffix not in (".data", ".bin", ".json")):
        with file.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(file, target / file.name)
    # The renames survive a crash only after the directory is synced.
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
