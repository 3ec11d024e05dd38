"""Files that are whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from kdtool.errors import Error, UsageError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; when the block ends well, sync it and rename it.

    Raises:
        Error: the directory cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise Error(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    # The rename itself is only durable once the directory is.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def gzip_bytes(path: Path) -> int:
    """Return the size that gzip makes of a file at its usual level."""
    squeeze, size = zlib.compressobj(6, wbits=31), 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            size += len(squeeze.compress(part))
    return size + len(squeeze.flush())


def slug(name: str) -> str:
    """Return ``name`` as a file name: ``M2 from M1`` becomes ``M2-from-M1``."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def beside(source: Path, ending: str) -> Path:
    """Return the name of an output beside its input: ``teacher.pt`` and ``-ikd.pt`` make ``teacher-ikd.pt``."""
    return source.with_name(source.stem + ending)


def check_output(path: Path, *, force: bool) -> None:
    """Raise `UsageError` where ``path`` cannot become an output: it exists, or its directory cannot be used."""
    if path.exists() and not force:
        raise UsageError(f"{path}: exists already; name another with -o, or overwrite it with --force")
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file with -o")
    parent = path.parent
    if not parent.is_dir():
        raise UsageError(f"{path}: there is no directory {parent}; make it first")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{path}: the directory {parent} cannot be written to; name another with -o")
