"""Any folder of images with one subfolder per class, or with a list of files and labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool import Dataset, Error, UsageError
from kdtool.utils import printable
from kdtool_datasets.class_folders import check_same, classes_below, raw_splits
from kdtool_datasets.label_lists import LIST_SUFFIXES, list_in, read_list
from kdtool_datasets.layout import layout_of
from kdtool_datasets.listing import SUFFIXES, Entry, Listing, list_images
from kdtool_datasets.places import located

if TYPE_CHECKING:
    from kdtool.data import RawData

# Without a test folder, this part of every class is the test split.
TEST_FRACTION = 0.2

Parts = dict[str, dict[str, list[Entry]]]


class Folder(Dataset):
    """Read images, folder:PATH, in class folders, in such folders below train, val and test, or with a list of labels.

    Without a test split, a fixed fifth of every class becomes one. The list is PATH/labels.csv, or PATH itself.
    """

    takes_path: ClassVar[bool] = True
    also_called: ClassVar[tuple[str, ...]] = ("image-folder", "imagenet", "custom", "images", "directory", "dir")

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the images' paths; PATH is looked up as given, then below ``root``."""
        path = self.find(argument, root)
        labels = path if path.is_file() else list_in(path)
        return raw_data(str(path), *(_by_folders(path) if labels is None else read_list(labels)))

    def images(self, argument: str, root: Path | None) -> tuple[Path, ...]:
        """Return all image files below the folder, in whatever subfolders they are, or those of a list.

        What is left out is logged.
        """
        path = self.find(argument, root)
        if path.is_file():
            return listed_images(path, {})
        listing = list_images(path)
        if not listing.images:
            kinds = "".join(f"; {line}" for line in listing.notes())
            raise Error(f"{printable(str(path), 400)}: no images ({', '.join(SUFFIXES)}){kinds}")
        return _unlabelled(path, listing, listing.images)

    @staticmethod
    def find(argument: str, root: Path | None) -> Path:
        """Return the absolute path of the folder or the list.

        Raises:
            UsageError: ``argument`` is empty.
            Error: it is neither at that path nor at ``root``.
        """
        if not argument:
            raise UsageError("needs the folder's path; write folder:PATH")
        return located(argument, root, lambda path: path.is_dir() or _is_list(path), "folder")


def raw_data(argument: str, listing: Listing, parts: Parts, whole: bool, notes: list[str]) -> RawData:
    """Return the data set of files by split and class; a checkpoint remembers ``argument``."""
    from kdtool.data import RawData

    splits, more = raw_splits(listing, parts)
    return RawData(
        splits["train"],
        splits.get("val"),
        splits.get("test"),
        tuple(parts["train"]),
        channels=None,
        image_size=None,
        padding=None,
        flip=None,
        argument=argument,
        test_fraction=TEST_FRACTION if whole else None,
        notes=(*notes, *more, *listing.notes()),
    )


def listed_images(path: Path, choices: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the images of a list, whatever their labels; ``choices`` are those of `read_list`."""
    listing, parts, _, _ = read_list(path, choices)
    entries = [entry for classes in parts.values() for members in classes.values() for entry in members]
    return _unlabelled(path, listing, entries)


def _unlabelled(path: Path, listing: Listing, entries: list[Entry]) -> tuple[Path, ...]:
    from kdtool.data import file_of

    splits, more = raw_splits(listing, {"unlabelled": {"": entries}})
    for line in (*listing.notes(), *more):
        logging.getLogger("kdtool").warning("--unlabelled %s: %s", printable(str(path), 400), line)
    images = splits["unlabelled"].images
    assert isinstance(images, tuple)
    return tuple(map(file_of, images))


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in LIST_SUFFIXES and path.is_file()


def _by_folders(path: Path) -> tuple[Listing, Parts, bool, list[str]]:
    """Return what is below a folder, its images by split and class, whether there are no splits, and what to say."""
    listing = list_images(path)
    layout = layout_of(listing)
    train = classes_below(listing, layout.splits["train"])
    parts, notes = {"train": train.images}, [*layout.notes, *train.notes]
    for split, folder in layout.splits.items():
        if split != "train":
            part = classes_below(listing, folder, train)
            check_same(printable(str(path), 400), part, train)
            parts[split] = part.images
            notes += part.notes
    return listing, parts, layout.whole, notes
