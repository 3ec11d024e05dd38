"""CIFAR-10 and CIFAR-100 (Krizhevsky, Learning multiple layers of features from tiny images, 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Dataset, Error, UsageError, option
from kdtool_datasets.places import find
from kdtool_datasets.plain_pickle import read_pickle

if TYPE_CHECKING:
    from kdtool.data import RawData, RawSplit

SIDE = 32


class _Cifar(Dataset):
    """Read CIFAR's Python files from the folder in which torchvision stores them."""

    download: bool = option(False, help="download the files if they are missing")

    torchvision_name: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    train_files: ClassVar[tuple[str, ...]] = ()
    test_file: ClassVar[str] = ""
    names_file: ClassVar[str] = ""
    names_key: ClassVar[str] = ""
    labels_key: ClassVar[str] = ""
    mean: ClassVar[tuple[float, ...]] = ()
    std: ClassVar[tuple[float, ...]] = ()

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return 50,000 training and 10,000 test images, colour, of 32x32 pixels."""
        from kdtool.data import RawData

        if argument:
            raise UsageError(f"takes no argument, got {argument!r}; write --data {self.name}")
        folder = find(root, self.folder, download=self.fetch if self.download else None)
        names = read_pickle(folder / self.names_file).get(self.names_key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Error(f"{folder / self.names_file}: has no {self.names_key}; download it again")
        return RawData(
            read([folder / name for name in self.train_files], self.labels_key),
            None,
            read([folder / self.test_file], self.labels_key),
            tuple(names),
            channels=3,
            image_size=SIDE,
            mean=self.mean,
            std=self.std,
            padding=4,
            flip=True,
        )

    def fetch(self, root: str) -> None:
        """Download and unpack the files below ``root``, unless they are there."""
        from torchvision import datasets

        getattr(datasets, self.torchvision_name)(root, download=True)


class CIFAR10(_Cifar):
    """Read CIFAR-10's 60,000 images of 32x32 pixels from cifar-10-batches-py in --data-dir."""

    also_called: ClassVar[tuple[str, ...]] = ("cifar-10",)

    torchvision_name: ClassVar[str] = "CIFAR10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    train_files: ClassVar[tuple[str, ...]] = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_file: ClassVar[str] = "test_batch"
    names_file: ClassVar[str] = "batches.meta"
    names_key: ClassVar[str] = "label_names"
    labels_key: ClassVar[str] = "labels"
    mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4822, 0.4465)
    std: ClassVar[tuple[float, ...]] = (0.2470, 0.2435, 0.2616)


class CIFAR100(_Cifar):
    """Read CIFAR-100's 60,000 images of 32x32 pixels from cifar-100-python in --data-dir."""

    torchvision_name: ClassVar[str] = "CIFAR100"
    folder: ClassVar[str] = "cifar-100-python"
    train_files: ClassVar[tuple[str, ...]] = ("train",)
    test_file: ClassVar[str] = "test"
    names_file: ClassVar[str] = "meta"
    names_key: ClassVar[str] = "fine_label_names"
    labels_key: ClassVar[str] = "fine_labels"
    mean: ClassVar[tuple[float, ...]] = (0.5071, 0.4865, 0.4409)
    std: ClassVar[tuple[float, ...]] = (0.2673, 0.2564, 0.2762)


def read(paths: Sequence[Path], labels_key: str) -> RawSplit:
    """Return the images and labels of all files, in the order of ``paths``."""
    import torch

    from kdtool.data import RawSplit

    images, labels = [], []
    for path in paths:
        batch = read_pickle(path)
        images.append(_pixels(path, batch.get("data")))
        batch_labels = batch.get(labels_key)
        if not isinstance(batch_labels, list) or not all(type(label) is int for label in batch_labels):
            raise Error(f"{path}: has no {labels_key}; download it again")
        labels += batch_labels
    return RawSplit(torch.cat(images), torch.tensor(labels))


def _pixels(path: Path, data: Any) -> Any:
    """Return uint8 [images, 3, 32, 32] of the rows of a file: all red, then all green, then all blue values."""
    import numpy as np
    import torch

    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * SIDE * SIDE,):
        raise Error(f"{path}: has no images of 3x{SIDE}x{SIDE} bytes; download it again")
    return torch.from_numpy(np.array(data)).view(-1, 3, SIDE, SIDE)
