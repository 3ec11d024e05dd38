"""Data sets of the Hugging Face Hub, through the library ``datasets`` and its cache."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from kdtool import Dataset, Error, UsageError, option
from kdtool.utils import printable
from kdtool_datasets.arrow_files import Place, naming_damage, needed, places_in
from kdtool_datasets.choices import joined, split_choices
from kdtool_datasets.columns import Columns, columns_of
from kdtool_datasets.listing import counted, some
from kdtool_datasets.samples import Sample, raw_data
from kdtool_datasets.split_names import split_of

if TYPE_CHECKING:
    from kdtool.data import ImageSource, RawData

CHOICES = ("config", "image", "label")

# A name on the Hub, such as uoft-cs/cifar100.
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")

# How long a server may take to answer before it counts as not there.
SECONDS = 5.0


class HfDatasets(Dataset):
    """Read hf-datasets:NAME, a data set of the Hugging Face Hub, from the cache of the library datasets.

    What is not in the cache is downloaded with --download. Where there are several configurations, or columns that may
    be the label, write hf-datasets:NAME,config=NAME or ,label=NAME.
    """

    takes_name: ClassVar[bool] = True
    also_called: ClassVar[tuple[str, ...]] = ("hf", "huggingface", "hub", "datasets", "hf-dataset")

    download: bool = option(False, help="download the data set if it is not in the cache")

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the places of the images in the cache; no code of the data set is run."""
        name, choices, parts, notes = self._splits(argument)
        columns = _columns(parts, name, choices)
        samples = {split: _samples(dataset, split, columns, name) for split, dataset in parts.items()}
        whole = list(parts) == ["train"]
        said = (*notes, *columns.notes)
        return raw_data(name, samples, columns.classes, joined(name, choices), whole=whole, notes=said)

    def images(self, argument: str, root: Path | None) -> tuple[ImageSource, ...]:
        """Return the images of the train split; no labels are needed."""
        name, choices, parts, _ = self._splits(argument)
        columns = _columns(parts, name, choices, labelled=False)
        return tuple(sample.image for sample in _samples(parts["train"], "train", columns, name))

    @staticmethod
    def find(argument: str, root: Path | None) -> str:
        """Return the name of the data set on the Hub.

        Raises:
            UsageError: it is no such name, or the library is not installed.
        """
        name = split_choices(argument, CHOICES)[0]
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{printable(name) or 'nothing'}: is no name on the Hub, such as uoft-cs/cifar100; a local folder is "
                "named with folder:, parquet: or webdataset:"
            )
        needed("datasets")
        return name

    def _splits(self, argument: str) -> tuple[str, dict[str, str], dict[str, Any], list[str]]:
        """Return the name of the data set, what the user chose, its splits, and what to say of them."""
        name, choices = self.find(argument, None), split_choices(argument, CHOICES)[1]
        found = _loaded(name, choices.get("config"), download=self.download)
        meant = {split: split_of(split) for split in found}
        left = [split for split, meaning in meant.items() if meaning is None]
        if len(found) == 1:
            meant, left = dict.fromkeys(found, "train"), []
        parts: dict[str, Any] = {}
        for split in ("train", "val", "test"):
            same = [key for key, meaning in meant.items() if meaning == split]
            if len(same) > 1:
                raise Error(f"{name}: its splits {some(same)} all mean {split}; such a data set cannot be read")
            if same:
                parts[split] = found[same[0]]
        if "train" not in parts:
            raise Error(f"{name}: has no train split, only {some(list(found))}")
        notes = [f"left out the splits {some(left)}, being neither train, val nor test"] if left else []
        return name, choices, parts, notes


def _loaded(name: str, config: str | None, *, download: bool) -> dict[str, Any]:
    """Return the splits of a data set, from the cache or, if it may be downloaded, from the Hub.

    Raises:
        kdtool.Error: it is not in the cache, and cannot be downloaded.
    """
    import datasets
    from huggingface_hub import constants

    reached = download and not datasets.config.HF_HUB_OFFLINE and _reachable(constants.ENDPOINT)
    with _quietly(datasets), _offline(not reached):
        try:
            # With this prefix a folder of that name is not taken for it.
            return dict(datasets.load_dataset(f"hf://datasets/{name}", config, keep_in_memory=False))
        except Exception as error:  # which client of HTTP raises depends on the version of huggingface_hub
            cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
            reason = printable(" ".join(str(cause).split()) or type(cause).__name__, 240)
            raise Error(_why(name, reason, reached=reached, download=download, error=error)) from error


