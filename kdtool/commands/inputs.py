"""Open what a command reads: checkpoints, data sets, teachers and students."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdtool.commands.quantise import as_read, in_float
from kdtool.data.checks import tell
from kdtool.data.classes import natural_order, positions
from kdtool.data.opening import open_data, open_spec
from kdtool.data.options import DataOptions
from kdtool.data.spec import DataSpec
from kdtool.data.splits import Data
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, read
from kdtool.models.conversion import convention_of
from kdtool.models.prediction import classes_in, expected_by, is_natural, recorded_classes, told_by, trained_elsewhere
from kdtool.models.sources import create_like
from kdtool.models.weight_files import Told
from kdtool.plugins.calls import public
from kdtool.plugins.distributions import comes_with
from kdtool.plugins.places import split
from kdtool.surgery.refiner import Refiner, refined
from kdtool.utils.formatting import printable

# Options that a checkpoint does not store: they name the data set itself or where its files are.
NOT_STORED = ("data", "data_dir", "download", "unlabelled")

# How many classes a message names.
SHOWN = 4


@public
def load(checkpoint: str | Path | Checkpoint) -> Checkpoint:
    """Return a checkpoint: the one that is read from a file, or the given one.

    Of a given one the weights count: if its module was frozen, or is in half or double precision, the result has a copy
    in float32 with gradients, as its file would give it.

    Raises:
        UsageError: it is neither a path nor a checkpoint.
        Error: the file is missing, is damaged or is no checkpoint.
    """
    if isinstance(checkpoint, Checkpoint):
        return as_read(checkpoint)
    if not isinstance(checkpoint, str | os.PathLike):
        raise UsageError(
            f"expected a checkpoint or its path, got a {type(checkpoint).__name__}; kdtool.teacher makes a checkpoint "
            "of a network and its weights"
        )
    return read(checkpoint)


def load_student(student: str | Path | Checkpoint | None, parent: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint that ``student`` names, or None if it is a new network (``SOURCE:NAME``) or None.

    Raises:
        Error: it cannot be read, or its classes or inputs differ from those of its teacher.
    """
    if student is None or (isinstance(student, str) and ":" in student and not Path(student).exists()):
        return None
    origin = in_float(load(student))
    check_pair(parent, origin, str(origin.path or "the student"), str(parent.path or "its teacher"))
    return origin


def data_for(
    parent: Checkpoint, options: dict[str, Any], *, learner: Checkpoint | None = None, fresh: bool = False
) -> Data:
    """Open a data set: the one that the options name, else the one that the checkpoint remembers.

    ``options`` are options of `DataOptions`; they replace those that the checkpoint remembers. The images are prepared
    and normalised, and the labels numbered, as ``learner`` was trained, by default ``parent``. With ``fresh`` no
    weights of it go on, so that it does not matter if the options say otherwise.

    Raises:
        UsageError: the checkpoint remembers no data set and the options name none, or an option is wrong.
        Error: the data set has another number of classes than the network, or cannot be opened.
    """
    (options,) = split(options, DataOptions)
    remembered, learner = _remembered(parent, learner), learner or parent
    if options.get("data") is None:
        if remembered is None or parent.data is None:
            raise UsageError(f"{_name(parent)} remembers no data set; name one with --data")
        changes = {name: value for name, value in options.items() if name not in NOT_STORED}
        DataOptions(**options)  # checks the values
        spec = dataclasses.replace(remembered, **changes)
        where = {name: options.get(name) for name in ("data_dir", "unlabelled")}
        try:
            data = open_spec(spec, **where, before=remembered)
        except UsageError as error:
            missing = comes_with("datasets", spec.name.partition(":")[0], parent.history)
            raise type(error)(f"{error}{missing}") from error
    else:
        architecture = learner.architecture
        data = open_data(
            DataOptions(**options),
            image_size=architecture.input[1],
            in_channels=architecture.input[0],
            classes=recorded_classes(learner) if learner.data is None else None,
            like=remembered,
            expects=expected_by(learner) if trained_elsewhere(learner) else None,
            told=told_by(learner),
            natural=is_natural(learner),
            typed=options.keys(),
        )
        if len(data.spec.classes) != architecture.classes:
            raise Error(
                f"the network has {architecture.classes} classes and the data set {data.spec.name} has "
                f"{len(data.spec.classes)}; they must be the same"
            )
    if not fresh:
        say_convention(learner, data.spec)
    return data


