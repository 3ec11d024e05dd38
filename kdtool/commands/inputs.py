"""What a command works on: a checkpoint, its data set, a student."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdtool.data.options import DataOptions
from kdtool.data.splits import Data, open_data, open_spec
from kdtool.distillation.distiller import Distiller
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, read
from kdtool.models.sources import create_like, parse
from kdtool.surgery.refiner import Refiner, refined

# What a checkpoint does not remember of its data.
NOT_REMEMBERED = ("data", "data_dir", "download", "unlabelled")


def load(checkpoint: str | Path | Checkpoint) -> Checkpoint:
    """Return a checkpoint, read from its file unless it is one already.

    Raises:
        Error: the file is missing, damaged or no checkpoint.
    """
    return checkpoint if isinstance(checkpoint, Checkpoint) else read(checkpoint)


def load_teachers(
    teacher: str | Path | Checkpoint | Sequence[str | Path | Checkpoint], method: type[Distiller]
) -> list[Checkpoint]:
    """Return the teachers that a method learns from, the first one first.

    Raises:
        UsageError: the method takes one and these are several, or the other way round.
        Error: they do not know the same classes, or take other images.
    """
    given = [teacher] if isinstance(teacher, str | Path | Checkpoint) else list(teacher)
    method.check_teachers(len(given))
    teachers = [load(one) for one in given]
    first, *others = teachers
    for number, one in enumerate(others, start=2):
        name = str(one.path or f"teacher {number}")
        _check_pair(first.network, one.network, name, "the first teacher")
        if one.data and first.data and one.data.classes != first.data.classes:
            raise Error(f"{name}: its classes are others than the first teacher's; teachers must know the same classes")
    return teachers


def data_for(parent: Checkpoint, about: dict[str, Any]) -> Data:
    """Open the data set a checkpoint remembers, changed as the options say, or the one that is named."""
    architecture = parent.architecture
    if about.get("data") is None:
        if parent.data is None:
            raise UsageError(f"{parent.path or 'this checkpoint'} remembers no data set; name one with --data")
        changes = {name: value for name, value in about.items() if name not in NOT_REMEMBERED}
        DataOptions(**about)  # checks the values
        spec = dataclasses.replace(parent.data, **changes)
        return open_spec(spec, data_dir=about.get("data_dir"), unlabelled=about.get("unlabelled"))
    data = open_data(DataOptions(**about), image_size=architecture.input[1], in_channels=architecture.input[0])
    if len(data.spec.classes) != architecture.classes:
        raise Error(
            f"the network has {architecture.classes} classes and the data set {data.spec.name} "
            f"{len(data.spec.classes)}; they must be the same"
        )
    if about.get("mean") is not None:
        return data
    if parent.data is not None:  # its weights expect images normalised as they were
        return data.normalised(parent.data.mean, parent.data.std)
    if parent.history and parent.history[0].get("trained_elsewhere"):
        own = {name: architecture.options[name] for name in architecture.origin().as_data()}
        return as_pretrained(data, architecture.spec, own)
    return data


def as_pretrained(data: Data, name: str, own: dict[str, Any]) -> Data:
    """Normalise images as they were when the weights were trained."""
    source, network = parse(name, own)
    made_for = source.defaults(network)
    mean, std = tuple(made_for["mean"]), tuple(made_for["std"])
    if len(mean) != data.spec.in_channels:
        return data
    return data.normalised(mean, std)


def student_for(
    parent: Checkpoint,
    student: str | Path | Checkpoint | None,
    refiner: Refiner | None,
    stem: str | None,
    data: Data,
    seed: int,
) -> tuple[Network | None, Checkpoint | None]:
    """Return the student, and its checkpoint where it came from one."""
    if refiner is not None:
        return refined(refiner, parent.network, seed), None
    if student is None:
        return None, None
    if not isinstance(student, str) or ":" not in student or Path(student).exists():
        origin = load(student)
        _check_pair(parent.network, origin.network, str(origin.path or student), "its teacher")
        return origin.network, origin
    return create_like(student, parent.network, stem=stem, seed=seed), None


def _check_pair(teacher: Network, other: Network, name: str, whose: str) -> None:
    ours, theirs = other.architecture, teacher.architecture
    if ours.classes != theirs.classes:
        raise Error(f"{name}: has {ours.classes} classes and {whose} {theirs.classes}; they must be the same")
    if ours.input != theirs.input:
        raise Error(f"{name}: takes images of {ours.input} and {whose} of {theirs.input}; they must be the same")
