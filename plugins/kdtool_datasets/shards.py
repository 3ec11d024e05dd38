"""Files that hold many images each: which of them belong to which split, and whether one is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdtool import Error, UsageError
from kdtool.utils import printable
from kdtool_datasets.listing import counted, some
from kdtool_datasets.places import located
from kdtool_datasets.split_names import split_of

# The most files that one data set may have.
MOST = 100_000

# 000 in train-000, 00000 and 00002 in train-00000-of-00002-0f1e2d3c4b5a6978.
NUMBER = re.compile(r"(.*?)[-_.]?(\d+)(?:-of-(\d+)(?:-[0-9a-f]{8,})?)?", re.DOTALL)

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class Shards:
    """Files by split, with the folder that all lie in; all are in train if ``whole``, because nothing names a split."""

    root: Path
    splits: dict[str, tuple[Path, ...]]
    whole: bool
    notes: tuple[str, ...]

    def key(self, path: Path) -> str:
        """Return the path of a file below the folder, with ``/`` and without its suffix."""
        return path.relative_to(self.root).with_suffix("").as_posix()


def find_files(argument: str, root: Path | None, suffix: str, name: str) -> Path:
    """Return the absolute path of a file, of a folder, or of a pattern such as ``train-{000..010}.tar``.

    ``suffix`` is that of the files, ``name`` that of the data set.

    Raises:
        UsageError: ``argument`` is empty.
        Error: there is nothing at that path, nor at ``root``.
    """
    if not argument:
        raise UsageError(f"needs the path of a {suffix} file, or of a folder of them; write {name}:PATH")

    def fits(path: Path) -> bool:
        return path.is_dir() or path.is_file() or any(map(os.path.isfile, _expanded(path)))

    return located(argument, root, fits, f"{suffix} file or folder")


def find_shards(path: Path, suffix: str, beside: Collection[str] = ()) -> Shards:
    """Return the files that `find_files` found; of others it is said that they are left out, but for ``beside``.

    Raises:
        Error: there are none, one is missing, or their splits cannot be known.
    """
    shown = printable(str(path), 400)
    notes: list[str] = []
    if path.is_dir():
        root, files = path, sorted(_below(path, suffix, beside, notes))
        if not files:
            raise Error(f"{shown}: has no {suffix} files")
    else:
        files = [path] if path.is_file() else list(_expanded(path))
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise Error(
                f"{shown}: {len(missing):,} of {counted(files, 'file')} {'is' if len(missing) == 1 else 'are'} missing "
                f"({_names(missing)}); download what is missing, or name those files that are there"
            )
        root = Path(os.path.commonpath([file.parent for file in files]))
    splits: dict[str | None, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file.relative_to(root)), []).append(file)
    unknown = splits.pop(None, [])
    if unknown and splits:
        raise Error(
            f"{shown}: it cannot be known in which split {_names(unknown)} is, beside "
            f"{_names(next(iter(splits.values())))}; name files, or their folders, train, val or test"
        )
    if not unknown and "train" not in splits and len(files) > 1:
        raise Error(f"{shown}: has no files of the train split, only of {', '.join(map(str, splits))}")
    # A single file is what it is, whatever its name.
    whole = bool(unknown) or len(files) == 1
    parts = {"train": files} if whole else {name: splits[name] for name in ("train", "val", "test") if name in splits}
    for members in parts.values():
        _check_complete(shown, members)
    _check_one_set(shown, root, files)
    return Shards(root, {name: tuple(members) for name, members in parts.items()}, whole, tuple(notes))


def _below(folder: Path, suffix: str, beside: Collection[str], notes: list[str]) -> Iterator[Path]:
    left, number = [], 0
    for inner, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in names:
            if name.startswith("."):
                continue
            if not name.lower().endswith(suffix):
                left += [name] if name not in beside else []
                continue
            number += 1
            if number > MOST:
                raise Error(f"{printable(str(folder), 400)}: has more than {MOST:,} {suffix} files; name one in it")
            path = Path(inner) / name
            if not path.is_file():  # a pipe would wait for ever
                raise Error(f"{printable(str(path), 400)}: is no regular file; remove or replace it")
            yield path
    if left:
        notes.append(f"left out {counted(left, 'file')}, no {suffix} ({some(sorted(left))})")


def _expanded(path: Path) -> Iterator[Path]:
    """Yield the paths that a pattern with ranges stands for; none for a path without ranges."""
    texts = [str(path)]
    while RANGE.search(texts[0]):
        match = RANGE.search(texts[0])
        assert match is not None
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + MOST or len(texts) * (last - first + 1) > MOST:
            raise Error(f"{printable(match[0])}: is no range of numbers, the smaller one first, of at most {MOST:,}")
        # 000..010 has leading zeros, 0..10 has none.
        width = len(match[1])
        ends = [RANGE.split(text, 1) for text in texts]
        texts = [f"{end[0]}{index:0{width}}{end[3]}" for end in ends for index in range(first, last + 1)]
    yield from (Path(text) for text in texts if text != str(path))


def _split_of(path: Path) -> str | None:
    """Return the split that a file belongs to by its name, or by that of a folder above; None if none says so."""
    stem = path.with_suffix("").name
    match = NUMBER.fullmatch(stem)
    name = match[1] if match is not None else stem
    for word in (name, re.split(r"[-_.]", name)[-1], *reversed(path.parts[:-1])):
        if word and (split := split_of(word)) is not None:
            return split
    return None


def _check_complete(shown: str, files: list[Path]) -> None:
    """Check that no number is missing among files that are numbered from 0 or 1, or say how many they are."""
    groups: dict[tuple[Path, str, str], dict[int, Path]] = {}
    for file in files:
        match = NUMBER.fullmatch(file.with_suffix("").name)
        if match is not None:
            groups.setdefault((file.parent, match[1], match[3] or ""), {})[int(match[2])] = file
    for (_, _, total), numbers in groups.items():
        first = min(numbers)
        if total:
            wanted = range(min(int(total), MOST))
        elif first <= 1 < len(numbers):
            wanted = range(first, max(numbers) + 1)
        else:
            continue
        missing = [number for number in wanted if number not in numbers]
        if missing:
            numbered = ", ".join(map(str, missing[:4])) + (", ..." if len(missing) > 4 else "")
            raise Error(
                f"{shown}: {counted(missing, 'file')} beside {printable(numbers[first].name)} "
                f"{'is' if len(missing) == 1 else 'are'} missing, of number {numbered}; download "
                f"{'it' if len(missing) == 1 else 'them'} again, or put those that are there into a folder under names "
                "without gaps"
            )


def _check_one_set(shown: str, root: Path, files: list[Path]) -> None:
    """Check that the files are those of one data set: they lie in one folder, apart from folders for the splits."""
    folders: dict[tuple[str, ...], Path] = {}
    for file in files:
        parts = file.relative_to(root).parts[:-1]
        folders.setdefault(tuple(part for part in parts if split_of(part) is None), file)
    if len(folders) > 1:
        raise Error(
            f"{shown}: {_names(list(folders.values()))} may be of several data sets, since they lie in different "
            "folders; name one folder"
        )


def _names(files: list[Path]) -> str:
    names = [printable(file.name, 60) for file in files[:2]]
    return names[0] if len(files) == 1 else " and ".join(names) if len(files) == 2 else f"such as {names[0]}"