def _remembered(parent: Checkpoint, learner: Checkpoint | None) -> DataSpec | None:
    """Return the data set that ``parent`` remembers, prepared and numbered as ``learner`` was trained."""
    if parent.data is None or learner is None:
        return parent.data if learner is None else learner.data
    if learner.data is None:
        classes = classes_in(learner, parent.data.classes)
        return dataclasses.replace(parent.data, **expected_by(learner), classes=classes)
    own = {name: getattr(learner.data, name) for name in ("mean", "std", "classes", "crop", "interpolation")}
    return dataclasses.replace(parent.data, **own)


def say_convention(checkpoint: Checkpoint, spec: DataSpec) -> None:
    """Say what is taken for granted of a network that goes on with data of ``spec``, if anything is.

    Its classes and normalisation are not known if it records no data. If it does, ``--mean`` and ``--std`` may have
    asked for another normalisation than that of its training.
    """
    own = checkpoint.data
    if own is None and (trained_elsewhere(checkpoint) or not checkpoint.history):
        prepared = f"{_normalisation(spec)}, {_resizing(spec)}"
        if recorded_classes(checkpoint) != spec.classes:
            tell(
                f"{_name(checkpoint)}: records no data; its outputs are taken for the classes of {spec.name} in this "
                f"order: {_order(spec)}; its images are normalised by {prepared}; it may have been trained on these "
                "images"
            )
        else:
            tell(
                f"{_name(checkpoint)}: records no data but its classes; its images are normalised by {prepared}; it "
                "may have been trained on these images"
            )
    elif own is not None and (own.mean, own.std) != (spec.mean, spec.std):
        tell(
            f"{_name(checkpoint)}: was trained with {_normalisation(own)}; it now sees images normalised by "
            f"{_normalisation(spec)}"
        )


def _normalisation(spec: DataSpec) -> str:
    mean, std = (", ".join(f"{number:.4g}" for number in numbers) for numbers in (spec.mean, spec.std))
    return f"mean {mean} and std {std}"


def _resizing(spec: DataSpec) -> str:
    return f"cropped to {spec.crop:.4g} of their shorter side and resized by {spec.interpolation}"


def _order(spec: DataSpec) -> str:
    timm, more = natural_order(spec.classes), f", ... {len(spec.classes)} in all" * (len(spec.classes) > SHOWN)
    own, other = (", ".join(printable(name, 60) for name in names[:SHOWN]) + more for names in (spec.classes, timm))
    if spec.classes != timm:
        return f"{own} (timm would sort them {other})"
    return own if list(spec.classes) == sorted(spec.classes) else f"{own} (as timm sorts them)"


def as_teachers(teachers: Sequence[Checkpoint], spec: DataSpec, options: dict[str, Any]) -> list[Checkpoint]:
    """Return the teachers of a run on data of ``spec``, and say what is taken for granted of them.

    Each records data afterwards. What it did not record is that of the run, or what its network's source says, unless
    ``options`` tell the normalisation.
    """
    recorded = []
    for teacher in teachers:
        if teacher.data is None:
            said = options.get("mean") is not None or options.get("std") is not None
            assumed = convention_of(teacher, spec).applied(spec)
            if said:
                assumed = dataclasses.replace(assumed, mean=spec.mean, std=spec.std)
            say_convention(teacher, assumed)
            teacher = dataclasses.replace(teacher, data=assumed)
        elif (teacher.data.crop, teacher.data.interpolation) != (spec.crop, spec.interpolation):
            own = teacher.data
            tell(
                f"{_name(teacher)}: was trained on images cropped to {own.crop:g} of their side and resized by "
                f"{own.interpolation}; it sees those of the student, cropped to {spec.crop:g} and resized by "
                f"{spec.interpolation}"
            )
        recorded.append(teacher)
    return recorded


