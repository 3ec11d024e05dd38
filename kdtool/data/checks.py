"""What is checked when a data set is opened, and what is said: unreadable files, copies, changes, splits all alike."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from kdtool.data.file_index import FileInfo, index_files
from kdtool.data.fingerprint import changes, duplicates, learned_from
from kdtool.data.image_files import FileImages
from kdtool.data.preparation import Preparation
from kdtool.data.raw import ImageSource, RawData, RawSplit
from kdtool.data.spec import DataSpec
from kdtool.errors import Error
from kdtool.utils.formatting import printable

# In how many steps the images of a split are looked through for two that differ.
STEPS = 16

# What decides which images are in a split, apart from the files.
DECIDES = {
    "train": ("subset", "validation", "split_seed", "split_by"),
    "val": ("validation", "split_seed", "split_by"),
    "test": ("split_by",),
}


class Files:
    """What is known of the image files of a data set, by their paths."""

    def __init__(self) -> None:
        self._infos: dict[ImageSource, FileInfo] = {}

    def add(self, split: RawSplit) -> None:
        """Look at the files of a split; images in memory have none."""
        if not isinstance(split.images, Tensor):
            self._infos.update(zip(split.images, index_files(split.images), strict=True))

    def check(self) -> None:
        """Check that every file can be read.

        Raises:
            Error: a file is no image that can be read.
        """
        problems = [info.problem for info in self._infos.values() if info.problem]
        if problems:
            more = f" (and {len(problems) - 1:,} more files)" if len(problems) > 1 else ""
            raise Error(f"{problems[0]}{more}")

    def of(self, split: RawSplit) -> list[FileInfo] | None:
        """Return what is known of each file of a split, None for images in memory."""
        return None if isinstance(split.images, Tensor) else [self._infos[path] for path in split.images]

    def all(self) -> Iterable[FileInfo]:
        """Return what is known of all files."""
        return self._infos.values()


def files_of(raw: RawData) -> Files:
    """Return what is known of the image files of a data set."""
    files = Files()
    for split in (raw.train, raw.val, raw.test):
        if split is not None:
            files.add(split)
    return files


def check_differ(name: str, part: str, split: RawSplit, prepared: Preparation) -> None:
    """Check that not all images of a split are alike, which they are if they were read in a wrong way.

    Raises:
        Error: they are alike, as ``prepared`` reads them.
    """
    images, source = len(split), split.images
    first: Tensor | None = None
    # Evenly spaced images first: nearly always the second differs from the first.
    indices = torch.cat([torch.arange(start, images, STEPS) for start in range(min(STEPS, images))])
    for chunk in indices.split(2):
        if isinstance(source, Tensor):
            pixels = source[chunk]
        else:
            [pixels] = FileImages(source, prepared).batches([chunk], None)
        first = pixels[:1] if first is None else first
        if not bool((pixels == first).all()):
            return
    if images > 1 and first is not None:
        values = first.unique().tolist()
        what = f"every pixel is {values[0]}" if len(values) == 1 else "they have the same pixels"
        raise Error(
            f"{name}: all {images} images of the {part} split are alike ({what}); check the files, and that they are "
            "images of 8 or 16 bits"
        )


def say_duplicates(name: str, splits: Mapping[str, RawSplit], files: Files) -> None:
    """Say how many images of a split that is held out are also learned from, byte for byte."""
    infos = {part: (split, of) for part, split in splits.items() if (of := files.of(split)) is not None}
    for entry in duplicates(infos):
        if {entry["in"], entry["of"]} <= {"train", "unlabelled"} or entry["in"] == entry["of"]:
            continue
        tell(
            f"{name}: {entry['images']:,} images of {entry['of']} are in {entry['in']} too, byte for byte (such as "
            f"{printable(entry['second'])} and {printable(entry['first'])}); what is measured on them says little"
        )


def say_changes(before: DataSpec, now: DataSpec, learned_again: Callable[[], dict[str, int]]) -> None:
    """Say what changed in the images since a checkpoint was made, and which of them it was trained on.

    What changed is told of the same data set, for every split that is drawn in the same way. ``learned_again`` counts,
    like `learned_from`, the images that the checkpoint was trained on where their list is not known.
    """
    same = {
        part for part, names in DECIDES.items() if all(getattr(before, name) == getattr(now, name) for name in names)
    }
    texts = changes(
        {part: entry for part, entry in before.splits.items() if part in same},
        {part: entry for part, entry in now.splits.items() if part in same},
    )
    if texts and before.name == now.name:
        tell(f"{now.name}: the images changed since the checkpoint was made: {'; '.join(texts)}")
    learned = learned_from(before.splits, now.splits)
    for part, images in (learned_again() if learned is None else learned).items():
        tell(
            f"{now.name}: the checkpoint was trained on {images:,} of the {now.splits[part]['images']:,} images of the "
            f"{part} split, so what is measured on them is not held out"
        )


def say_older(spec: DataSpec) -> None:
    """Say that the splits of a checkpoint of an older release cannot be checked."""
    tell(
        f"{spec.name}: the checkpoint is of an older release, which drew the splits from the list of all files; if "
        "files were added or removed since, images that it was trained on are in the splits that are held out"
    )


def tell(line: str) -> None:
    """Log a warning, once in a process."""
    _tell(printable(line, 600))


@functools.lru_cache(maxsize=1000)
def _tell(line: str) -> None:
    logging.getLogger("kdtool").warning("%s", line)
