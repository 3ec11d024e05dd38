"""Parquet files of images, as Hugging Face's ``datasets`` and pandas write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Dataset, Error
from kdtool.utils import printable
from kdtool_datasets.arrow_files import naming_damage, needed, unpacked
from kdtool_datasets.choices import joined, split_choices
from kdtool_datasets.columns import Columns, columns_of
from kdtool_datasets.listing import counted
from kdtool_datasets.samples import Sample, raw_data
from kdtool_datasets.shards import Shards, find_files, find_shards

if TYPE_CHECKING:
    from kdtool.data import ImageSource, RawData

CHOICES = ("image", "label")


class Parquet(Dataset):
    """Read parquet:PATH, a Parquet file or a folder of them, with a column of images and one of labels.

    Where it cannot be known which columns these are, write parquet:PATH,label=NAME or ,image=NAME.
    """

    takes_path: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the places of the images; PATH is looked up as given, then below ``root``."""
        path, choices, shards = self._files(argument, root)
        shown = printable(str(path), 400)
        columns = self._columns(shards, choices, f"parquet:{shown}")
        samples = {
            split: [sample for file in files for sample in _samples(file, shards.key(file), columns)]
            for split, files in shards.splits.items()
        }
        notes = (*shards.notes, *columns.notes)
        written = joined(str(path), choices)
        return raw_data(shown, samples, columns.classes, written, whole=shards.whole, notes=notes)

    def images(self, argument: str, root: Path | None) -> tuple[ImageSource, ...]:
        """Return the images of the train split; no labels are needed."""
        path, choices, shards = self._files(argument, root)
        columns = self._columns(shards, choices, f"parquet:{printable(str(path), 400)}", labelled=False)
        files = shards.splits.get("train", next(iter(shards.splits.values())))
        return tuple(sample.image for file in files for sample in _samples(file, shards.key(file), columns))

    @classmethod
    def find(cls, argument: str, root: Path | None) -> Path:
        """Return the absolute path of the file or the folder.

        Raises:
            UsageError: ``argument`` is empty.
            Error: there is nothing at that path.
        """
        return find_files(split_choices(argument, CHOICES)[0], root, ".parquet", "parquet")

    def _files(self, argument: str, root: Path | None) -> tuple[Path, dict[str, str], Shards]:
        needed("pyarrow")
        path = self.find(argument, root)
        return path, split_choices(argument, CHOICES)[1], find_shards(path, ".parquet")

    @staticmethod
    def _columns(shards: Shards, choices: dict[str, str], written: str, *, labelled: bool = True) -> Columns:
        """Return the columns of all files, which have to be the same."""
        import pyarrow.parquet

        first: tuple[Path, Columns, list[Any]] | None = None
        for file in (file for files in shards.splits.values() for file in files):
            shown = printable(str(file), 400)
            with naming_damage(shown):
                schema = pyarrow.parquet.read_schema(file)
            columns = columns_of(schema, shown, choices, written, labelled=labelled)
            types = [schema.field(name).type for name in (columns.image, columns.label) if name is not None]
            if first is None:
                first = file, columns, types
            elif (columns[:3], types) != (first[1][:3], first[2]):
                raise Error(
                    f"{shown}: its columns of images and labels, or its classes, are not those of "
                    f"{printable(first[0].name)}; name the files of one data set"
                )
        assert first is not None
        return first[1]


def _samples(file: Path, key: str, columns: Columns) -> list[Sample]:
    """Return the images of a file; ``key`` names it in the data set."""
    from kdtool.data import FilePart

    shown = printable(str(file), 400)
    images, places = unpacked(file, columns.image)
    labels: Sequence[Any] = [None] * len(places)
    if columns.label is not None:
        labels = _labels(file, columns.label, shown)
    if len(labels) != len(places):
        raise Error(f"{shown}: changed while it was read; start again")
    missing = [row for row, place in enumerate(places) if place.size < 0]
    if missing:
        raise Error(
            f"{shown}: {counted(missing, 'row')} without bytes of an image (such as row {missing[0]}), at most the "
            "path of a file, which is not opened; write the bytes into the table, or list the files for csv:FILE"
        )
    named = [place.name for place in places]
    unique = None not in named and "" not in named and len(set(named)) == len(named)
    return [
        Sample(
            FilePart(images, place.start, place.size, f"{file}: row {row}"),
            # Paths stay the same if rows are added or sorted.
            f"{key}/{place.name}" if unique else f"{key}#{row}",
            label,
        )
        for row, (place, label) in enumerate(zip(places, labels, strict=True))
    ]


def _labels(file: Path, column: str, shown: str) -> list[int | str | None]:
    import pyarrow.parquet

    with naming_damage(shown):
        values = pyarrow.parquet.read_table(file, columns=[column], use_threads=False).column(0).to_pylist()
    # True and False are classes 1 and 0.
    return [value if value is None or isinstance(value, str) else int(value) for value in values]
