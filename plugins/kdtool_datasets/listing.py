"""All image files below a folder, each with the real file behind it; what is left out is counted."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kdtool import Error
from kdtool.utils import printable

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".ppm",
            ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif")  # fmt: skip

# Images of forms that are not read.
UNREAD = frozenset(
    (".heic", ".heif", ".hif", ".jxl", ".tga", ".psd", ".svg", ".eps", ".ps", ".pdf", ".wmf", ".emf", ".ico", ".raw",
     ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".exr", ".hdr", ".dcm", ".nii", ".npy", ".npz", ".mat",
     ".mp4", ".mov", ".avi")
)  # fmt: skip

# What systems and tools leave behind, in lower case; names that begin with a dot are left out as well.
LITTER = frozenset(("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin",
                    "system volume information", "lost+found"))  # fmt: skip

# In how many ways links may lead to the same folder.
WAYS = 64

# How many names a line lists.
SHOWN = 3


class Entry(NamedTuple):
    """An image file.

    ``key`` is its path below the folder, with ``/``. ``device`` and ``number`` identify the real file. ``link`` says
    whether the file or a folder above it is a symbolic link.
    """

    key: str
    device: int
    number: int
    link: bool


@dataclass
class Listing:
    """What is below the folder ``root``: images and folders by their path below it, in a fixed order, and the rest."""

    root: Path
    images: list[Entry] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    hidden: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    outside: list[tuple[str, str]] = field(default_factory=list)

    def path(self, key: str) -> Path:
        """Return the absolute path of an image or a folder."""
        return Path(f"{self.root}/{key}")

    def notes(self) -> list[str]:
        """Return one line for each kind of what was left out or followed."""
        lines = []
        if self.unread:
            lines.append(
                f"left out {_total(self.unread)} of a form that is not read ({_counts(self.unread)}); convert them to "
                "JPEG or PNG"
            )
        if self.others:
            lines.append(f"left out {_total(self.others)}, no images ({_counts(self.others)})")
        for names, what in (
            (self.hidden, "hidden or of the system"),
            (self.special, "no regular files"),
            (self.broken, "links to nothing"),
        ):
            if names:
                lines.append(f"left out {counted(names, 'entry', 'entries')}, {what} ({some(names)})")
        if self.loops:
            lines.append(f"did not follow {counted(self.loops, 'link')} to a folder above ({some(sorted(self.loops))})")
        if self.outside:
            link, target = min(self.outside)
            lines.append(
                f"followed {counted(self.outside, 'link')} out of the folder (such as {printable(link)} to "
                f"{printable(target)})"
            )
        return lines


def list_images(root: Path) -> Listing:
    """Return what is below a folder; every folder is entered, also through links, but never one that it is in.

    Raises:
        kdtool.Error: a folder cannot be read, or links lead to one in more than `WAYS` ways.
    """
    listing = Listing(root)
    targets = _Targets(root)
    above = tuple(_identity(parent) for parent in root.parents)
    ways: Counter[tuple[int, int]] = Counter()
    waiting: list[tuple[str, bool, tuple[tuple[int, int], ...]]] = [("", False, above)]
    while waiting:
        key, link, chain = waiting.pop()
        folder = root / key
        identity = _identity(folder)
        if identity in chain:
            listing.loops.append(key)
            continue
        ways[identity] += 1
        if ways[identity] > WAYS:
            raise Error(
                f"{printable(str(folder), 400)}: links lead to this folder in more than {WAYS} ways; remove them"
            )
        if key:
            listing.folders.append(key)
        subfolders = []
        for entry in _scanned(folder):
            below = f"{key}/{entry.name}" if key else entry.name
            if _is_hidden(entry.name):
                listing.hidden.append(below)
                continue
            target = targets.of(entry) if entry.is_symlink() else None
            if target is not None and entry.is_dir():
                target = os.path.realpath(target)
            if entry.is_dir():
                subfolders.append((below, link or target is not None, (*chain, identity)))
            else:
                _add(listing, entry, below, identity[0], link or target is not None)
            if target is not None and os.path.exists(target) and not targets.is_inside(target):
                listing.outside.append((below, target))
        waiting += reversed(subfolders)
    return listing


def _add(listing: Listing, entry: os.DirEntry[str], key: str, device: int, link: bool) -> None:
    """Add a file to the list it belongs to; ``device`` is that of its folder."""
    stem, dot, suffix = entry.name.rpartition(".")
    suffix = f"{dot}{suffix.lower()}" if stem else ""
    if suffix not in SUFFIXES:
        (listing.unread if suffix in UNREAD else listing.others)[suffix or "without suffix"] += 1
    elif entry.is_symlink():
        try:
            status = entry.stat()
        except OSError:
            listing.broken.append(key)
            return
        if stat.S_ISREG(status.st_mode):
            listing.images.append(Entry(key, status.st_dev, status.st_ino, link))
        else:
            listing.special.append(key)
    elif entry.is_file():
        listing.images.append(Entry(key, device, entry.inode(), link))
    else:
        listing.special.append(key)


class _Targets:
    """Where links lead; the folders of the targets are resolved once each."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.join(os.path.realpath(root), "")
        self._real: dict[str, str] = {}

    def of(self, entry: os.DirEntry[str]) -> str:
        """Return the path that a link holds, as an absolute one whose folder is real."""
        folder, name = os.path.split(os.path.join(os.path.dirname(entry.path), os.readlink(entry.path)))
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], name)

    def is_inside(self, target: str) -> bool:
        """Return whether a target lies in the folder."""
        return os.path.join(target, "").startswith(self.root)


def _scanned(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise Error(f"{printable(str(folder), 400)}: cannot be listed: {error.strerror}") from error


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise Error(f"{printable(str(folder), 400)}: cannot be read: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def some(names: Sequence[str]) -> str:
    """Return a few names in words."""
    shown = ", ".join(printable(name, 80) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"such as {shown}"


def counted(things: Sequence[object] | int, word: str, words: str = "") -> str:
    """Return a number of things in words."""
    number = things if isinstance(things, int) else len(things)
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def _total(counts: Counter[str]) -> str:
    return counted(sum(counts.values()), "file")


def _counts(counts: Counter[str]) -> str:
    parts = [f"{printable(suffix, 20)} {count:,}" for suffix, count in counts.most_common(8)]
    return ", ".join(parts) + (", ..." if len(counts) > 8 else "")


def below(entries: Sequence[Entry], folder: str) -> Iterator[tuple[Entry, tuple[str, ...]]]:
    """Yield the images below ``folder`` (a path below the root, or ""), and the folders that each lies in there."""
    start = f"{folder}/" if folder else ""
    # Split once for all images of a folder.
    known: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if entry.key.startswith(start):
            inner = entry.key[len(start) :].rpartition("/")[0]
            if inner not in known:
                known[inner] = tuple(inner.split("/")) if inner else ()
            yield entry, known[inner]
