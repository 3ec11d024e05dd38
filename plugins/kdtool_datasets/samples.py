"""Images with labels, whatever they were read from, as a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kdtool import Error
from kdtool.utils import printable
from kdtool_datasets.class_folders import check_names
from kdtool_datasets.listing import counted, some

if TYPE_CHECKING:
    from kdtool.data import ImageSource, RawData

# A whole number as Python writes it, of a length that is quickly converted; pandas makes 3.0 of it beside a NaN.
WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,17})(?:\.0+)?")

# What programs write for a missing number.
MISSING = frozenset(("nan", "na", "n/a", "<na>", "null", "none"))

# Without a test split, this part of every class is the test split.
TEST_FRACTION = 0.2


class Sample(NamedTuple):
    """An image; ``key`` names it in its data set. ``label`` is a number or a name, None where there is none."""

    image: ImageSource
    key: str
    label: int | str | None


def raw_data(
    shown: str,
    samples: Mapping[str, Sequence[Sample]],
    names: Sequence[str] | None,
    argument: str,
    *,
    whole: bool,
    notes: Sequence[str] = (),
) -> RawData:
    """Return the data set of ``samples``, by split; ``whole`` says that the test split is to be drawn from train.

    ``names`` are those of the classes 0, 1, ...; a label of -1 is none then, as data sets on the Hub have it. Without
    names a number is the name of its class. A class of which no split has images is left out. ``shown`` names the data
    set in messages, ``argument`` is what a checkpoint remembers.

    Raises:
        kdtool.Error: images have no label, or labels are of two kinds, or have no name.
    """
    import torch

    from kdtool.data import RawData, RawSplit

    said = list(notes)
    labels = {sample.label for members in samples.values() for sample in members} - {None}
    no_label = {None, *missing_labels(map(str, labels)), *(() if names is None else (-1,))}
    kept: dict[str, Sequence[Sample]] = {}
    for split, members in samples.items():
        missing = [sample for sample in members if sample.label in no_label]
        if len(missing) == len(members) and split != "train":
            said.append(f"left out the {split} split, whose {counted(members, 'image')} have no labels")
            continue
        if missing:
            raise Error(
                f"{shown}: {len(missing):,} of {counted(members, 'image')} of the {split} split "
                f"{'has' if len(missing) == 1 else 'have'} no label (such as {printable(missing[0].key)}); remove "
                f"{'it' if len(missing) == 1 else 'them'}"
            )
        kept[split] = members
    classes = _classes(shown, kept, names, said)
    places = {label: place for place, label in enumerate(classes)}
    splits = {
        split: RawSplit(
            tuple(sample.image for sample in members),
            torch.tensor([places[sample.label] for sample in members], dtype=torch.int64),
            tuple(sample.key for sample in members),
        )
        for split, members in kept.items()
    }
    return RawData(
        splits["train"],
        splits.get("val"),
        splits.get("test"),
        tuple(classes.values()),
        channels=None,
        image_size=None,
        padding=None,
        flip=None,
        argument=argument,
        test_fraction=TEST_FRACTION if whole else None,
        notes=tuple(said),
    )


def _classes(
    shown: str, samples: Mapping[str, Sequence[Sample]], names: Sequence[str] | None, said: list[str]
) -> dict[int | str | None, str]:
    """Return the name of the class of each label that occurs, in the order of the classes."""
    labels = {sample.label for members in samples.values() for sample in members}
    numbers = sorted(label for label in labels if isinstance(label, int))
    texts = class_order(label for label in labels if isinstance(label, str))
    if numbers and texts:
        raise Error(
            f"{shown}: some labels are numbers ({numbers[0]}) and others are text ({printable(texts[0], 60)!r}); write "
            "all in one form"
        )
    if texts:
        said += [*check_names(shown, texts), *say_below_zero(texts)]
        return {text: text for text in texts}
    if names is None:
        said += say_below_zero([str(number) for number in numbers])
        return {number: str(number) for number in numbers}
    if numbers and not 0 <= numbers[0] <= numbers[-1] < len(names):
        wrong = numbers[0] if numbers[0] < 0 else numbers[-1]
        raise Error(f"{shown}: an image has the label {wrong}, but its classes have the numbers 0 to {len(names) - 1}")
    said += check_names(shown, names)
    unused = [name for number, name in enumerate(names) if number not in labels]
    if unused:
        said.append(f"left out {counted(unused, 'class', 'classes')} without images ({some(unused)})")
    return {number: names[number] for number in numbers}


def class_order(labels: Iterable[str]) -> list[str]:
    """Return labels that are text in the order of their classes, each once.

    If all of them are whole numbers, they are in the order of the numbers, as in files that store numbers: a network
    that was trained on them has its outputs in this order. Otherwise the order is that of the characters.
    """
    names = sorted({*labels})
    return sorted(names, key=lambda name: int(name.partition(".")[0])) if all(map(WHOLE.fullmatch, names)) else names


def missing_labels(labels: Iterable[str]) -> set[str]:
    """Return those labels that programs write for none (such as ``nan``), where all others are whole numbers."""
    names = {*labels}
    missing = {name for name in names if name.lower() in MISSING}
    return missing if missing < names and all(map(WHOLE.fullmatch, names - missing)) else set()


def say_below_zero(classes: Sequence[str]) -> list[str]:
    """Return what to say of a class -1 among classes from 0 on, in their order: it often stands for no label."""
    if classes[:1] not in (["-1"], ["-1.0"]) or not all(map(WHOLE.fullmatch, classes)):
        return []
    return [f"{classes[0]} is a class, the first one; if it stands for no label, remove its images"]
