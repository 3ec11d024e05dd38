"""What the command line and notebooks call: every producing command, with the same names and options.

Each takes a checkpoint (a path or one in memory), writes one, and returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdtool import history
from kdtool.checkpoint import Checkpoint
from kdtool.comparison import compare
from kdtool.data import open_data
from kdtool.errors import UsageError
from kdtool.exporting import export
from kdtool.files import slug
from kdtool.halving import choose
from kdtool.inputs import as_pretrained, data_for, load, load_teachers, student_for
from kdtool.inspection import evaluate, inspect
from kdtool.methods import make
from kdtool.plugins import method_class
from kdtool.producing import early_weights, entry_of, finish, finish_untrained, named_after, running, target_of
from kdtool.refining import refined
from kdtool.reporting import report
from kdtool.run import timed
from kdtool.settings import DataOptions, EarlyOptions, NetworkOptions, SearchOptions, StudentOptions, Training, split
from kdtool.sources import create, parse
from kdtool.study import run_study

__all__ = [
    "compare",
    "distill",
    "evaluate",
    "export",
    "inspect",
    "load",
    "prune",
    "refine",
    "report",
    "run_study",
    "teacher",
]


def teacher(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    **options: Any,
) -> Checkpoint:
    """Build ``SOURCE:NAME`` and, where data is given, train it on the labels.

    ``options`` are those of `NetworkOptions`, `DataOptions`, `Training`, `EarlyOptions` and of the source itself.

    Raises:
        Error: the network cannot be had, the weights do not fit, or the training fails.
    """
    source, network_name = parse(name)
    groups = split(options, NetworkOptions, DataOptions, Training, type(source), EarlyOptions)
    shape, training, keep = NetworkOptions(**groups[0]), Training(**groups[2]), EarlyOptions(**groups[4])
    if keep.keep_epoch is not None and keep.keep_epoch > training.epochs:
        raise UsageError(f"--keep-epoch {keep.keep_epoch}: the training has {training.epochs} epochs")
    target = target_of(output, Path(f"{slug(network_name)}.pt"), force=force, resume=resume)
    data = None
    if groups[1].get("unlabelled") is not None:
        raise UsageError("--unlabelled: a network that nobody teaches learns from labels alone; leave it out")
    if groups[1].get("data") is not None:
        told = DataOptions(**groups[1])
        data = open_data(told, image_size=shape.image_size, in_channels=shape.in_channels)
    elif groups[1] or groups[2].keys() - {"seed"} or groups[4]:
        idle = next(iter([*groups[1], *(groups[2].keys() - {"seed"}), *groups[4]]))
        raise UsageError(f"--{idle.replace('_', '-')}: nothing is trained without --data")
    weights_file = Path(weights) if weights is not None else None
    network = create(
        name, options=shape, data=data, own=groups[3], pretrained=pretrained, weights=weights_file, seed=training.seed
    )
    if data and (pretrained or weights) and groups[1].get("mean") is None:
        data = as_pretrained(data, name, groups[3])
    given = {**options, **({"pretrained": True} if pretrained else {}), "weights": weights}
    entry = history.entry(
        "teacher", [name], given, method=network.architecture.source,
        settings={
            "options": network.architecture.options,
            "training": training.as_data() if data else {},
            "data": data.spec.as_data() if data else {},
        },
        inputs={}, output=target,
    )  # fmt: skip
    entry["architecture"] = network.architecture.as_data()
    entry["keep"] = keep.as_data()
    entry["trained_elsewhere"] = pretrained or weights is not None
    if data is None:
        return finish_untrained(Checkpoint(network), target, entry)
    with running(target, entry, data, training, None, force=force, resume=resume) as run:
        if isinstance(run, Checkpoint):
            return run
        with timed(entry):
            fit = run.fit("teacher", network, keep_epoch=keep.keep_epoch)
        return finish(run, fit.network, target, early_weights(keep, network, fit))


def refine(
    checkpoint: str | Path | Checkpoint,
    method: str = "halve",
    *,
    seed: int = 0,
    output: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> Checkpoint:
    """Make a smaller structure of a checkpoint's network, with fresh or inherited weights.

    Raises:
        Error: this network cannot be made smaller this way; nothing is written.
    """
    parent = load(checkpoint)
    refiner = make("refiners", method, **options)
    target = target_of(output, named_after(parent, method), force=force)
    entry = entry_of("refine", method, parent, {**options, **({"seed": seed} if seed else {})}, target, refiner)
    with timed(entry):
        network = refined(refiner, parent.network, seed)
    return finish_untrained(Checkpoint(network, parent.data, [], parent.history), target, entry)


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
        entry["search"] = {"asked": str(search)}
    # A student of its own name has weights of its own; what is made of the teacher may have its zeros.
    masked = origin.masked if origin else student is None and parent.masked
    with running(
        target, entry, data, training, parent, force=force, resume=resume, teachers=teachers, masked=masked
    ) as run:
        if isinstance(run, Checkpoint):
            return run
        with timed(entry):
            if settings:
                distiller, found = choose(run, settings, parent.network, pupil)
                entry["options"] = distiller.as_data()
                entry["search"] |= found
            network = distiller.distill(run, parent.network, pupil)
        return finish(run, network, target)


def prune(
    checkpoint: str | Path | Checkpoint,
    method: str = "magnitude",
    *,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    **options: Any,
) -> Checkpoint:
    """Remove what is left over in a network and retrain the rest, with the unpruned network as teacher.

    Raises:
        Error: the network cannot be pruned so, or the retraining fails.
    """
    parent = load(checkpoint)
    cls = method_class("pruners", method)
    own, about, told = split(options, cls, DataOptions, Training)
    pruner, training = cls(**own), Training(**told)
    target = target_of(output, named_after(parent, method), force=force, resume=resume)
    data = data_for(parent, about) if training.epochs > 0 or about or parent.data else None
    entry = entry_of("prune", method, parent, options, target, pruner, training, data)
    with running(target, entry, data, training, parent, force=force, resume=resume, masked=parent.masked) as run:
        if isinstance(run, Checkpoint):
            return run
        with timed(entry):
            network = pruner.prune(run, parent.network, parent.network)
        return finish(run, network, target)
