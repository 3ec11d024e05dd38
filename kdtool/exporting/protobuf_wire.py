"""Read messages of protobuf field by field, without building them.

Source: https://protobuf.dev/programming-guides/encoding/. What is skipped is not read, so that a file of 2 GiB takes
no more time and memory than its structure does. The file is not mapped into memory: a mapped file that somebody
shortens ends the process. Python's standard library suffices.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kdtool.errors import Error

# The largest networks of timm have some ten thousand nodes and a hundred thousand fields.
MOST_FIELDS, MOST_LETTERS = 3_000_000, 4096

# How many bytes are read at once.
WINDOW = 1 << 16


class Wire:
    """The content of a file on the wire; all errors name the file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.fields = path, 0
        self._descriptor, self._begin, self._window = descriptor, 0, b""

    def refuse(self, reason: str) -> Error:
        """Return an error about the file."""
        return Error(f"{self.path}: {reason}")

    def message(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield for each field its number, and the value of an integer (with -1) or its begin and end.

        Raises:
            Error: there is no message, or the file has too many fields.
        """
        at = begin
        while at < end:
            self.fields += 1
            if self.fields > MOST_FIELDS:
                raise self.refuse(f"has more than {MOST_FIELDS:,} entries besides its weights")
            tag, at = self.integer(at, end)
            number, kind = tag >> 3, tag & 7
            if kind == 0 and number:
                value, at = self.integer(at, end)
                yield number, value, -1
                continue
            if kind == 2:
                length, at = self.integer(at, end)
            else:
                length = {1: 8, 5: 4}.get(kind, end)
            if not number or length > end - at:
                raise self.damaged()
            yield number, at, at + length
            at += length

    def integer(self, at: int, end: int) -> tuple[int, int]:
        """Return an integer of at most 64 bits in groups of 7, and the place behind it.

        Raises:
            Error: there is none.
        """
        value = shift = 0
        while at < end and shift < 70:
            place = at - self._begin
            if not 0 <= place < len(self._window):
                self._window, self._begin, place = os.pread(self._descriptor, WINDOW, at), at, 0
                if not self._window:
                    break
            byte = self._window[place]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        raise self.damaged()

    def damaged(self) -> Error:
        """Return the error about bytes that are no message."""
        return self.refuse("is damaged or is no ONNX file; export the network again")

    def text(self, begin: int, end: int) -> str:
        """Return a name.

        Raises:
            Error: it is longer than any name.
        """
        if end - begin > MOST_LETTERS:
            raise self.refuse(f"has a name of {end - begin:,} bytes")
        return os.pread(self._descriptor, end - begin, begin).decode("utf-8", "replace")

    def integers(self, begin: int, end: int, most: int) -> list[int]:
        """Return the values of a repeated integer, which stand in one field or in several.

        Raises:
            Error: there are more than ``most``.
        """
        if end < 0:
            return [begin]
        values: list[int] = []
        while begin < end:
            value, begin = self.integer(begin, end)
            values.append(value)
            if len(values) > most:
                raise self.refuse(f"has a tensor of more than {most} dimensions")
        return values
