"""Which folders are splits: recognised, or refused with what is ambiguous."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from kdtool import Error
from kdtool.utils import printable
from kdtool_datasets.listing import Listing, counted, some
from kdtool_datasets.split_names import USUAL, splits_of

LIST_INSTEAD = "or list the images in labels.csv with the columns file,label,split"


@dataclass(frozen=True)
class Layout:
    """Where the class folders of each split are: a path below the root, "" for the root itself; and what to say.

    Only ``train`` is there if the class folders lie beside each other, without splits; then ``whole`` is true.
    """

    splits: dict[str, str]
    whole: bool
    notes: tuple[str, ...]


@dataclass
class _Child:
    """A folder: the images in it, those in its sub-folders by the name of the sub-folder, and all of them."""

    direct: int
    deeper: Counter[str]


def layout_of(listing: Listing) -> Layout:
    """Return where the splits of a folder are.

    Raises:
        kdtool.Error: it cannot be known; the message says what is ambiguous.
    """
    folder, children, entered = _entered(listing)
    shown = printable(str(listing.path(folder)), 400)
    notes: tuple[str, ...] = (f"read {printable(folder)}, the only folder there",) if entered else ()
    meant = splits_of(list(children))
    splits = {name: split for name, split in meant.items() if children[name].deeper}
    loose = [name for name in meant if children[name].direct and name not in splits]
    empty = [name for name in meant if name not in splits and name not in loose]
    others = [name for name in children if name not in meant and (children[name].direct or children[name].deeper)]
    if not splits:
        return _without(shown, folder, children, meant, loose, others, notes)
    for split in ("train", "val", "test"):
        same = [name for name in (*splits, *loose, *empty) if meant[name] == split]
        if len(same) > 1:
            raise Error(f"{shown}: {' and '.join(map(printable, same))} both mean {split}; keep one of them")
    if "train" not in splits.values():
        there = some(list(splits))
        beside = f" beside {some(others)}" if others else ""
        raise Error(
            f"{shown}: has no class folders in a train folder, only {there}{beside}; make {shown}/train/CLASS, "
            f"{LIST_INSTEAD}"
        )
    if loose:
        raise Error(
            f"{shown}: {printable(loose[0])} has {counted(children[loose[0]].direct, 'image')} but no class folders; "
            "put them into class folders, or move the folder elsewhere (--unlabelled folder:PATH learns from images "
            "without classes)"
        )
    if empty:
        raise Error(f"{shown}: {printable(empty[0])} has no images; remove the folder, or fill it")
    structured = [name for name in others if children[name].deeper]
    if structured and len(splits) == 1:
        raise Error(
            f"{shown}: {some(structured)} beside {some(list(splits))} is not known as a split or a class; name it val "
            f"or test, move it elsewhere, {LIST_INSTEAD}"
        )
    if others:
        number = sum(children[name].direct + sum(children[name].deeper.values()) for name in others)
        images = counted(number, "image")
        notes += (f"left out {some(others)} with {images}, being neither a split nor a class",)
    if unusual := [f"{printable(name)} as {split}" for name, split in splits.items() if name not in USUAL]:
        notes += (f"read {', '.join(unusual)}",)
    start = f"{folder}/" if folder else ""
    ordered: dict[str, str] = {}
    for split in ("train", "val", "test"):
        for name in splits:
            if splits[name] == split:
                ordered[split] = f"{start}{name}"
    return Layout(ordered, False, notes)


def _without(
    shown: str,
    folder: str,
    children: dict[str, _Child],
    meant: dict[str, str],
    loose: list[str],
    others: list[str],
    notes: tuple[str, ...],
) -> Layout:
    """Return the layout of class folders beside each other."""
    if meant and not others:
        raise Error(f"{shown}: has no class folders in a train folder; make {shown}/train/CLASS, {LIST_INSTEAD}")
    if loose and not all(meant[name] == "train" for name in loose):
        raise Error(
            f"{shown}: {some(loose)} may be a split or a class beside {some(others)}; put the classes below "
            f"train, rename it if it is a class, {LIST_INSTEAD}"
        )
    if len(loose) > 1:
        raise Error(f"{shown}: {some(loose)} may be splits or classes; rename them, {LIST_INSTEAD}")
    if loose:
        notes += (f"read {printable(loose[0])} as a class, since it has images but no class folders",)
    if not any(child.direct for child in children.values()):
        _check_no_splits(shown, children)
    return Layout({"train": folder}, True, notes)


def _check_no_splits(shown: str, children: dict[str, _Child]) -> None:
    """Check that folders of folders are no splits under unknown names, which have the same class folders."""
    names = {name: set(child.deeper) for name, child in children.items() if child.deeper}
    if len(set().union(*names.values())) < 2:
        return
    for name, inner in names.items():
        for other, others in names.items():
            shared = inner & others
            if name < other and 2 * len(shared) >= min(len(inner), len(others)):
                raise Error(
                    f"{shown}: {printable(name)} and {printable(other)} both have the folder "
                    f"{printable(min(shared))}; if they are splits, name them train, val and test; if they are "
                    "classes, list the images in labels.csv with the columns file,label"
                )


def _entered(listing: Listing) -> tuple[str, dict[str, _Child], bool]:
    """Return the folder that the layout begins in, its folders, and whether it is another than the root.

    A folder that holds nothing but one other, whose folders hold images, is entered, unless the other is a split.
    """
    folder = ""
    while True:
        children, direct = _children(listing, folder)
        if len(children) != 1 or direct:
            return folder, children, bool(folder)
        ((name, child),) = children.items()
        if child.direct or not child.deeper or splits_of([name]):
            return folder, children, bool(folder)
        folder = f"{folder}/{name}" if folder else name


def _children(listing: Listing, folder: str) -> tuple[dict[str, _Child], int]:
    start = f"{folder}/" if folder else ""
    children: dict[str, _Child] = {}
    for path in listing.folders:
        if path.startswith(start) and "/" not in path[len(start) :]:
            children[path[len(start) :]] = _Child(0, Counter())
    direct = 0
    for entry in listing.images:
        if not entry.key.startswith(start):
            continue
        parts = entry.key[len(start) :].split("/", 2)
        if len(parts) == 1:
            direct += 1
        elif len(parts) == 2:
            children[parts[0]].direct += 1
        else:
            children[parts[0]].deeper[parts[1]] += 1
    return children, direct
