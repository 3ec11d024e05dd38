"""Tables in CSV and JSON: the names of their columns and their rows, as text."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdtool import Error
from kdtool.utils import printable
from kdtool_datasets.listing import counted

# A list of a million files has about 100 MB.
LONGEST = 2**28

# A table of so many columns is no list of files.
MOST_COLUMNS = 10_000

FILE_NAMES = frozenset(("file", "files", "filename", "filepath", "path", "image", "images", "imagename", "imagepath",
                        "imagefile", "imagefilename", "img", "imgname", "imgpath", "relpath"))  # fmt: skip
LABEL_NAMES = frozenset(("label", "labels", "class", "classes", "classname", "labelname", "target", "category", "y"))
SPLIT_NAMES = frozenset(("split", "set", "subset", "partition", "phase"))


class Table(NamedTuple):
    """Rows of text with the line of each in words; ``names`` are those of the columns, None if nothing says so."""

    names: list[str] | None
    rows: list[tuple[str, list[str]]]


def read_table(path: Path, shown: str) -> Table:
    """Return a table in CSV or JSON; ``shown`` names it in messages.

    Raises:
        kdtool.Error: it is no table, or there are two ways to read it.
    """
    text = _text(path, shown)
    if path.suffix.lower() in (".json", ".jsonl"):
        return _json_table(text, path.suffix.lower() == ".jsonl", shown)
    return _csv_table(text, "\t" if path.suffix.lower() == ".tsv" else ",;\t", shown)


def _text(path: Path, shown: str) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever
            raise Error(f"{shown}: is no regular file; remove or replace it")
        with open(path, "rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise Error(f"{shown}: cannot be read: {error.strerror}") from error
    if len(data) > LONGEST:
        raise Error(f"{shown}: is longer than {LONGEST >> 20} MiB; split it, or use class folders")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Error(f"{shown}: line {line} is not in UTF-8; save the list as UTF-8") from error
    if "\0" in text:
        raise Error(f"{shown}: is no text; save the list as UTF-8")
    return text


def _csv_table(text: str, delimiters: str, shown: str) -> Table:
    """Return a table; its first row has the names of the columns if one of them is known."""
    first = {}
    for delimiter in delimiters:
        with contextlib.suppress(csv.Error, StopIteration):
            _, first[delimiter] = next(_csv_rows(text, delimiter))
    several = {delimiter: row for delimiter, row in first.items() if len(row) > 1}
    known = {delimiter: row for delimiter, row in several.items() if set(map(plain, row)) & FILE_NAMES}
    fitting = known or several
    if len(fitting) > 1:
        raise Error(f"{shown}: it cannot be known what separates its columns; write a first line file,label")
    if text.strip() and first and not fitting:
        raise Error(f"{shown}: has one column only; write lines of file,label")
    delimiter = next(iter(fitting), ",")
    if len(first.get(delimiter, ())) > MOST_COLUMNS:
        raise Error(f"{shown}: has more than {MOST_COLUMNS:,} columns; write lines of file,label")
    try:
        table = list(_csv_rows(text, delimiter))
    except csv.Error as error:
        raise Error(f"{shown}: is no table of text ({error}); save it as CSV in UTF-8") from error
    if not table:
        raise Error(f"{shown}: lists no files; write lines of file,label, or move it elsewhere to read class folders")
    width = len(table[0][1])
    for line, row in table:
        if len(row) != width:
            raise Error(
                f"{shown}: {line} has {counted(row, 'column')}, the first line {width}; put names with separators in "
                "quotes"
            )
    return Table(table[0][1], table[1:]) if known else Table(None, table)


def _csv_rows(text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield f"line {reader.line_num}", cells


def _json_table(text: str, lines: bool, shown: str) -> Table:
    """Return the table of a list of objects, or of one object of files and labels."""
    try:
        if lines:
            parts = [(f"line {number}", json.loads(line, object_pairs_hook=_Pairs))
                     for number, line in enumerate(text.split("\n"), 1) if line.strip()]  # fmt: skip
        else:
            content = json.loads(text, object_pairs_hook=_Pairs)
            if isinstance(content, _Pairs):
                content = [_Pairs([("file", file), ("label", label)]) for file, label in content]
            parts = [(f"entry {number}", entry) for number, entry in enumerate(content, 1)]
    except (ValueError, RecursionError, TypeError) as error:
        raise Error(
            f'{shown}: is no list in JSON ({printable(str(error))}); write [{{"file": ..., "label": ...}}, ...]'
        ) from error
    names: list[str] = []
    records = []
    for line, entry in parts:
        if not isinstance(entry, _Pairs):
            raise Error(f'{shown}: {line} is no object; write {{"file": ..., "label": ...}}')
        names = names or [name for name, _ in entry]
        values = dict(entry)
        if len(values) < len(entry) or set(values) != set(names):
            raise Error(
                f"{shown}: {line} does not have the names of the first one, {', '.join(map(printable, names[:8]))}"
            )
        records.append((line, [_cell(values[name], f"{shown}: {line}", name) for name in names]))
    return Table(names, records)


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with names that may occur twice."""


def _cell(value: Any, where: str, name: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if type(value) is int:
        return str(value)
    if value is None:
        return ""
    if plain(name) in FILE_NAMES | LABEL_NAMES | SPLIT_NAMES:
        raise Error(f"{where} has a {printable(name)} that is neither text nor a whole number")
    return ""


def plain(name: str) -> str:
    """Return the name of a column in lower case, with letters and digits alone."""
    return "".join(char for char in name.casefold() if char.isalnum())
