"""The members of a tar file, and where their bytes lie; nothing is unpacked, and the file has to be whole."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kdtool import Error
from kdtool.utils import printable

# How much may follow the end of a tar: tar fills up its last record, which some make large.
BLOCK = 512
REST = 2**24

# The first bytes of files that are compressed: gzip, bzip2, xz, zstandard.
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class Member(NamedTuple):
    """A regular file in a tar: its bytes are ``size`` from ``start`` on; ``content`` is its text if it was read."""

    name: str
    start: int
    size: int
    content: str | None


def members_of(path: Path, longest: int, is_text: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the regular files of a tar in their order; those whose name ``is_text`` are read.

    Links, devices and folders are passed over.

    Raises:
        kdtool.Error: the file is no tar, compressed or truncated, or a text has more than ``longest`` bytes.
    """
    shown = printable(str(path), 400)
    try:
        with open(path, "rb") as file:
            if file.read(6).startswith(COMPRESSED):
                raise Error(f"{shown}: is compressed, so that no image can be read alone; unpack it to a plain .tar")
            file.seek(0)
            length, before = os.fstat(file.fileno()).st_size, -1
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    # Otherwise it keeps them all.
                    tar.members.clear()  # type: ignore[attr-defined]
                    if not before < member.offset_data or member.size < 0:
                        raise tarfile.ReadError("its headers contradict each other")
                    before = member.offset_data
                    if member.offset_data + member.size > length:
                        raise Error(_truncated(shown, f"in the middle of {printable(member.name)}"))
                    if not member.isreg() or member.issparse():
                        continue
                    content = None
                    if is_text(member.name):
                        content = _text(file, member, longest, shown)
                    yield Member(member.name, member.offset_data, member.size, content)
                _check_end(file, tar.offset, length, shown)
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, UnicodeError) as error:
        if isinstance(error, Error):
            raise
        if "unexpected end of data" in str(error):
            raise Error(_truncated(shown, "in the middle of a file")) from error
        reason = printable(" ".join(str(error).split()) or type(error).__name__)
        raise Error(f"{shown}: cannot be read as a tar ({reason}); download it again") from error


def _truncated(shown: str, where: str) -> str:
    return f"{shown}: is truncated, it ends {where}; download it again"


def _text(file: BinaryIO, member: tarfile.TarInfo, longest: int, shown: str) -> str:
    if member.size > longest:
        raise Error(f"{shown}: {printable(member.name)} has {member.size:,} bytes, too many for a label")
    file.seek(member.offset_data)
    data: bytes = file.read(member.size)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Error(f"{shown}: {printable(member.name)} is no text in UTF-8; write its label as text") from error


def _check_end(file: BinaryIO, end: int, length: int, shown: str) -> None:
    """Check that a tar ends with a block of zeros, as each does, and that nothing follows.

    ``tarfile`` takes a damaged header, or a file that is cut off between two members, for the end.
    """
    file.seek(end)
    first: bytes = file.read(BLOCK)
    if len(first) < BLOCK:
        raise Error(_truncated(shown, "without the zeros at the end of each tar"))
    if any(first):
        raise Error(f"{shown}: is damaged at byte {end:,}; download it again")
    if length - end > REST or any(file.read(REST)):
        raise Error(f"{shown}: has more data behind its end at byte {end:,}; if two tars were joined, keep them apart")
