"""What is known of every image file: its content's hash and its header, cached until the file changes."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from kdtool.data.image_formats import header_of
from kdtool.data.raw import FilePart, ImageSource, file_of, open_bytes
from kdtool.errors import Error
from kdtool.utils.files import cache_directory
from kdtool.utils.formatting import printable
from kdtool.utils.progress import progress

# Raise it when a field of `FileInfo` changes its meaning: older entries are then read anew.
FORMAT = 4

TABLE = f"files{FORMAT}"

# A file that changed less than this many seconds ago may change again within the resolution of its time stamps, which
# nobody could tell from them; it is not cached.
SETTLED = 2.0

# How many files are looked up, read and written together.
AT_ONCE = 500

THREADS = 4


class FileInfo(NamedTuple):
    """A file's content and header.

    ``digest`` is a BLAKE2b hash of its bytes (16 bytes). ``width`` and ``height`` are in pixels, as the image is seen
    (after its EXIF orientation). ``mode``, ``peak``, ``frames``, ``low`` and ``turned`` are those of its `Header`.
    ``problem`` is the reason why it cannot be read as an image, or "".
    """

    digest: bytes
    width: int
    height: int
    mode: str
    peak: int | None
    problem: str
    frames: int = 1
    low: int | None = None
    turned: bool = False


def index_files(paths: Sequence[ImageSource], title: str = "reading headers") -> list[FileInfo]:
    """Return what is known of each file, or part of a file, in the order of ``paths``.

    Files that changed since the last call (in size or time) are read; the others come from a database in the user's
    cache directory. Without a writable one every call reads all files.

    Raises:
        Error: a file is missing or cannot be read.
    """
    known: dict[int, FileInfo] = {}
    with _database() as database:
        files: dict[Path, str] = {}
        for path in map(file_of, paths):
            if path not in files:
                files[path] = _stat(path)
        stats = [files[file_of(path)] for path in paths]
        for start in range(0, len(paths), AT_ONCE):
            chunk = range(start, min(start + AT_ONCE, len(paths)))
            rows = _stored(database, [_name(paths[index]) for index in chunk])
            for index in chunk:
                row = rows.get(_name(paths[index]))
                if row is not None and row[0] == stats[index]:
                    known[index] = row[1]
        unknown = [index for index in range(len(paths)) if index not in known]
        with progress(title, len(unknown)) as advance, ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(unknown), AT_ONCE):
                part = unknown[start : start + AT_ONCE]
                found = list(pool.map(_read, [paths[index] for index in part]))
                known.update(zip(part, found, strict=True))
                _store(database, [(paths[index], stats[index], known[index]) for index in part])
                advance(len(part))
    return [known[index] for index in range(len(paths))]


def _stat(path: Path) -> str:
    """Return the size and the times of a file as one text."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise Error(f"{path}: cannot be read: it is no regular file")
    return f"{FORMAT} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _name(source: ImageSource) -> bytes:
    """Return the name of an image file in the database; behind that of a part stands where it lies."""
    if not isinstance(source, FilePart):
        return os.fsencode(source)
    return b"%s\0%d+%d" % (os.fsencode(source.path), source.start, source.size)


def _read(path: ImageSource) -> FileInfo:
    try:
        with open_bytes(path) as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()  # type: ignore[arg-type]
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Error(f"{printable(str(path), 400)}: {error}; replace it") from error
    try:
        header = header_of(path)
    except Error as error:
        return FileInfo(digest, 0, 0, "", None, str(error))
    known = header.width, header.height, header.mode, header.peak, "", header.frames, header.low, header.turned
    return FileInfo(digest, *known)


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection | None]:
    """Yield the database, or None where none can be opened; a damaged one is made anew."""
    directory = cache_directory()
    path = directory / "images.sqlite" if directory is not None else None
    connection = None
    for attempt in (1, 2):
        if path is None:
            break
        try:
            connection = sqlite3.connect(path, timeout=10, isolation_level=None)
            connection.execute("PRAGMA synchronous = OFF")  # it can be made anew at any time
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {TABLE} (path BLOB PRIMARY KEY, stat TEXT, digest BLOB, width INTEGER, "
                "height INTEGER, mode TEXT, peak INTEGER, problem TEXT, frames INTEGER, low INTEGER, turned "
                "INTEGER) WITHOUT ROWID"
            )
            break
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            connection = None
            if attempt == 1 and isinstance(error, sqlite3.DatabaseError) and "locked" not in str(error):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            else:
                logging.getLogger("kdtool").debug("%s: not used (%s)", path, error)
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _stored(database: sqlite3.Connection | None, names: list[bytes]) -> dict[bytes, tuple[str, FileInfo]]:
    if database is None:
        return {}
    marks = ", ".join("?" * len(names))
    try:
        rows = database.execute(f"SELECT * FROM {TABLE} WHERE path IN ({marks})", names).fetchall()
        return {bytes(row[0]): (row[1], _checked(row[2:])) for row in rows}
    except (sqlite3.Error, TypeError, ValueError):
        return {}


def _checked(row: tuple[object, ...]) -> FileInfo:
    """Return a row as `FileInfo`; a damaged database may hold anything."""
    digest, width, height, mode, peak, problem, frames, low, turned = row
    if not (isinstance(digest, bytes) and len(digest) == 16 and isinstance(width, int) and isinstance(height, int)):
        raise ValueError("damaged row")
    if not (isinstance(mode, str) and isinstance(problem, str) and isinstance(frames, int)):
        raise ValueError("damaged row")
    if not (isinstance(peak, int | None) and isinstance(low, int | None)):
        raise ValueError("damaged row")
    return FileInfo(digest, width, height, mode, peak, problem, frames, low, turned == 1)


def _store(database: sqlite3.Connection | None, entries: list[tuple[ImageSource, str, FileInfo]]) -> None:
    if database is None:
        return
    settled = (time.time() - SETTLED) * 1e9
    rows = [
        (_name(path), stat, *info)
        for path, stat, info in entries
        # A later release of Pillow may read what this one cannot.
        if not info.problem and max(map(int, stat.split()[2:])) < settled
    ]
    with contextlib.suppress(sqlite3.Error):
        database.execute("BEGIN")
        database.executemany(f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        database.execute("COMMIT")
