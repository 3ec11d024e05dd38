"""MNIST (LeCun, Bottou, Bengio and Haffner, 1998) and Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool import Dataset, UsageError, option
from kdtool_datasets.idx import read_idx
from kdtool_datasets.places import find

if TYPE_CHECKING:
    from kdtool.data import RawData, RawSplit


class _Mnist(Dataset):
    """Read MNIST's idx files from the folder in which torchvision stores them."""

    download: bool = option(False, help="download the files if they are missing")

    torchvision_name: ClassVar[str] = ""
    classes: ClassVar[tuple[str, ...]] = ()
    mean: ClassVar[float] = 0.0
    std: ClassVar[float] = 1.0
    padding: ClassVar[int] = 0
    flip: ClassVar[bool] = False

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return 60,000 training and 10,000 test images, gray, of 28x28 pixels, from ROOT/NAME/raw."""
        from kdtool.data import RawData

        if argument:
            raise UsageError(f"takes no argument, got {argument!r}; write --data {self.name}")
        raw = find(root, f"{self.torchvision_name}/raw", download=self.fetch if self.download else None)
        return RawData(
            read(raw, "train"),
            None,
            read(raw, "t10k"),
            self.classes,
            channels=1,
            image_size=28,
            mean=(self.mean,),
            std=(self.std,),
            padding=self.padding,
            flip=self.flip,
        )

    def fetch(self, root: str) -> None:
        """Download and unpack the files below ``root``, unless they are there."""
        from torchvision import datasets

        getattr(datasets, self.torchvision_name)(root, download=True)


class MNIST(_Mnist):
    """Read MNIST's 70,000 handwritten digits of 28x28 pixels from MNIST/raw in --data-dir."""

    torchvision_name: ClassVar[str] = "MNIST"
    classes: ClassVar[tuple[str, ...]] = tuple(str(digit) for digit in range(10))
    mean: ClassVar[float] = 0.1307
    std: ClassVar[float] = 0.3081
    padding: ClassVar[int] = 2


class FashionMNIST(_Mnist):
    """Read Fashion-MNIST's 70,000 pieces of clothing of 28x28 pixels from FashionMNIST/raw in --data-dir."""

    also_called: ClassVar[tuple[str, ...]] = ("fashion", "fmnist")

    torchvision_name: ClassVar[str] = "FashionMNIST"
    classes: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    mean: ClassVar[float] = 0.2860
    std: ClassVar[float] = 0.3530
    padding: ClassVar[int] = 2
    flip: ClassVar[bool] = True


def read(folder: Path, part: str) -> RawSplit:
    """Return the images and labels of a part, ``train`` or ``t10k``, from the files in a folder."""
    from kdtool.data import RawSplit

    images = read_idx(folder / f"{part}-images-idx3-ubyte", 3)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte", 1)
    return RawSplit(images.unsqueeze(1), labels.long())
