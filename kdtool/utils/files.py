"""Atomic writes, bounded reads, and names and checks of output files."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdtool.errors import Error, UsageError

# A text file that a person writes, or the log of a very long training, is far smaller.
TEXT_LIMIT = 64 << 20

# The names of temporary files: what is written, on which machine, by which process.
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})\.(\d{1,9})\.tmp")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside ``path``; if the block succeeds, sync it and rename it to ``path``.

    Raises:
        Error: the file cannot be written, for example because the disk is full.
    """
    temporary = _temporary(path)
    try:
        _sweep(path)
        # Through a link that somebody put there, the block would write to a file elsewhere.
        temporary.touch(exist_ok=False)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise Error(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(path: Path, *, own: bool = False) -> Iterator[Path]:
    """Yield a new folder beside ``path``, on the same disk, and remove it afterwards; a later call removes those of
    processes that were killed, with ``own`` only of this user.

    Raises:
        OSError: it cannot be made.
    """
    folder = _temporary(path)
    _sweep(path, own=own)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_folder(name: str) -> contextlib.AbstractContextManager[Path]:
    """Return a `scratch_folder` in the directory of all users' temporary files.

    Raises:
        OSError: it cannot be made.
    """
    import tempfile  # seldom needed

    return scratch_folder(Path(tempfile.gettempdir(), name), own=True)


def _temporary(path: Path) -> Path:
    """Return a new name beside ``path``; a process may need several at once."""
    return path.with_name(f".{_short(path.name)}.{os.urandom(4).hex()}.{_machine()}.{os.getpid()}.tmp")


def _short(name: str) -> str:
    """Return the beginning of a name, so that there is room behind it: most file systems take 255 bytes."""
    return os.fsencode(name)[:200].decode(sys.getfilesystemencoding(), "ignore")


@functools.cache
def _machine() -> str:
    """Return a short name of this machine, or container: the numbers of processes mean nothing on another one."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{zlib.crc32(f'{platform.node()} {space}'.encode()):08x}"


def left_over(path: Path) -> list[Path]:
    """Return the temporary files and folders of ``path`` whose process was killed."""
    beginning, found = f".{_short(path.name)}.", []
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if not entry.name.startswith(beginning) or not (match := _TEMPORARY.fullmatch(entry.name)):
                continue
            import psutil  # seldom needed

            if match[1] == _machine() and not psutil.pid_exists(int(match[2])):
                found.append(Path(entry.path))
    return found


def _sweep(path: Path, *, own: bool = False) -> None:
    for temporary in left_over(path):
        with contextlib.suppress(OSError):
            if not own or temporary.lstat().st_uid == _user():
                remove(temporary)


def _user() -> int:
    """Return the number of the user; 0 where there is none, as `os.stat` does."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds; of a link the link alone. What is gone already is no error.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """Return the text of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, or no UTF-8.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody who writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit >> 20} MiB")
    return content.decode("utf-8")


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


def config_directory() -> Path:
    """Return the user's directory of kdtool's settings, which need not exist.

    It is the value of KDTOOL_CONFIG, else ``kdtool`` in XDG_CONFIG_HOME, else ``~/.config/kdtool``.

    Raises:
        Error: there is no home.
    """
    named, shared = os.environ.get("KDTOOL_CONFIG"), os.environ.get("XDG_CONFIG_HOME", "")
    try:
        if named:
            return Path(named)
        # The XDG specification ignores a relative path, which would be another folder wherever one works.
        return (Path(shared) if Path(shared).is_absolute() else Path.home() / ".config") / "kdtool"
    except RuntimeError as error:
        raise Error("there is no home directory for settings; set KDTOOL_CONFIG to a folder") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Write the content of files by their paths below a directory."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(path: Path, *, force: bool) -> None:
    """Check that ``path`` can be written.

    Raises:
        UsageError: it exists, perhaps as a link to nothing, and ``force`` is false, it is a directory, or its directory
            is missing or read-only.
    """
    if path.is_symlink() and not path.exists() and not force:  # a file would take the place of the link
        raise UsageError(
            f"{path}: is a link to {os.readlink(path)}, which is not there; name that file with -o, or replace the "
            "link with --force"
        )
    if path.exists() and not force:
        raise UsageError(f"{path}: exists already; choose another name with -o, or overwrite it with --force")
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file with -o")
    parent = path.parent
    if not parent.is_dir():
        raise UsageError(f"{path}: there is no directory {parent}; create it first")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{path}: the directory {parent} is not writable; choose another with -o")


def check_output_folder(path: Path, *, force: bool) -> None:
    """Check that files can be written into the folder ``path``, which need not exist.

    Raises:
        UsageError: it is a file, holds files and ``force`` is false, or cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; name a folder")
    if path.is_dir():
        if any(path.iterdir()) and not force:
            raise UsageError(f"{path}: holds files already; name another folder, or replace those with --force")
        if not os.access(path, os.W_OK):
            raise UsageError(f"{path}: is not writable; name another folder")
        return
    check_output(path, force=force)


def noted(path: Path) -> dict[str, Any]:
    """Return what a file of a run says by name; nothing if it is not there yet."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
