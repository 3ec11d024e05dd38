"""Atomic writes, and names and checks of output files."""

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
    """Yield a temporary path beside ``path``; if the block succeeds, sync the file and rename it to ``path``.

    Raises:
        Error: the file cannot be written, for example because the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise Error(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    # The rename survives a crash only after the directory is synced too.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_directory() -> Path | None:
    """Return the user's cache directory of kdtool, created if it is missing; None where there can be none.

    It is the value of KDTOOL_CACHE, else ``kdtool`` in XDG_CACHE_HOME, else ``~/.cache/kdtool``. Everything in it can
    be deleted at any time.
    """
    named, shared = os.environ.get("KDTOOL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        directory = Path(named) if named else (Path(shared) if shared else Path.home() / ".cache") / "kdtool"
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    return directory if os.access(directory, os.W_OK) else None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def gzip_bytes(path: Path) -> int:
    """Return the size of a file in bytes after gzip compression at level 6, the default of gzip."""
    compressor, size = zlib.compressobj(6, wbits=31), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            size += len(compressor.compress(chunk))
    return size + len(compressor.flush())


def slug(name: str) -> str:
    """Return ``name`` in a form that is safe as a file name: ``M2 from M1`` becomes ``M2-from-M1``."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def beside(source: Path, ending: str) -> Path:
    """Return a path in the directory of ``source``: ``teacher.pt`` with ``-ikd.pt`` gives ``teacher-ikd.pt``."""
    return source.with_name(source.stem + ending)


def check_output(path: Path, *, force: bool) -> None:
    """Check that ``path`` can be written.

    Raises:
        UsageError: it exists and ``force`` is false, it is a directory, or its directory is missing or read-only.
    """
    if path.exists() and not force:
        raise UsageError(f"{path}: exists already; choose another name with -o, or overwrite it with --force")
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file with -o")
    parent = path.parent
    if not parent.is_dir():
        raise UsageError(f"{path}: there is no directory {parent}; create it first")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{path}: the directory {parent} is not writable; choose another with -o")
