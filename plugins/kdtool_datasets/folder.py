"""Any folder of images, one folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdtool import Dataset, Error, UsageError
from kdtool_datasets.class_folders import SUFFIXES, common_form, image_files, read_split, subfolders

if TYPE_CHECKING:
    from kdtool.data import RawData, RawSplit

VALIDATION_NAMES = ("val", "valid", "validation")
SPLIT_NAMES = ("train", *VALIDATION_NAMES, "test")
# Without a test folder the test split is the same for every user and every --split-seed.
TEST_FRACTION = 0.2
TEST_SEED = 0
# Images of one size are taken as they are up to this many pixels; all others become LARGE.
SMALL = 64
LARGE = 224


class Folder(Dataset):
    """Read a folder of images, folder:PATH, with one folder per class or with train/val/test folders of these.

    Where PATH holds the class folders themselves, a fifth of every class, always the same, is the test split.
    """

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the images' paths; PATH is looked up as it is, then below ``root``."""
        from kdtool.data import RawData

        folder = self.find(argument, root)
        inside = subfolders(folder)
        if "train" in inside and subfolders(folder / "train"):
            classes = tuple(subfolders(folder / "train"))
            train = read_split(folder / "train", classes)
            val = self.split_of(folder, VALIDATION_NAMES, classes)
            test = self.split_of(folder, ("test",), classes)
        elif not inside:
            raise Error(f"{folder}: has no class folders; put the images of each class into a folder of its own")
        elif set(inside) <= set(SPLIT_NAMES):
            raise Error(f"{folder}: has no class folders in a train folder; make {folder}/train/CLASS")
        else:
            classes, val = tuple(inside), None
            everything = read_split(folder, classes)
            train, test = everything.hold_out(TEST_FRACTION, TEST_SEED)
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
            # Photographs may be mirrored; a gray image may be a letter.
            flip=channels == 3,
            argument=str(folder),
        )

    def images(self, argument: str, root: Path | None) -> tuple[Path, ...]:
        """Return all image files below the folder, whatever folders they lie in."""
        folder = self.find(argument, root)
        found = image_files(folder)
        if not found:
            raise Error(f"{folder}: no images ({', '.join(SUFFIXES)})")
        return tuple(found)

    @staticmethod
    def find(argument: str, root: Path | None) -> Path:
        """Return the folder's absolute path."""
        if not argument:
            raise UsageError("needs the folder's path; write folder:PATH")
        path = Path(argument).expanduser()
        places = [path]
        if root is not None:
            # A checkpoint remembers an absolute path; where the folder was moved, --data-dir tells where to.
            places += [root / path.name] if path.is_absolute() else [root / path]
            places += [root] if root.name == path.name else []
        for place in places:
            if place.is_dir():
                return place.resolve()
        looked = ", ".join(str(place) for place in dict.fromkeys(places))
        raise Error(f"there is no folder {looked}; give its path, or where it lies with --data-dir")

    @staticmethod
    def split_of(folder: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> RawSplit | None:
        """Return the split that has one of these names."""
        for name in names:
            if (folder / name).is_dir():
                return read_split(folder / name, classes)
        return None