def _why(name: str, reason: str, *, reached: bool, download: bool, error: Exception) -> str:
    if "config" in reason.lower() and isinstance(error, ValueError):
        return f"{name}: {reason}; choose one with hf-datasets:{name},config=NAME"
    if reached:
        return f"{name}: cannot be downloaded ({reason})"
    if not isinstance(error, FileNotFoundError | ConnectionError | ValueError):
        return f"{name}: cannot be read from the cache of datasets ({reason}); download it again"
    if download:
        return f"{name}: is not in the cache of datasets, and the Hub cannot be reached; is there a network connection?"
    return f"{name}: is not in the cache of datasets; add --download to get it from the Hub"


def _reachable(url: str) -> bool:
    """Return whether a server answers, or a proxy asks it."""
    if getproxies():
        return True
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 443), SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Keep ``datasets`` from asking the Hub, whose files it would try to get several times."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if offline:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quietly(datasets: Any) -> Iterator[None]:
    """Keep the messages of ``datasets`` away, and its progress bars where stderr is no terminal."""
    log, bars = datasets.utils.logging, datasets.is_progress_bar_enabled()
    before = log.get_verbosity()
    log.set_verbosity_error()
    if not getattr(sys.stderr, "isatty", bool)():  # a program may have put anything in its place
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if bars:
            datasets.enable_progress_bars()


def _columns(parts: dict[str, Any], name: str, choices: dict[str, str], *, labelled: bool = True) -> Columns:
    schema = parts["train"].features.arrow_schema
    return columns_of(schema, name, choices, f"hf-datasets:{name}", labelled=labelled)


def _samples(dataset: Any, split: str, columns: Columns, name: str) -> list[Sample]:
    """Return the images of a split; ``name`` is that of the data set."""
    if columns.image not in dataset.column_names:
        raise Error(f"{name}: its {split} split has no column {printable(columns.image)}")
    labels: list[Any] = [None] * len(dataset)
    if columns.label is not None and columns.label in dataset.column_names:
        with naming_damage(name):
            labels = dataset.data.column(columns.label).to_pylist()
    files = [Path(entry["filename"]) for entry in dataset.cache_files]
    places = [(file, place) for file in files for place in places_in(file, columns.image)]
    if len(places) != len(labels):
        held = f"{counted(places, 'image')} and {counted(labels, 'label')}"
        raise Error(f"{name}: its cache holds {held}; download it again")
    names = [os.path.basename(place.name or "") for _, place in places]
    unique = "" not in names and len(set(names)) == len(names)
    return [
        Sample(
            _image(file, place, f"{name}: row {row} of {split}"),
            f"{split}/{names[row]}" if unique else f"{split}#{row}",
            label if label is None or isinstance(label, str) else int(label),
        )
        for row, ((file, place), label) in enumerate(zip(places, labels, strict=True))
    ]


def _image(file: Path, place: Place, title: str) -> ImageSource:
    """Return where an image lies: in a file of the cache, or as a file that the library unpacked there.

    Raises:
        kdtool.Error: it is elsewhere. A data set could name any file of this machine.
    """
    import datasets
    from huggingface_hub import constants

    from kdtool.data import FilePart

    if place.size >= 0:
        return FilePart(file, place.start, place.size, title)
    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    if place.name and "\0" not in place.name:
        path = os.path.abspath(place.name)
        real = os.path.realpath(path)
        if os.path.isfile(real) and any(_is_below(real, cache) for cache in caches):
            return Path(path)
    raise Error(f"{title}: has no bytes of an image, and no file in the cache of datasets")


def _is_below(path: str, folder: Any) -> bool:
    return path.startswith(os.path.join(os.path.realpath(os.path.expanduser(str(folder))), ""))
