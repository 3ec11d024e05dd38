"""The contract of a data set plugin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import installed, names
from kdtool.plugins.method import Method
from kdtool.plugins.registry import also_called, load, method_class

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool.data.raw import RawData


class Dataset(Method):
    """Read a data set."""

    kind: ClassVar[str] = "datasets"
    takes_path: ClassVar[bool] = False
    """Whether the text after the colon is the path of a folder of images, or of a list of them."""

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the data set.

        ``argument`` is the text after the colon (the PATH of ``folder:PATH``), empty without a colon; ``root`` is the
        value of ``--data-dir`` or ``KDTOOL_DATA``.

        Raises:
            kdtool.Error: the files are missing or hold no images; the message says what to do.
        """
        raise NotImplementedError

    def images(self, argument: str, root: Path | None) -> Tensor | tuple[Path, ...]:
        """Return images for training without labels, in the form of `RawSplit.images`; by default the train split's.

        Raises:
            kdtool.Error: there are no images; the message says what to do.
        """
        return self.load(argument, root).train.images


def dataset_name(text: str) -> str:
    """Return the name of the data set in a value of ``--data``: the part before the colon.

    Raises:
        UsageError: there is no such data set; for a path the message says how a folder of images is named.
    """
    name = text.partition(":")[0]
    folders = path_datasets() if name not in names(Dataset.kind) else []
    if folders and Path(text).suffix in _ARCHIVES:
        raise UsageError(f"--data {text}: is an archive; unpack it, and write {folders[0]}:PATH")
    if folders and (("/" in text and "://" not in text) or Path(text).exists()):
        raise UsageError(
            f"--data {text}: no data set is called so; for images in a folder for each class write {folders[0]}:{text}"
        )
    if folders and also_called(Dataset.kind, name) == folders[:1]:
        raise UsageError(f"no data set is called {name!r}; images in a folder for each class are {folders[0]}:PATH")
    method_class(Dataset.kind, name)
    return name


def path_datasets() -> list[str]:
    """Return the built-in data sets that are named with a path, such as ``folder``."""
    plugins = [plugin for plugin in installed() if plugin.kind == Dataset.kind and plugin.builtin]
    return [plugin.name for plugin in plugins if load(plugin).takes_path]


_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2")
