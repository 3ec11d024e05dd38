"""A list of image files and their labels, named by itself."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool import Dataset, Error, UsageError
from kdtool_datasets.choices import joined, split_choices
from kdtool_datasets.folder import listed_images, raw_data
from kdtool_datasets.label_lists import read_list
from kdtool_datasets.places import located

if TYPE_CHECKING:
    from kdtool.data import RawData

CHOICES = ("file", "label", "split")


class Csv(Dataset):
    """Read csv:FILE, a table with a column of image files, below its folder, one of labels and perhaps one of splits.

    Where it cannot be known which columns these are, write csv:FILE,file=NAME,label=NAME,split=NAME.
    """

    takes_path: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")
    also_called: ClassVar[tuple[str, ...]] = ("tsv", "table", "list")

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the images' paths; FILE is looked up as given, then below ``root``."""
        path, choices = self.find(argument, root), split_choices(argument, CHOICES)[1]
        return raw_data(joined(str(path), choices), *read_list(path, choices))

    def images(self, argument: str, root: Path | None) -> tuple[Path, ...]:
        """Return all images of the list, whatever their labels."""
        return listed_images(self.find(argument, root), split_choices(argument, CHOICES)[1])

    @staticmethod
    def find(argument: str, root: Path | None) -> Path:
        """Return the absolute path of the table.

        Raises:
            UsageError: ``argument`` is empty.
            Error: there is no such file.
        """
        named, choices = split_choices(argument, CHOICES)
        if not named:
            raise UsageError("needs the path of a table; write csv:FILE")
        path = located(named, root, Path.is_file, "file")
        if path.is_symlink():  # the images lie beside the link, or beside the table itself
            with contextlib.suppress(Error):
                read_list(path.resolve(), choices)
                return path.resolve()
        return path
