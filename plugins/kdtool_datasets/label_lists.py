"""Lists of files and their labels: labels.csv, .tsv, .json or .jsonl."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdtool import Error
from kdtool.utils import printable
from kdtool_datasets.class_folders import check_names
from kdtool_datasets.listing import SUFFIXES, Entry, Listing, counted, some
from kdtool_datasets.samples import class_order, missing_labels, say_below_zero
from kdtool_datasets.split_names import split_of
from kdtool_datasets.tables import FILE_NAMES, LABEL_NAMES, SPLIT_NAMES, plain, read_table

LIST_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")


@dataclass(frozen=True)
class Row:
    """What a list says of a file; ``line`` is where, in words."""

    file: str
    label: str
    split: str | None
    line: str


def list_in(folder: Path) -> Path | None:
    """Return the list of labels in a folder, None if there is none.

    Raises:
        kdtool.Error: there are two.
    """
    names = sorted(
        name for name in os.listdir(folder) if name.lower() in {f"labels{suffix}" for suffix in LIST_SUFFIXES}
    )
    if len(names) > 1:
        raise Error(f"{printable(str(folder), 400)}: has {' and '.join(names)}; keep one of them")
    return folder / names[0] if names else None


def read_list(
    path: Path, choices: Mapping[str, str] | None = None
) -> tuple[Listing, dict[str, dict[str, list[Entry]]], bool, list[str]]:
    """Return the files of a list with the folder it lies in.

    The files are by split and class; all are in train if the list has no column of splits. This is the third value, the
    fourth is what to say. ``choices`` are the columns that the user chose for the file, the label and the split.

    Raises:
        kdtool.Error: the list cannot be read in one way only, or it does not fit the files.
    """
    shown = printable(str(path), 400)
    rows, notes = _rows(path, shown, choices or {})
    listing, missing = Listing(path.parent), missing_labels(row.label for row in rows)
    files: dict[str, Row] = {}
    entries: dict[str, Entry] = {}
    repeated = []
    for row in rows:
        if not row.label or row.label in missing:
            said = f" ({row.label})" if row.label else ""
            raise Error(f"{shown}: {row.line} has no label{said} for {printable(row.file)}; add one, or remove it")
        entry = _entry(listing, row, shown)
        known = files.setdefault(entry.key, row)
        if known is row:
            entries[entry.key] = entry
        elif (known.label, known.split) == (row.label, row.split):
            repeated.append(entry.key)
        else:
            what = "labels" if known.label != row.label else "splits"
            first, second = (known.label, row.label) if what == "labels" else (known.split, row.split)
            raise Error(
                f"{shown}: {printable(entry.key)} has two {what}, {printable(str(first))!r} and "
                f"{printable(str(second))!r} ({known.line} and {row.line}); keep one"
            )
    if not files:
        raise Error(f"{shown}: lists no files; write lines of file,label, or move it elsewhere to read class folders")
    if repeated:
        notes.append(f"{path.name} lists {counted(repeated, 'file')} more than once ({some(repeated)})")
    names = class_order(row.label for row in files.values())
    notes += [*check_names(shown, names), *say_below_zero(names)]
    splits = {row.split or "train" for row in files.values()}
    if "train" not in splits:
        raise Error(f"{shown}: lists no files of the train split, only of {', '.join(sorted(splits))}")
    parts: dict[str, dict[str, list[Entry]]] = {
        split: {name: [] for name in names} for split in ("train", "val", "test") if split in splits
    }
    for key in sorted(files):
        parts[files[key].split or "train"][files[key].label].append(entries[key])
    notes += _unlisted(listing, entries, path)
    return listing, parts, not any(row.split for row in rows), notes


def _entry(listing: Listing, row: Row, shown: str) -> Entry:
    """Return the file of a row.

    Raises:
        kdtool.Error: it is not in the folder of the list.
    """
    where, name = f"{shown}: {row.line}", printable(row.file, 200)
    if not row.file or "\0" in row.file:
        raise Error(f"{where} names no file; remove it")
    folder = os.path.join(listing.root, "")
    path = os.path.normpath(folder + row.file if not os.path.isabs(row.file) else row.file)
    if "\\" in row.file and not os.path.exists(path):
        path = os.path.normpath(folder + row.file.replace("\\", "/"))
    if not path.startswith(folder):
        raise Error(f"{where}: {name} leads out of the folder of the list; move the list to a folder above all files")
    key = path[len(folder) :].replace(os.sep, "/")
    try:
        status = os.lstat(path)
        link = stat.S_ISLNK(status.st_mode)
        if link:
            status = os.stat(path)
        real = os.path.realpath(path) if link else os.path.join(_real(os.path.dirname(path)), "")
        if not real.startswith(os.path.join(_real(folder), "")):
            listing.outside.append((key, real))
    except (OSError, ValueError):
        hint = "" if os.path.splitext(row.file)[1] else "; a name needs its suffix, such as .jpg"
        raise Error(f"{where}: there is no file {name} in the folder of the list{hint}") from None
    if not stat.S_ISREG(status.st_mode):
        raise Error(f"{where}: {name} is no regular file")
    return Entry(key, status.st_dev, status.st_ino, link)


@functools.lru_cache(maxsize=10_000)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _unlisted(listing: Listing, entries: dict[str, Entry], path: Path) -> list[str]:
    """Return what to say of images that are not in the list, but in the folders of those that are."""
    left = []
    for folder in sorted({os.path.dirname(key) for key in entries}):
        for name in sorted(os.listdir(listing.path(folder))):
            key = f"{folder}/{name}" if folder else name
            if key not in entries and name.lower().endswith(SUFFIXES) and not name.startswith("."):
                left.append(key)
    lines = [f"classes are read from {path.name}"]
    return lines + (
        [f"left out {counted(left, 'image')} that {path.name} does not list ({some(left)})"] if left else []
    )


def _rows(path: Path, shown: str, choices: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    table = read_table(path, shown)
    if table.names is not None:
        columns, notes = _columns(table.names, shown, choices)
        records = table.rows
    elif choices:
        columns, notes = _columns(table.rows[0][1], shown, choices)
        records = table.rows[1:]
    else:
        columns, notes, records = _columns_of_values(table.rows, path.parent, shown)
    file, label, split_column = columns
    rows = []
    for line, values in records:
        split = None
        if split_column is not None:
            split = split_of(values[split_column])
            if split is None:
                raise Error(
                    f"{shown}: {line} has the split {printable(values[split_column])!r}; write train, val or test"
                )
        rows.append(Row(values[file], values[label], split, line))
    return rows, notes


def _columns(
    names: Sequence[str], shown: str, choices: Mapping[str, str]
) -> tuple[tuple[int, int, int | None], list[str]]:
    """Return the columns of files, labels and splits by their names, and what to say of the others."""
    simple = [plain(name) for name in names]
    columns: list[int | None] = []
    for name in choices.values():
        if names.count(name) != 1:
            raise Error(f"{shown}: has {'no column' if name not in names else 'two columns'} {printable(name)}")
    for what, known in (("file", FILE_NAMES), ("label", LABEL_NAMES), ("split", SPLIT_NAMES)):
        if what in choices:
            columns.append(names.index(choices[what]))
            continue
        fitting = [index for index, name in enumerate(simple) if name in known and names[index] not in choices.values()]
        exact = [index for index in fitting if simple[index] == what]
        if len(fitting) > 1 and len(exact) != 1:
            both = " and ".join(printable(names[index]) for index in fitting[:2])
            raise Error(
                f"{shown}: its columns {both} may both be the {what}; name one of them {what}, or choose it, as in "
                f"csv:{shown},{what}={printable(names[fitting[0]])}"
            )
        columns.append(next(iter(exact or fitting), None))
    file, label, split = columns
    rest = [index for index in range(len(names)) if index not in (file, label, split) and names[index]]
    notes = []
    if label is None and file is not None and len(rest) == 1:
        label = rest.pop()
        notes.append(f"labels are read from the column {printable(names[label])}")
    if file is None or label is None:
        shown_names = ", ".join(map(printable, names[:8]))
        raise Error(
            f"{shown}: it cannot be known which of its columns ({shown_names}) are the file and the label; name them "
            "file and label"
        )
    if rest:
        notes.append(f"left out {counted(rest, 'column')} of the list ({some([names[index] for index in rest])})")
    return (file, label, split), notes


def _columns_of_values(
    records: list[tuple[str, list[str]]], folder: Path, shown: str
) -> tuple[tuple[int, int, int | None], list[str], list[tuple[str, list[str]]]]:
    """Return the columns of a table whose first row has no known names, what to say, and its rows without names.

    The column of the files is the one that names a file in the first row. If none does, that row holds the names of the
    columns, and the second row is looked at.
    """
    for skipped, (_, first) in enumerate(records[:2]):
        rows = records[skipped:]
        files = [column for column, value in enumerate(first) if value and os.path.isfile(os.path.join(folder, value))]
        splits = [column for column in range(len(first)) if all(split_of(row[column]) for _, row in rows)]
        rest = sorted({*range(len(first))} - {*files, *splits})
        if len(files) == len(rest) == 1 and len(splits) == len(first) - 2 <= 1:
            names = records[0][1]
            said = [
                f"files are read from the column {printable(names[files[0]])}, labels from {printable(names[rest[0]])}"
            ]
            return (files[0], rest[0], splits[0] if splits else None), said if skipped else [], rows
        if files:
            break
    shown_values = ", ".join(map(printable, records[0][1][:8]))
    raise Error(
        f"{shown}: it cannot be known which of its columns ({shown_values}) are the file and the label; write a first "
        "line file,label"
    )