def say_expected(
    weights: str | Path, name: str, spec: DataSpec, told: Told, typed: Mapping[str, Any], *, ordered: bool = True
) -> None:
    """Say how images are prepared for weights from a file, and in which order its outputs are taken for the classes.

    Nothing is said of the options that were ``typed``. The weights are those of the network ``name``, and ``told`` is
    what their file tells. ``ordered`` says that the classifier is that of the file.
    """
    values = {
        **{key: f"{key} {', '.join(f'{number:.4g}' for number in getattr(spec, key))}" for key in ("mean", "std")},
        "crop": f"crop {spec.crop:.4g}",
        "interpolation": f"interpolation {spec.interpolation}",
        "image_size": f"images of {spec.image_size} pixels",
    }
    free = {key: text for key, text in values.items() if typed.get(key) is None}
    known = {key: text for key, text in free.items() if _as_told(key, spec, told)}
    assumed = {key: text for key, text in free.items() if key not in known}
    if known:
        tell(f"{weights}: was trained with {_listed(known.values())}; used here too")
    if assumed:
        flags = _listed(f"--{key}" for key in assumed).replace("_", "-")
        tell(
            f"{weights}: does not tell how its images were prepared; {_listed(assumed.values())} are used, those of "
            f"{name} or of the data; if it was trained with others, give {flags}"
        )
    if ordered and told.classes != spec.classes:
        tell(
            f"{weights}: does not name its classes; its outputs are taken for those of {spec.name} in this order: "
            f"{_order(spec)}"
        )


def _as_told(key: str, spec: DataSpec, told: Told) -> bool:
    """Return whether a value is that of a weights file, in which one number of mean or std may stand for all."""
    value, used = {**told.images, "image_size": told.size}.get(key), getattr(spec, key)
    return used in ((value, value * len(used)) if isinstance(value, tuple) else (value,))


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def say_not_held_out(weights: str, spec: DataSpec) -> None:
    """Say that weights from elsewhere may have been trained on the images that are held out here."""
    tell(
        f"{weights}: trained elsewhere, perhaps on images of {spec.name} too: its validation and test split may not be "
        "held out from that training"
    )


def student_for(
    parent: Checkpoint,
    student: str | Path | Checkpoint | None,
    origin: Checkpoint | None,
    refiner: Refiner | None,
    stem: str | None,
    seed: int,
    data: Data | None = None,
    record: Callable[[dict[str, Any]], None] = lambda about: None,
) -> Network | None:
    """Return the student, or None if the method makes it.

    It is made by the ``refiner``, is that of the checkpoint ``origin`` (see `load_student`), or is built by its name
    ``student``, in this order. A refiner may repair it with images of ``data``, and give what it did to ``record``.

    Raises:
        Error: the student cannot be made.
    """
    if refiner is not None:
        return refined(refiner, parent.network, seed, data=data, record=record)
    if origin is not None:
        return origin.network
    return None if student is None else create_like(str(student), parent.network, stem=stem, seed=seed)


def check_pair(teacher: Checkpoint, other: Checkpoint, name: str, teacher_name: str) -> None:
    """Check that a network has the classes and the input of a teacher.

    Raises:
        Error: it has not.
    """
    expected, actual = teacher.architecture, other.architecture
    if actual.classes != expected.classes:
        raise Error(
            f"{name}: has {actual.classes} classes and {teacher_name} {expected.classes}; they must be the same"
        )
    if actual.input != expected.input:
        raise Error(
            f"{name}: takes images of {actual.input} and {teacher_name} of {expected.input}; they must be the same"
        )
    if teacher.data is not None and other.data is not None:
        positions(other.data.classes, teacher.data.classes, name, teacher_name)


def _name(checkpoint: Checkpoint) -> str:
    return str(checkpoint.path or checkpoint.architecture.spec)
