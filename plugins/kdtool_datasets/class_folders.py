"""Classes from the folders that images lie in, and splits of them in which each real file counts once."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdtool import Error
from kdtool.data import difference
from kdtool.utils import printable
from kdtool_datasets.listing import SUFFIXES, Entry, Listing, below, counted, some

if TYPE_CHECKING:
    from kdtool.data import RawSplit

LIST_INSTEAD = "put the images of each class into one folder, or list them in labels.csv with the columns file,label"

# Files that hold many images, by their suffix, and what reads them.
OTHERWISE = {".parquet": "parquet:PATH", ".tar": "webdataset:PATH"}


@dataclass(frozen=True)
class Levels:
    """Which of the folders above an image make the name of its class: those at the levels ``kept``, from 0.

    With ``depth`` None images may lie at any depth; otherwise all lie in that many folders.
    """

    kept: tuple[int, ...]
    depth: int | None = None

    def name(self, folders: Sequence[str]) -> str | None:
        """Return the name of the class of an image in ``folders``, or None if it lies elsewhere."""
        if len(folders) <= self.kept[-1] or self.depth not in (None, len(folders)):
            return None
        return "/".join(folders[level] for level in self.kept)


TOP = Levels((0,))


@dataclass(frozen=True)
class Classes:
    """The images of a folder by the name of their class, in order, also those without images; and what to say."""

    folder: str
    images: dict[str, list[Entry]]
    levels: Levels
    notes: tuple[str, ...]


def classes_below(listing: Listing, folder: str, like: Classes | None = None) -> Classes:
    """Return the images below ``folder`` by class; by the levels of ``like`` if they fit.

    A sub-folder of a class folder counts to the class. Where no class folder holds images itself and all images lie at
    one deeper level, the folders down to there make the name of the class, as in ``animal/cat``, without levels at
    which all have the same name.

    Raises:
        kdtool.Error: there are no images in sub-folders, or they lie at different levels.
    """
    inside = list(below(listing.images, folder))
    loose = [entry.key for entry, folders in inside if not folders]
    nested = [pair for pair in inside if pair[1]]
    shown = printable(str(listing.path(folder)), 400)
    if not nested:
        found = f"no class folders, only {counted(loose, 'image')}" if loose else "no images"
        kinds = "; ".join(listing.notes())
        way = next(
            (f"read it with {way}" for suffix, way in OTHERWISE.items() if suffix in listing.others), LIST_INSTEAD
        )
        raise Error(f"{shown}: has {found} ({', '.join(SUFFIXES)}){kinds and '; ' + kinds}; {way}")
    inner = {folders for _, folders in nested}
    if like is not None and all(like.levels.name(folders) in like.images for folders in inner):
        levels = like.levels
    else:
        levels = _levels(shown, nested)
    notes = []
    if loose:
        where = printable(folder) if folder else "the folder"
        notes.append(f"left out {counted(loose, 'image')} in {where} outside the class folders ({some(loose)})")
    images: dict[str, list[Entry]] = {name: [] for name in _folders_of(listing, folder, levels)}
    deeper: Counter[str] = Counter()
    names = {folders: levels.name(folders) for folders in inner}
    whole = levels == TOP
    for entry, folders in nested:
        name = names[folders]
        assert name is not None
        images.setdefault(name, []).append(entry)
        if whole and len(folders) > 1:
            deeper["/".join(folders[:2])] += 1
    if deeper:
        number = counted(sum(deeper.values()), "image")
        notes.append(f"{number} in sub-folders of classes counted to the class ({some(list(deeper))})")
    elif levels.depth is not None and like is None:
        notes.append(f"classes are read {levels.depth} folders deep: {some(sorted(images))}")
    ordered = {name: images[name] for name in sorted(images)}
    notes += check_names(shown, list(ordered)) if like is None else []
    return Classes(folder, ordered, levels, tuple(notes))


def _levels(shown: str, nested: list[tuple[Entry, tuple[str, ...]]]) -> Levels:
    direct = {folders[0] for _, folders in nested if len(folders) == 1}
    tops = {folders[0] for _, folders in nested}
    if tops == direct:
        return TOP
    depths = {len(folders): entry.key for entry, folders in reversed(nested)}
    if direct or len(depths) > 1:
        keys = sorted(depths.items())
        if direct:
            inner = next(entry.key for entry, folders in nested if folders[0] not in direct)
            keys = [(1, depths[1]), (2, inner)]
        raise Error(
            f"{shown}: images lie at different depths, so that it cannot be known which folders are classes (such as "
            f"{printable(keys[0][1])} and {printable(keys[-1][1])}); {LIST_INSTEAD}"
        )
    (depth,) = depths
    kept = tuple(level for level in range(depth) if len({folders[level] for _, folders in nested}) > 1)
    return Levels(kept or (0,), depth)


def _folders_of(listing: Listing, folder: str, levels: Levels) -> Iterable[str]:
    """Yield the class folders by their names, also empty ones."""
    start = f"{folder}/" if folder else ""
    depth = levels.depth or 1
    for path in listing.folders:
        if path.startswith(start):
            folders = path[len(start) :].split("/")
            if len(folders) == depth and (name := levels.name(folders)) is not None:
                yield name


def check_names(shown: str, names: Sequence[str]) -> list[str]:
    """Check that names of classes can be told apart, and written; return what to say of them.

    Raises:
        kdtool.Error: they cannot.
    """
    plain: dict[str, str] = {}
    folded = Counter(name.casefold() for name in names)
    alike = [name for name in names if folded[name.casefold()] > 1]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise Error(f"{shown}: the class {printable(name)!r} is not valid UTF-8; rename it") from None
        other = plain.setdefault(unicodedata.normalize("NFC", name).strip(), name)
        if other != name:
            raise Error(
                f"{shown}: two classes have the same name ({difference([name], [other])}); merge or rename them"
            )
    return [f"classes that differ in case only are different ones ({some(alike)})"] if alike else []


def check_same(shown: str, part: Classes, train: Classes) -> None:
    """Check that a split has the classes of the train split; one without images is a folder without images.

    Raises:
        kdtool.Error: it has not; the message has the differences.
    """
    if list(part.images) != list(train.images):
        differs = difference(list(part.images), list(train.images))
        raise Error(
            f"{shown}: the classes of {printable(part.folder)} are not those of {printable(train.folder)}: {differs}; "
            "rename or move its folders, and make an empty one for a class without images"
        )


def raw_splits(
    listing: Listing, parts: Mapping[str, Mapping[str, Sequence[Entry]]]
) -> tuple[dict[str, RawSplit], list[str]]:
    """Return the splits ``parts``, by name the images by class, with each real file once; and what to say of them.

    Raises:
        kdtool.Error: two splits or classes hold the same file, or a class of train has no images.
    """
    import torch

    from kdtool.data import RawSplit

    kept, copies = _each_once(listing, parts)
    notes = [f"{counted(copies, 'image')} counted once, being links to others ({some(copies)})"] if copies else []
    splits = {}
    for part, classes in parts.items():
        empty = [name for name in classes if not classes[name]]
        if empty and part == "train":
            names = ", ".join(repr(printable(name, 60)) for name in empty[:4]) + (", ..." if len(empty) > 4 else "")
            raise Error(
                f"{printable(str(listing.root), 400)}: the train split has no image of class {names}; add some, or "
                "remove the class"
            )
        if empty:
            notes.append(f"the {part} split has no images of {counted(empty, 'class', 'classes')} ({some(empty)})")
        keys: list[str] = []
        labels: list[int] = []
        for label, members in enumerate(classes.values()):
            chosen = [entry.key for entry in members if entry.key in kept]
            keys += chosen
            labels += [label] * len(chosen)
        paths = tuple(map(listing.path, keys))
        splits[part] = RawSplit(paths, torch.tensor(labels, dtype=torch.int64), tuple(keys))
    return splits, notes


def _each_once(listing: Listing, parts: Mapping[str, Mapping[str, Sequence[Entry]]]) -> tuple[set[str], list[str]]:
    """Return the keys of the images that are kept, and of those that are other names of the same files."""
    # By device and number. With a million files, a tuple for each would keep the garbage collector busy.
    kept: dict[int, dict[int, Entry]] = {}
    owners: dict[int, dict[int, tuple[str, str]]] = {}
    others, copies = [], []
    for part, classes in parts.items():
        for name, members in classes.items():
            owner = part, name
            for entry in members:
                files = kept.setdefault(entry.device, {})
                first = files.setdefault(entry.number, entry)
                if first is entry:
                    owners.setdefault(entry.device, {})[entry.number] = owner
                elif not entry.number or not _is_same(listing, first, entry):
                    others.append(entry.key)
                elif (before := owners[entry.device][entry.number]) != owner:
                    raise Error(
                        f"{printable(str(listing.root), 400)}: {printable(first.key)} and {printable(entry.key)} are "
                        f"the same file in two {'splits' if before[0] != part else 'classes'}; remove one of them"
                    )
                elif first.link and not entry.link:
                    # A real file keeps its name as the key if a link to it is added.
                    files[entry.number] = entry
                    copies.append(first.key)
                else:
                    copies.append(entry.key)
    return {entry.key for files in kept.values() for entry in files.values()}.union(others), copies


def _is_same(listing: Listing, entry: Entry, other: Entry) -> bool:
    # Some file systems give the same number to different files.
    return entry.link or other.link or os.path.samefile(listing.path(entry.key), listing.path(other.key))
