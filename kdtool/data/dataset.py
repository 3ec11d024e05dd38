"""The contract of a data set plugin."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import installed, names
from kdtool.plugins.method import Method
from kdtool.plugins.method_code import not_overridden
from kdtool.plugins.registry import also_called, load, method_class

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool.data.raw import ImageSource, RawData


class Dataset(Method):
    """Read a data set."""

    kind: ClassVar[str] = "datasets"
    takes_path: ClassVar[bool] = False
    """Whether the text after the colon is the path of images: of a folder, a list or a file that holds them."""
    takes_name: ClassVar[bool] = False
    """Whether the text after the colon is a name, without which there is no data set."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the files that hold its images, such as ``.parquet``; none if each image is a file of its own."""

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the data set.

        ``argument`` is the text after the colon (the PATH of ``folder:PATH``), empty without a colon; ``root`` is the
        value of ``--data-dir`` or ``KDTOOL_DATA``.

        Raises:
            kdtool.Error: the files are missing or hold no images; the message says what to do.
        """
        raise not_overridden(self, "load")

    def images(self, argument: str, root: Path | None) -> Tensor | tuple[ImageSource, ...]:
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
    sources = path_datasets(text) if name not in names(Dataset.kind) else []
    if sources and ":" in text and len(meant := also_called(Dataset.kind, name)) == 1 and meant != path_datasets()[:1]:
        raise UsageError(f"no data set is called {name!r}; write {meant[0]}:{text.partition(':')[2]}")
    if sources and Path(text).suffix in _ARCHIVES and not _reads(sources[0], text):
        raise UsageError(f"--data {text}: is an archive; unpack it, and write {path_datasets()[0]}:PATH")
    if sources and (("/" in text and "://" not in text) or Path(text).exists() or _reads(sources[0], text)):
        what = "images in a folder for each class" if sources[0] == path_datasets()[0] else "this kind of file"
        raise UsageError(f"--data {text}: no data set is called so; for {what} write {sources[0]}:{text}")
    if sources and also_called(Dataset.kind, name) == path_datasets()[:1]:
        folder = path_datasets()[0]
        raise UsageError(f"no data set is called {name!r}; images in a folder for each class are {folder}:PATH")
    method_class(Dataset.kind, name)
    return name


def without_path(text: str) -> str:
    """Return a value of ``--data`` without the path of its images: its name and the choices behind the path."""
    name, colon, argument = text.partition(":")
    if not colon or name not in names(Dataset.kind) or not method_class(Dataset.kind, name).takes_path:
        return text
    choices = _CHOICES.search(argument)
    assert choices is not None  # it fits any text
    return f"{name}:{choices[0]}"


# What a user adds to a path, such as ``,label=breed``.
_CHOICES = re.compile(r"(?:,[A-Za-z_]+=[^,]*)*\Z")


def path_datasets(path: str | Path = "") -> list[str]:
    """Return the built-in data sets that are named with a path, such as ``folder``; first those that read ``path``."""
    plugins = [plugin for plugin in installed() if plugin.kind == Dataset.kind and plugin.builtin]
    found = [plugin.name for plugin in plugins if load(plugin).takes_path]
    fitting = [name for name in found if _reads(name, path)]
    # For a path of which nothing is known, class folders come first.
    found.sort(key=lambda name: (name not in fitting, bool(_suffixes(name))))
    return found


def named_datasets() -> list[str]:
    """Return the built-in data sets whose value goes on after a colon."""
    plugins = [plugin for plugin in installed() if plugin.kind == Dataset.kind and plugin.builtin]
    return [plugin.name for plugin in plugins if load(plugin).takes_path or load(plugin).takes_name]


def _suffixes(name: str) -> tuple[str, ...]:
    suffixes: tuple[str, ...] = method_class(Dataset.kind, name).suffixes
    return suffixes


def _reads(name: str, path: str | Path) -> bool:
    """Return whether a data set reads files like ``path``, or most of those in the folder that it names."""
    suffixes = _suffixes(name)
    if not suffixes or not str(path):
        return False
    if Path(path).suffix.lower() in suffixes:
        return True
    files = (file for _, _, files in os.walk(path) for file in files)
    seen = [os.path.splitext(file)[1].lower() for file in itertools.islice(files, 1000)]
    return 2 * sum(suffix in suffixes for suffix in seen) > len(seen)


_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2")
