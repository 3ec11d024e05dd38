"""Open what a command reads: checkpoints, data sets, teachers and students."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdtool.data.checks import tell
from kdtool.data.opening import open_data, open_spec
from kdtool.data.options import DataOptions
from kdtool.data.spec import DataSpec
from kdtool.data.splits import Data
from kdtool.distillation.distiller import Distiller
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, read
from kdtool.models.sources import create_like, parse
from kdtool.surgery.refiner import Refiner, refined

# Options that a checkpoint does not store: they name the data set itself or where its files are.
NOT_STORED = ("data", "data_dir", "download", "unlabelled")


def load(checkpoint: str | Path | Checkpoint) -> Checkpoint:
    """Return a checkpoint: the given one, or the one that is read from a file.

    Raises:
        Error: the file is missing, is damaged or is no checkpoint.
    """
    return checkpoint if isinstance(checkpoint, Checkpoint) else read(checkpoint)


def load_teachers(
    teacher: str | Path | Checkpoint | Sequence[str | Path | Checkpoint], method: type[Distiller]
) -> list[Checkpoint]:
    """Return the teachers that a method learns from, in the given order.

    Raises:
        UsageError: the method takes one teacher and several are given, or it needs several and one is given.
        Error: the teachers have different classes, or take images of different shapes.
    """
    checkpoints = [teacher] if isinstance(teacher, str | Path | Checkpoint) else list(teacher)
    method.check_teachers(len(checkpoints))
    teachers = [load(checkpoint) for checkpoint in checkpoints]
    first, *others = teachers
    for number, other in enumerate(others, start=2):
        name = str(other.path or f"teacher {number}")
        _check_pair(first.network, other.network, name, "the first teacher")
        if other.data and first.data and other.data.classes != first.data.classes:
            raise Error(
                f"{name}: its classes differ from those of the first teacher; teachers must have the same classes"
            )
    return teachers


def data_for(parent: Checkpoint, options: dict[str, Any]) -> Data:
    """Open a data set: the one that the options name, else the one that the checkpoint remembers.

    ``options`` are options of `DataOptions`; they replace those that the checkpoint remembers.

    Raises:
        UsageError: the checkpoint remembers no data set and the options name none, or an option is wrong.
        Error: the data set has another number of classes than the network, or cannot be opened.
    """
    architecture = parent.architecture
    if options.get("data") is None:
        if parent.data is None:
            raise UsageError(f"{parent.path or 'this checkpoint'} remembers no data set; name one with --data")
        changes = {name: value for name, value in options.items() if name not in NOT_STORED}
        DataOptions(**options)  # checks the values
        spec = dataclasses.replace(parent.data, **changes)
        return open_spec(spec, data_dir=options.get("data_dir"), unlabelled=options.get("unlabelled"))
    elsewhere = parent.data is None and bool(parent.history) and bool(parent.history[0].get("trained_elsewhere"))
    own = {name: architecture.options[name] for name in architecture.origin().as_data()}
    data = open_data(
        DataOptions(**options),
        image_size=architecture.input[1],
        in_channels=architecture.input[0],
        like=parent.data,
        expects=expected_images(architecture.spec, own) if elsewhere else None,
    )
    if len(data.spec.classes) != architecture.classes:
        raise Error(
            f"the network has {architecture.classes} classes and the data set {data.spec.name} has "
            f"{len(data.spec.classes)}; they must be the same"
        )
    return data


def expected_images(name: str, source_options: dict[str, Any]) -> dict[str, Any]:
    """Return how the pretrained weights of ``name`` expect their images: mean, std, crop and interpolation."""
    source, network = parse(name, source_options)
    defaults = source.defaults(network)
    return {key: defaults[key] for key in ("mean", "std", "crop", "interpolation") if key in defaults}


def say_expected(weights: str | Path, name: str, spec: DataSpec) -> None:
    """Say how images are normalised for weights from a file, which does not tell how they were trained."""
    mean, std = (", ".join(f"{number:.4g}" for number in numbers) for numbers in (spec.mean, spec.std))
    tell(
        f"{weights}: does not tell how its images were normalised; mean {mean} and std {std} are used, those of {name} "
        "or of the data; if it was trained with others, give --mean and --std"
    )


def student_for(
    parent: Checkpoint,
    student: str | Path | Checkpoint | None,
    refiner: Refiner | None,
    stem: str | None,
    data: Data,
    seed: int,
) -> tuple[Network | None, Checkpoint | None]:
    """Return the student, and its checkpoint if it was read from one; both may be None.

    The student is made by the ``refiner``, read from a checkpoint or built by name (``SOURCE:NAME``), in this order.

    Raises:
        Error: the student cannot be made, or its classes or inputs differ from those of its teacher.
    """
    if refiner is not None:
        return refined(refiner, parent.network, seed), None
    if student is None:
        return None, None
    if not isinstance(student, str) or ":" not in student or Path(student).exists():
        origin = load(student)
        _check_pair(parent.network, origin.network, str(origin.path or student), "its teacher")
        return origin.network, origin
    return create_like(student, parent.network, stem=stem, seed=seed), None


def _check_pair(teacher: Network, other: Network, name: str, teacher_name: str) -> None:
    expected, actual = teacher.architecture, other.architecture
    if actual.classes != expected.classes:
        raise Error(
            f"{name}: has {actual.classes} classes and {teacher_name} {expected.classes}; they must be the same"
        )
    if actual.input != expected.input:
        raise Error(
            f"{name}: takes images of {actual.input} and {teacher_name} of {expected.input}; they must be the same"
        )
