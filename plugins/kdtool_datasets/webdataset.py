"""Shards of WebDataset: tar files of images and labels (Aizman, Maltby and Breuel, 2019, arXiv:2001.01858).

The members of a sample have the same path up to the first dot of their name: ``0001.jpg`` and ``0001.cls``. Nothing is
unpacked: a tar holds its members as they are, so that each image is a part of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Dataset, Error
from kdtool.utils import printable, progress_bar
from kdtool_datasets.choices import joined, split_choices
from kdtool_datasets.listing import LITTER, SUFFIXES, counted, some
from kdtool_datasets.samples import Sample, raw_data
from kdtool_datasets.shards import Shards, find_files, find_shards
from kdtool_datasets.tables import LABEL_NAMES, plain
from kdtool_datasets.tar_members import Member, members_of

if TYPE_CHECKING:
    from kdtool.data import ImageSource, RawData

CHOICES = ("image", "label")

# A label, or a description of one image in JSON, is far smaller.
LONGEST_LABEL = 2**20

# Files beside the shards with the names of the classes 0, 1, ..., one a line.
NAMES = ("classnames.txt", "class_names.txt", "classes.txt", "labels.txt")
LONGEST_NAMES = 2**24


@dataclass
class _Parts:
    """The members of one sample by what follows the first dot of their name."""

    images: dict[str, Member] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


class WebDataset(Dataset):
    """Read webdataset:PATH, tar files with an image and a label, as .cls or in .json, for each sample.

    PATH is a folder, a file or a pattern, "train-{000..010}.tar". Where it cannot be known which member is the image,
    or which entry of the JSON the label, write webdataset:PATH,image=jpg or ,label=NAME.
    """

    takes_path: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (".tar",)
    also_called: ClassVar[tuple[str, ...]] = ("wds", "tar", "shards", "web-dataset")

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the places of the images; PATH is looked up as given, then below ``root``."""
        path, choices = self.find(argument, root), split_choices(argument, CHOICES)[1]
        shards, shown = find_shards(path, ".tar", NAMES), printable(str(path), 400)
        names, notes = _names(shards.root), list(shards.notes)
        samples = _read(shards, choices, notes, labelled=True)
        numbers = all(isinstance(sample.label, int) for members in samples.values() for sample in members)
        if names is not None:
            notes.append(f"the names of the classes are {'read from' if numbers else 'not those of'} {names[0]}")
        return raw_data(
            shown,
            samples,
            names[1] if numbers and names is not None else None,
            joined(str(path), choices),
            whole=shards.whole,
            notes=list(dict.fromkeys(notes)),
        )

    def images(self, argument: str, root: Path | None) -> tuple[ImageSource, ...]:
        """Return the images of the train split; no labels are needed."""
        path, choices = self.find(argument, root), split_choices(argument, CHOICES)[1]
        samples = _read(find_shards(path, ".tar"), choices, [], labelled=False)
        return tuple(sample.image for sample in samples.get("train", next(iter(samples.values()))))

    @classmethod
    def find(cls, argument: str, root: Path | None) -> Path:
        """Return the absolute path of the file, the folder or the pattern.

        Raises:
            UsageError: ``argument`` is empty.
            Error: there is nothing at that path.
        """
        return find_files(split_choices(argument, CHOICES)[0], root, ".tar", "webdataset")


def _read(shards: Shards, choices: dict[str, str], notes: list[str], *, labelled: bool) -> dict[str, list[Sample]]:
    """Return the samples of all files by split."""
    files = sum(map(len, shards.splits.values()))
    samples: dict[str, list[Sample]] = {}
    with progress_bar("reading shards", files) as advance:
        for split, members in shards.splits.items():
            samples[split] = []
            for file in members:
                samples[split] += _samples(file, shards.key(file), choices, notes, labelled=labelled)
                advance()
    return samples


def _samples(file: Path, key: str, choices: dict[str, str], notes: list[str], *, labelled: bool) -> Iterator[Sample]:
    """Yield the samples of a file in its order; ``key`` names it in the data set."""
    from kdtool.data import FilePart

    shown = printable(str(file), 400)
    others: list[str] = []
    bare: list[str] = []
    found = False
    for name, parts in _grouped(file, shown, others).items():
        if not parts.images:
            bare.append(name)
            continue
        kind, image = _image(parts.images, choices, name, shown)
        label = _label(parts.labels, choices, f"{shown}: {printable(image.name)}") if labelled else None
        found = True
        yield Sample(FilePart(file, image.start, image.size, f"{file}: {image.name}"), f"{key}/{name}.{kind}", label)
    if bare:
        notes.append(f"left out {counted(bare, 'sample')} of {printable(file.name)} without an image ({some(bare)})")
    if others:
        notes.append(
            f"left out {counted(others, 'file')} in {printable(file.name)}, no images or labels ({some(others)})"
        )
    if not found:
        raise Error(f"{shown}: holds no images ({', '.join(SUFFIXES)}); it needs files like 0001.jpg and 0001.cls")


