"""Any folder of images with one subfolder per class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdtool import Dataset, Error, UsageError
from kdtool_datasets.class_folders import SUFFIXES, common_form, image_files, read_split, subfolders

if TYPE_CHECKING:
    from kdtool.data import RawData, RawSplit

VALIDATION_NAMES = ("val", "valid", "validation")
SPLIT_NAMES = ("train", *VALIDATION_NAMES, "test")
# Without a test folder the test split is drawn with this seed: it does not depend on --split-seed.
TEST_FRACTION = 0.2
TEST_SEED = 0
# Square images of one size keep their size if their side has at most SMALL pixels; all others become LARGE.
SMALL = 64
LARGE = 224


class Folder(Dataset):
    """Read a folder of images, folder:PATH, with one folder per class or with such folders below train, val and test.

    If PATH holds the class folders themselves, a fixed fifth of every class is the test split.
    """

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the images' paths; PATH is looked up as given, then below ``root``."""
        from kdtool.data import RawData

        folder = self.find(argument, root)
        folders = subfolders(folder)
        if "train" in folders and subfolders(folder / "train"):
            classes = tuple(subfolders(folder / "train"))
            train = read_split(folder / "train", classes)
            val = self.split_of(folder, VALIDATION_NAMES, classes)
            test = self.split_of(folder, ("test",), classes)
        elif not folders:
            raise Error(f"{folder}: has no class folders; put the images of each class into a folder of its own")
        elif set(folders) <= set(SPLIT_NAMES):
            raise Error(f"{folder}: has no class folders in a train folder; make {folder}/train/CLASS")
        else:
            classes, val = tuple(folders), None
            all_images = read_split(folder, classes)
            train, test = all_images.hold_out(TEST_FRACTION, TEST_SEED)
        assert isinstance(train.images, tuple)
        channels, side = common_form(train.images)
        size = side if side is not None and side <= SMALL else LARGE
        return RawData(
            train,
            val,
            test,
            classes,
            channels=channels,
            image_size=size,
            padding=size // 8,
            # A mirrored photograph shows the same class; a gray image may be a letter, which a mirror changes.
            flip=channels == 3,
            argument=str(folder),
        )

    def images(self, argument: str, root: Path | None) -> tuple[Path, ...]:
        """Return all image files below the folder, in whatever subfolders they are."""
        folder = self.find(argument, root)
        paths = image_files(folder)
        if not paths:
            raise Error(f"{folder}: no images ({', '.join(SUFFIXES)})")
        return tuple(paths)

    @staticmethod
    def find(argument: str, root: Path | None) -> Path:
        """Return the folder's absolute path.

        Raises:
            UsageError: ``argument`` is empty.
            Error: the folder is neither at that path nor at ``root``.
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
            if candidate.is_dir():
                return candidate.resolve()
        tried = ", ".join(str(candidate) for candidate in dict.fromkeys(candidates))
        raise Error(f"there is no folder {tried}; give its path, or its parent folder with --data-dir")

    @staticmethod
    def split_of(folder: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> RawSplit | None:
        """Return the split in the first of the folders ``names`` that exists, None if there is none."""
        for name in names:
            if (folder / name).is_dir():
                return read_split(folder / name, classes)
        return None
