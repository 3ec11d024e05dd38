"""Imagenette and Imagewoof (Howard, 2019, github.com/fastai/imagenette): ten classes of ImageNet each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool import Dataset, Error, UsageError, option
from kdtool_datasets.class_folders import check_same, classes_below, raw_splits
from kdtool_datasets.listing import list_images
from kdtool_datasets.places import find

if TYPE_CHECKING:
    from kdtool.data import RawData

# By edition: the suffix of its folder's name, and the side in pixels to which its images are resized.
EDITIONS = {"160": ("-160", 128), "320": ("-320", 224), "full": ("", 224)}
URL = "https://s3.amazonaws.com/fast-ai-imageclas/"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class _TenClasses(Dataset):
    """Read ten classes of ImageNet; the val folder is the test split, since there is no other."""

    download: bool = option(False, help="download the files if they are missing")

    folder: ClassVar[str] = ""
    names: ClassVar[dict[str, str]] = {}

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the images' paths; ``argument`` is the edition: 160 (default), 320 or full."""
        from kdtool.data import RawData

        edition = argument or "160"
        if edition not in EDITIONS:
            raise UsageError(f"there is no edition {edition!r}; write {self.name}:160, :320 or :full")
        suffix, size = EDITIONS[edition]
        fetch = partial(self.fetch, f"{self.folder}{suffix}.tgz") if self.download else None
        folder = find(root, self.folder + suffix, download=fetch)
        for part in ("train", "val"):
            if not (folder / part).is_dir():
                raise Error(f"there is no {folder / part}; unpack the data set again")
        listing = list_images(folder)
        train = classes_below(listing, "train")
        test = classes_below(listing, "val", train)
        check_same(str(folder), test, train)
        splits, notes = raw_splits(listing, {"train": train.images, "test": test.images})
        return RawData(
            splits["train"],
            None,
            splits["test"],
            tuple(self.names.get(name, name) for name in train.images),
            channels=3,
            image_size=size,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            padding=size // 8,
            flip=True,
            notes=(*train.notes, *test.notes, *notes, *listing.notes()),
        )

    def fetch(self, archive: str, root: str) -> None:
        """Download and unpack an archive below ``root``, unless it is already unpacked."""
        from torchvision.datasets.utils import download_and_extract_archive

        # The archive is deleted after unpacking: if it is still there, unpacking was interrupted.
        packed = Path(root, archive)
        if not packed.with_suffix("").is_dir() or packed.exists():
            download_and_extract_archive(URL + archive, root, remove_finished=True)


class Imagenette(_TenClasses):
    """Read imagenette:160, :320 or :full from imagenette2-160, ... in --data-dir; its val folder is the test split."""

    folder: ClassVar[str] = "imagenette2"
    names: ClassVar[dict[str, str]] = {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n02979186": "cassette player",
        "n03000684": "chain saw",
        "n03028079": "church",
        "n03394916": "French horn",
        "n03417042": "garbage truck",
        "n03425413": "gas pump",
        "n03445777": "golf ball",
        "n03888257": "parachute",
    }


class Imagewoof(_TenClasses):
    """Read imagewoof:160, :320 or :full from imagewoof2-160, ... in --data-dir; its val folder is the test split."""

    folder: ClassVar[str] = "imagewoof2"
    names: ClassVar[dict[str, str]] = {
        "n02086240": "Shih-Tzu",
        "n02087394": "Rhodesian ridgeback",
        "n02088364": "beagle",
        "n02089973": "English foxhound",
        "n02093754": "Border terrier",
        "n02096294": "Australian terrier",
        "n02099601": "golden retriever",
        "n02105641": "Old English sheepdog",
        "n02111889": "Samoyed",
        "n02115641": "dingo",
    }
