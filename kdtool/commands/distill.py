"""What `kdtool distill` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool.commands.foresight import dry_run as rehearsed
from kdtool.commands.hours import with_epochs
from kdtool.commands.inputs import as_teachers, data_for, load_student, student_for
from kdtool.commands.onnx_teacher import check_images_known, check_onnx_teachers, load_teachers
from kdtool.commands.outputs import begins_with, entry_of, finish, named_after, running, target_of
from kdtool.commands.quantise import check_training, rounding
from kdtool.commands.recipes import settled, with_recipe
from kdtool.data.checks import tell
from kdtool.data.options import DataOptions
from kdtool.distillation.options import SearchOptions, StudentOptions, check_stem
from kdtool.distillation.successive_halving import choose
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.options import NetworkOptions
from kdtool.models.quantisation.training import quantisation_of
from kdtool.plugins.calls import public
from kdtool.plugins.distributions import plugins_in, versions_of
from kdtool.plugins.method_code import returned, running_method
from kdtool.plugins.network_spec import named
from kdtool.plugins.places import split
from kdtool.plugins.registry import method_class
from kdtool.surgery.refiner import Refiner
from kdtool.training.epochs.held import is_fresh
from kdtool.training.options import Training
from kdtool.training.run import Run
from kdtool.training.side_by_side.placement import Placement
from kdtool.training.side_by_side.workers import workers_of

if TYPE_CHECKING:
    from torch import nn


@public
def distill(
    teacher: str | Path | Checkpoint | Sequence[str | Path | Checkpoint],
    method: str = "kd",
    *,
    student: str | Path | Checkpoint | Callable[..., nn.Module] | None = None,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    track: str | None = None,
    **options: Any,
) -> Checkpoint:
    """Teach a student, write its checkpoint, and return it.

    ``teacher`` is a checkpoint, or several for methods that learn from several; the first one gives the data and the
    input of the student where no option does. An ONNX file teaches by its logits alone. ``student`` is ``SOURCE:NAME``
    or a checkpoint to continue from, which keeps its normalisation and its order of classes; or a function or class
    that builds a network, as for `teacher`. Each teacher sees images normalised as in its own training. ``options`` are
    those of the method, `StudentOptions`, `NetworkOptions` (the student's stem), `DataOptions` (where they differ from
    the teacher's), `Training`, `TimeOptions` (``hours=1`` in the place of epochs) and `SearchOptions`:
    ``search="temperature=1,2,4,8"`` selects a value by validation in short trainings. Options of a method in a role
    have the names of the command line: ``refiner="halve", ratio=0.9``, or in full ``refiner_ratio=0.9``. With
    ``dry_run`` nothing is trained or written: what the training would cost is said, and the last entry of the untrained
    checkpoint's history has it as ``forecast``. ``track`` names programs that show the training, as ``--track`` takes
    them: ``tensorboard:logs,mlflow``. With options of `Placement`, the trainings of a search, and the candidates of
    ``ikd``, are tasks of a Ray cluster: ``ray="auto"``.

    Raises:
        Error: student and teacher do not fit together, or the training fails.
    """
    cls = method_class("distillers", method)
    if callable(student) and not isinstance(student, Checkpoint):
        student = named(student)
    teachers = load_teachers(teacher, cls)
    parent = teachers[0]
    target = target_of(output, named_after(parent, method), force=force, resume=resume)
    same = partial(distill, teacher, method, student=student, output=output, force=True)
    options = with_epochs(options, same, target, resume=resume)
    check_images_known(parent, options.get("data"))
    groups = (cls, StudentOptions, NetworkOptions, DataOptions, Training, SearchOptions, Placement)
    own, student_options, network_options, data_options, training_options, search_options, where = split(
        options, *groups
    )
    placement = Placement(**where)
    if network_options.keys() - {"stem"}:
        raise UsageError(
            "--classes, --in-channels and --image-size: a student has those of its teacher; leave them out"
        )
    given, given_data = training_options, data_options
    training_options, data_options = with_recipe(given, given_data)
    distiller, training, search = cls(**own), Training(**training_options), SearchOptions(**search_options).search
    if placement.ray is not None and search is None and not distiller.trains_side_by_side:
        raise UsageError(
            f"--ray: {method} with these options has no trainings that could run side by side; leave it out, or add "
            "--search"
        )
    settings = {}
    if search is not None:
        settings = {name: cls(**values) for name, values in search.settings(cls, own).items()}
    cls.check_student(named=student is not None, refined=student_options.get("refiner") is not None)
    of_student = StudentOptions(**student_options)
    cls.check_precision(of_student.quantize)
    check_training(of_student, training)
    refiner = of_student.refiner
    asked = _Asked(student, refiner, load_student(student, parent) if refiner is None else None)
    stem = network_options.get("stem")
    check_stem(stem, made=asked.from_teacher)
    if stem is not None and asked.origin is not None:
        tell("--stem: is not used; the student is a checkpoint, which has its own")
    data = data_for(parent, data_options, learner=asked.origin, fresh=asked.fresh)
    teachers = as_teachers(teachers, data.spec, data_options)
    check_onnx_teachers(teachers, distiller, None, refined=asked.from_teacher)
    repairs: list[dict[str, Any]] = []
    network = student_for(parent, student, asked.origin, refiner, stem, training.seed, data, repairs.append)
    check_onnx_teachers(teachers, distiller, network, refined=asked.from_teacher)
    kept = not asked.fresh or getattr(getattr(distiller, "refiner", None), "init", "fresh") == "inherit"
    training, data = settled(
        training, given, data, given_data, network or parent.network,
        automatic=cls.recipe_by_steps and not kept, kept=kept,
    )  # fmt: skip
    # Where it was trained is no part of what was made.
    typed = {"student": asked.shown, **{name: value for name, value in options.items() if name not in where}}
    plugins = [*plugins_in(refiner), *([("teachers", network.architecture.source)] if network is not None else [])]
    inputs = asked.inputs(teachers)
    entry = entry_of("distill", method, parent, typed, target, distiller, training, data, inputs, plugins)
    for about in repairs:
        entry.record_repair(about)
    if of_student.quantize != "off" and network is not None:
        network = rounding(network, data, of_student)
        entry.record(quantised=quantisation_of(network))
    if search is not None:
        entry.record(search={"asked": str(search)})
    masked = asked.masked(parent)
    if parent.masked and not masked:
        entry.record(masked=False)

    def work(run: Run) -> Network:
        chosen = distiller
        if settings:
            chosen, outcome = choose(run, settings, run.teachers[0].network, network)
            run.entry.options = chosen.as_data()
            run.entry.versions = {**run.entry.versions, **versions_of(plugins_in(chosen))}
            run.record(search={"asked": str(search), **outcome})
        with running_method(chosen):
            trained: Network = chosen.distill(run, run.teachers[0].network, network)
        return returned(chosen, trained, Network, "a network")

    others: dict[str, Any] = {"teachers": teachers, "masked": masked}
    if dry_run:
        return rehearsed(work, target, data=data, training=training, parent=parent, entry=entry, **others)
    others["begins"] = begins_with(network, refiner=refiner and {"name": refiner.name, **refiner.as_data()})
    # A cluster may not answer, so it is asked before anything is written.
    with (
        workers_of(placement) as workers,
        running(
            target, entry, data, training, parent, force=force, resume=resume, work=work, track=track, **others
        ) as run,
    ):
        if isinstance(run, Checkpoint):
            return run
        run.workers = workers
        with entry.timed():
            trained = work(run)
        if run.masked and is_fresh(trained.module):
            run.record(masked=False)
        return finish(run, trained, target)


@dataclass(frozen=True)
class _Asked:
    """The student that the options ask for; if they name none, the method makes it."""

    student: str | Path | Checkpoint | None
    refiner: Refiner | None
    origin: Checkpoint | None
    """The checkpoint whose weights go on."""

    @property
    def fresh(self) -> bool:
        """Whether the weights are fresh: then it expects whatever images the run gives it."""
        return self.origin is None and (self.refiner is None or self.refiner.init == "fresh")

    @property
    def from_teacher(self) -> bool:
        """Whether it is made from the teacher."""
        return self.refiner is not None or self.student is None

    @property
    def shown(self) -> str | Path | Checkpoint | None:
        """The student, as the history tells it."""
        return self.origin.path if self.origin else self.student

    def masked(self, parent: Checkpoint) -> bool:
        """Return whether it may have zeros of masks: one that has a name has weights of its own."""
        if self.origin:
            return self.origin.masked
        return self.student is None and parent.masked and (self.refiner is None or not self.fresh)

    def inputs(self, teachers: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
        """Return the checkpoints that took part beside the first teacher, by their roles."""
        others = {f"teacher {number}": teacher for number, teacher in enumerate(teachers[1:], start=2)}
        return {**others, **({"student": self.origin} if self.origin else {})}
