"""Any folder of images with one subfolder per class, or with a list of files and labels."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool import Dataset, Error, UsageError
from kdtool.utils import printable
from kdtool_datasets.class_folders import check_same, classes_below, raw_splits
from kdtool_datasets.label_lists import LIST_SUFFIXES, list_in, read_list
from kdtool_datasets.layout import layout_of
from kdtool_datasets.listing import SUFFIXES, Entry, Listing, list_images

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
        from kdtool.data import RawData

        path = self.find(argument, root)
        labels = path if path.is_file() else list_in(path)
        listing, parts, whole, notes = _by_folders(path) if labels is None else read_list(labels)
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
            argument=str(path),
            test_fraction=TEST_FRACTION if whole else None,
            notes=(*notes, *more, *listing.notes()),
        )

    def images(self, argument: str, root: Path | None) -> tuple[Path, ...]:
        """Return all image files below the folder, in whatever subfolders they are, or those of a list.

        What is left out is logged.
        """
        path = self.find(argument, root)
        if path.is_file():
            listing, parts, _, _ = read_list(path)
            entries = [entry for classes in parts.values() for members in classes.values() for entry in members]
        else:
            listing = list_images(path)
            entries = listing.images
        if not entries:
            kinds = "".join(f"; {line}" for line in listing.notes())
            raise Error(f"{printable(str(path), 400)}: no images ({', '.join(SUFFIXES)}){kinds}")
        splits, more = raw_splits(listing, {"unlabelled": {"": entries}})
        for line in (*listing.notes(), *more):
            logging.getLogger("kdtool").warning("--unlabelled %s: %s", printable(str(path), 400), line)
        paths = splits["unlabelled"].images
        assert isinstance(paths, tuple)
        return paths

    @staticmethod
    def find(argument: str, root: Path | None) -> Path:
        """Return the absolute path of the folder or the list.

        Raises:
            UsageError: ``argument`` is empty.
            Error: it is neither at that path nor at ``root``.
        """
        if not argument:
            raise UsageError("needs the folder's path; write folder:PATH")
        path = Path(argument).expanduser()
        candidates = [path]
        if root is not None:
            # A checkpoint stores the absolute path; if the folder was moved, --data-dir names it or its new parent.
            candidates += [root / path.name] if path.is_absolute() else [root / path]
            candidates += [root] if root.name == path.name else []
        for candidate in candidates:
            if candidate.is_dir() or (candidate.suffix.lower() in LIST_SUFFIXES and candidate.is_file()):
                return _checked(candidate.resolve())
        tried = ", ".join(printable(str(candidate), 400) for candidate in dict.fromkeys(candidates))
        raise Error(f"there is no folder {tried}; give its path, or its parent folder with --data-dir")


def _checked(path: Path) -> Path:
    """Check that a checkpoint can remember a path as one line of text."""
    text = str(path)
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise Error(
            f"{printable(text, 400)}: the path has a control character, a line break or is not UTF-8 (shown as ?); "
            "rename the folder"
        )
    return path


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
