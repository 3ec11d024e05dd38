"""What `kdtool distill` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdtool.commands.inputs import data_for, load_teachers, student_for
from kdtool.commands.outputs import entry_of, finish, named_after, running, target_of
from kdtool.data.options import DataOptions
from kdtool.distillation.options import SearchOptions, StudentOptions
from kdtool.distillation.successive_halving import choose
from kdtool.errors import UsageError
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.options import NetworkOptions
from kdtool.plugins.options import split
from kdtool.plugins.registry import method_class
from kdtool.training.options import Training


def distill(
    teacher: str | Path | Checkpoint | Sequence[str | Path | Checkpoint],
    method: str = "kd",
    *,
    student: str | Path | Checkpoint | None = None,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    **options: Any,
) -> Checkpoint:
    """Teach a student, and return it.

    ``teacher`` is a checkpoint, or several for methods that learn from several; what is not said of the student and the
    data is as with the first.
    ``student`` is ``SOURCE:NAME`` or a checkpoint to go on from; ``options`` are those of the method, `StudentOptions`,
    `NetworkOptions` (the student's stem), `DataOptions` (where they differ from what the teacher remembers),
    `Training`, and `SearchOptions`: ``search="temperature=1,2,4,8"`` chooses by validation in short trainings.

    Raises:
        Error: student and teacher do not go together, or the training fails.
    """
    cls = method_class("distillers", method)
    teachers = load_teachers(teacher, cls)
    parent = teachers[0]
    groups = (cls, StudentOptions, NetworkOptions, DataOptions, Training, SearchOptions)
    own, who, stem, about, told, more = split(options, *groups)
    if stem.keys() - {"stem"}:
        raise UsageError("--classes, --in-channels and --image-size of a student are its teacher's; leave them out")
    distiller, training, search = cls(**own), Training(**told), SearchOptions(**more).search
    settings = {} if search is None else {name: cls(**one) for name, one in search.settings(cls, own).items()}
    target = target_of(output, named_after(parent, method), force=force, resume=resume)
    cls.check_student(named=student is not None, refined=who.get("refiner") is not None)
    data = data_for(parent, about)
    pupil, origin = student_for(parent, student, StudentOptions(**who).refiner, stem.get("stem"), data, training.seed)
    inputs = {f"teacher {number}": one for number, one in enumerate(teachers[1:], start=2)}
    inputs |= {"student": origin} if origin else {}
    given = {"student": origin.path if origin else student, **options}
    entry = entry_of("distill", method, parent, given, target, distiller, training, data, inputs)
    if search is not None:
        entry.record(search={"asked": str(search)})
    # A student of its own name has weights of its own; what is made of the teacher may have its zeros.
    masked = origin.masked if origin else student is None and parent.masked
    with running(
        target, entry, data, training, parent, force=force, resume=resume, teachers=teachers, masked=masked
    ) as run:
        if isinstance(run, Checkpoint):
            return run
        with entry.timed():
            if settings:
                distiller, found = choose(run, settings, parent.network, pupil)
                entry.options = distiller.as_data()
                entry.record(search={"asked": str(search), **found})
            network = distiller.distill(run, parent.network, pupil)
        return finish(run, network, target)
