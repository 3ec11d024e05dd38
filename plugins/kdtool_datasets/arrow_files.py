"""Where the images of Arrow files lie, so that each is read alone; and Parquet files converted to them, once.

The pages of a Parquet file are compressed, each with many images. So its images are copied into an Arrow file in the
user's cache directory, which holds their bytes as they are.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdtool import Error, UsageError
from kdtool.utils import atomic, cache_directory, printable, progress_bar

if TYPE_CHECKING:
    import pyarrow

# Raise it when the content of the files changes.
FORMAT = 1

# The column of images of a converted file.
COLUMN = "image"

# How many images are converted together. Each may be large.
AT_ONCE = 16

# A conversion stops before the disk is full.
RESERVE = 2**29


class Place(NamedTuple):
    """Where the bytes of an image lie in a file, and its name there; ``size`` is -1 if it has no bytes."""

    start: int
    size: int
    name: str | None


def needed(package: str) -> None:
    """Check that a package of the extra ``datasets`` is installed.

    Raises:
        kdtool.UsageError: it is not.
    """
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UsageError(f"needs {package}; pip install 'kdtool[datasets]'")


@contextlib.contextmanager
def naming_damage(shown: str) -> Iterator[None]:
    """Turn what pyarrow raises of a file into one error with its name."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        # A disk that is full is no damage.
        if isinstance(error, Error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 200)
        raise Error(f"{shown}: cannot be read ({reason}); download it again") from error


def places_in(path: Path, column: str) -> list[Place]:
    """Return where the images of a column of an Arrow file (a stream) lie; their bytes are not read.

    Raises:
        kdtool.Error: the file is damaged, or its images are compressed.
    """
    import numpy
    import pyarrow

    places: list[Place] = []
    with naming_damage(printable(str(path), 400)), pyarrow.memory_map(str(path)) as file:
        whole = file.read_buffer()
        file.seek(0)
        for batch in pyarrow.ipc.open_stream(file):
            images, names = _bytes_and_names(batch.column(column))
            if not len(images):
                continue
            valid, offsets, data = images.buffers()
            width = numpy.int64 if pyarrow.types.is_large_binary(images.type) else numpy.int32
            first = images.offset
            borders = numpy.frombuffer(offsets, width)[first : first + len(images) + 1].astype(numpy.int64)
            # A buffer without bytes lies nowhere.
            start = data.address - whole.address if data is not None and data.size else 0
            if data is not None and not 0 <= start <= start + data.size <= whole.size:
                raise Error(f"{printable(str(path), 400)}: its images are compressed; write it without compression")
            missing = images.is_null().to_pylist() if valid is not None else [False] * len(images)
            for index, name in enumerate(names):
                low, high = int(borders[index]), int(borders[index + 1])
                places.append(Place(start + low, -1 if missing[index] else high - low, name))
    return places


def unpacked(path: Path, column: str) -> tuple[Path, list[Place]]:
    """Return an Arrow file with the images of a column of a Parquet file, and where they lie in it.

    It is made in the user's cache directory at the first call, after each change of the file, and where it is damaged.

    Raises:
        kdtool.Error: the file is damaged, or there is no place for the images.
    """
    target = _converted(path, column)
    try:
        return target, places_in(target, COLUMN)
    except Error:
        target.unlink(missing_ok=True)
    return _converted(path, column), places_in(target, COLUMN)


def _converted(path: Path, column: str) -> Path:
    from filelock import FileLock

    cache, shown = cache_directory(), printable(str(path), 400)
    if cache is None:
        raise Error(f"{shown}: there is no place to unpack its images; name a directory with KDTOOL_CACHE")
    folder, status = cache / "parquet", path.stat()
    of_file = hashlib.blake2b(os.fsencode(f"{path}\0{column}"), digest_size=12).hexdigest()
    state = f"{FORMAT} {status.st_size} {status.st_mtime_ns}"
    target = folder / f"{of_file}-{hashlib.blake2b(state.encode(), digest_size=8).hexdigest()}.arrow"
    if _is_newer(target, status):
        return target
    with naming_damage(shown):
        folder.mkdir(exist_ok=True)
        # Processes that train together need the same images; one of them converts.
        with FileLock(folder / "lock"):
            if not _is_newer(target, status):
                began = time.time_ns()
                with atomic(target) as temporary, naming_damage(shown):
                    _convert(path, column, temporary, shown)
                    os.utime(temporary, ns=(began, began))  # the file may change while it is read
                for old in folder.glob(f"{of_file}-*.arrow"):
                    if old != target:
                        old.unlink(missing_ok=True)
    return target


def _is_newer(target: Path, status: os.stat_result) -> bool:
    """Return whether a file is there and was made after the last change of another one.

    Copies keep the time of the content (``cp -p``, ``rsync -t``, ``tar``); what counts is when a file came there.
    """
    try:
        return target.stat().st_mtime_ns > status.st_ctime_ns
    except OSError:
        return False


def _convert(path: Path, column: str, target: Path, shown: str) -> None:
    import pyarrow
    import pyarrow.parquet

    kind = pyarrow.struct([("bytes", pyarrow.large_binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([(COLUMN, kind)])
    # Without these settings pyarrow reads a whole row group ahead, which may be all of a file.
    with (
        pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file,
        pyarrow.ipc.new_stream(target, schema) as writer,
        progress_bar(f"unpacking {printable(path.name, 40)}", file.metadata.num_rows) as advance,
    ):
        for batch in file.iter_batches(AT_ONCE, columns=[column], use_threads=False):
            if shutil.disk_usage(target.parent).free < RESERVE:
                raise Error(
                    f"{shown}: there is not enough space in {printable(str(target.parent), 400)} for its images; "
                    "name another directory with KDTOOL_CACHE"
                )
            images, names = _bytes_and_names(batch.column(column))
            parts = [images.cast(pyarrow.large_binary()), pyarrow.array(names, pyarrow.string())]
            rows = pyarrow.StructArray.from_arrays(parts, fields=list(kind))
            writer.write_batch(pyarrow.record_batch([rows], schema=schema))
            advance(len(batch))


def _bytes_and_names(column: Any) -> tuple[pyarrow.Array, list[str | None]]:
    """Return the bytes of images and their names, from a column of bytes or of {bytes, path}."""
    import pyarrow

    if not pyarrow.types.is_struct(column.type):
        return column, [None] * len(column)
    # An entry that is missing altogether has neither.
    parts = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
    names = parts["path"].to_pylist() if "path" in parts else [None] * len(column)
    return parts["bytes"], [name if isinstance(name, str) else None for name in names]