def _grouped(file: Path, shown: str, others: list[str]) -> dict[str, _Parts]:
    """Return the members of a tar by the name of their sample."""
    samples: dict[str, _Parts] = {}
    for member in members_of(file, LONGEST_LABEL, _is_label):
        folder, _, base = member.name.rpartition("/")
        start, dot, kind = base.partition(".")
        kind = kind.lower()
        if not start or base.lower() in LITTER or not dot:
            others.append(member.name)
            continue
        image = f".{kind.rpartition('.')[2]}" in SUFFIXES
        if not (image or member.content is not None):
            others.append(member.name)
            continue
        parts = samples.setdefault(f"{folder}/{start}" if folder else start, _Parts())
        if kind in (parts.images if image else parts.labels):
            raise Error(f"{shown}: has two files {printable(member.name)}; remove one of them")
        if image:
            parts.images[kind] = member
        else:
            parts.labels[kind] = member.content or ""
    return samples


def _is_label(name: str) -> bool:
    return name.lower().endswith((".cls", ".json"))


def _image(images: dict[str, Member], choices: dict[str, str], name: str, shown: str) -> tuple[str, Member]:
    """Return which file of a sample is the image, by what follows the first dot of its name."""
    if "image" in choices:
        kind = choices["image"].lstrip(".").lower()
        if kind not in images:
            raise Error(f"{shown}: the sample {printable(name)} has no .{printable(kind)}, only .{', .'.join(images)}")
        return kind, images[kind]
    # The mask of 0001.jpg may be 0001.seg.png.
    simple = [kind for kind in images if "." not in kind] or list(images)
    if len(images) > 1 and all("." in kind for kind in images):
        raise Error(
            f"{shown}: {printable(next(iter(images.values())).name)} and {len(images) - 1:,} more files are one "
            "sample, since a sample's name ends at the first dot; rename the files"
        )
    if len(simple) > 1:
        kinds = [printable(kind, 40) for kind in simple[:4]]
        raise Error(
            f"{shown}: the sample {printable(name)} has the images .{' and .'.join(kinds)}; choose one, as in "
            f"webdataset:PATH,image={kinds[0]}"
        )
    return simple[0], images[simple[0]]


def _label(labels: dict[str, str], choices: dict[str, str], where: str) -> int | str:
    """Return the label of a sample: the text of its .cls, else an entry of its .json; a whole number is a number."""
    kinds = [kind for kind in labels if kind.rpartition(".")[2] == "cls"]
    if "label" not in choices and kinds:
        if len(kinds) > 1:
            raise Error(f"{where}: has the labels .{' and .'.join(map(printable, kinds))}; keep one of them")
        return _value(labels[kinds[0]].strip(), where)
    chosen = choices.get("label", "").lstrip(".")
    if chosen.lower() in labels and not chosen.lower().endswith("json"):
        return _value(labels[chosen.lower()].strip(), where)
    if "json" not in labels:
        raise Error(f"{where}: has no label; each image needs a .cls, or a .json with the entry label")
    try:
        content = json.loads(labels["json"])
    except (ValueError, RecursionError) as error:
        raise Error(f"{where}: its .json cannot be read ({printable(str(error))})") from error
    entries: dict[str, Any] = content if isinstance(content, dict) else {}
    if chosen:
        if chosen not in entries:
            raise Error(f"{where}: its .json has no entry {printable(chosen)}, only {some(list(entries))}")
        return _value(entries[chosen], where)
    usual = [name for name in entries if plain(name) in LABEL_NAMES or plain(name) == "cls"]
    exact = [name for name in usual if plain(name) == "label"]
    if len(usual) > 1 and len(exact) != 1:
        both = " and ".join(map(printable, usual[:3]))
        raise Error(
            f"{where}: the entries {both} of its .json may all be the label; choose one, as in "
            f"webdataset:PATH,label={printable(usual[0])}"
        )
    if not usual:
        listed = some(list(entries)) or "nothing"
        raise Error(
            f"{where}: has no label; its .json has {listed}; if one of them is the label, write "
            "webdataset:PATH,label=NAME"
        )
    return _value(entries[(exact or usual)[0]], where)


def _value(value: Any, where: str) -> int | str:
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(text) if len(text) < 10 and text.isascii() and text.isdigit() else text
    if isinstance(value, int):
        return int(value)
    raise Error(f"{where}: its label is empty, or neither text nor a whole number")


def _names(folder: Path) -> tuple[str, tuple[str, ...]] | None:
    """Return a file in the folder of the shards and the names of the classes in it, None if there is none."""
    for name in NAMES:
        path = folder / name
        if path.is_file():
            with open(path, "rb") as file:
                data = file.read(LONGEST_NAMES + 1)
            try:
                lines = data.decode("utf-8-sig").splitlines() if len(data) <= LONGEST_NAMES else []
            except UnicodeDecodeError:
                lines = []
            names = tuple(line.strip() for line in lines if line.strip())
            if len(names) < 2:
                raise Error(f"{printable(str(path), 400)}: lists no names of classes, one a line in UTF-8; correct it")
            return name, names
    return None
