"""What `kdtool prune` does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kdtool.commands.foresight import dry_run as rehearsed
from kdtool.commands.hours import with_epochs
from kdtool.commands.inputs import as_teachers, data_for, load
from kdtool.commands.outputs import entry_of, finish, named_after, running, target_of
from kdtool.commands.quantise import in_float
from kdtool.commands.recipes import settled, with_recipe
from kdtool.data.checks import tell
from kdtool.data.options import DataOptions
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.plugins.calls import public
from kdtool.plugins.method_code import returned, running_method
from kdtool.plugins.places import split
from kdtool.plugins.registry import method_class
from kdtool.pruning.branches import say_branches
from kdtool.pruning.pruner import Pruner
from kdtool.surgery.repair.options import RepairOptions
from kdtool.training.options import Training
from kdtool.training.run import Run
from kdtool.utils.files import gzip_bytes


@public
def prune(
    checkpoint: str | Path | Checkpoint,
    method: str = "magnitude",
    *,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    track: str | None = None,
    **options: Any,
) -> Checkpoint:
    """Remove weights or channels of a network and retrain the rest, with the unpruned network as teacher.

    ``options`` are those of the method, `DataOptions`, `Training` and `TimeOptions`; ``dry_run`` and ``track`` are as
    in `distill`.

    Raises:
        Error: the network cannot be pruned in this way, or the retraining fails.
    """
    parent = in_float(load(checkpoint))
    cls = method_class("pruners", method)
    target = target_of(output, named_after(parent, method), force=force, resume=resume)
    same = partial(prune, checkpoint, method, output=output, force=True)
    options = with_epochs(options, same, target, resume=resume)
    own, data_options, training_options = split(options, cls, DataOptions, Training)
    given, given_data = training_options, data_options
    training_options, data_options = with_recipe(given, given_data)
    pruner, training = cls(**own), Training(**training_options)
    _check_taught(pruner, own, data_options)
    data = data_for(parent, data_options) if training.epochs > 0 or data_options or parent.data else None
    if isinstance(pruner, RepairOptions):
        pruner.check_images(data)
    if data is not None:
        training, data = settled(training, given, data, given_data, parent.network, automatic=False, kept=True)
    entry = entry_of("prune", method, parent, options, target, pruner, training, data)
    # With another --mean or --std the network learns them; as its own teacher it sees what it was trained with.
    teachers = [parent] if data is None else as_teachers([parent], data.spec, data_options)

    def work(run: Run) -> Network:
        with running_method(pruner):
            pruned: Network = pruner.prune(run, parent.network, run.teachers[0].network)
        return returned(pruner, pruned, Network, "a network")

    others: dict[str, Any] = {"teachers": teachers, "masked": parent.masked, "closing": gzip_bytes}
    if dry_run:
        return rehearsed(work, target, data=data, training=training, parent=parent, entry=entry, **others)
    with running(
        target, entry, data, training, parent, force=force, resume=resume, work=work, track=track, **others
    ) as run:
        if isinstance(run, Checkpoint):
            return run
        with entry.timed():
            network = work(run)
        if run.masked:
            say_branches(network)
        return finish(run, network, target)


def _check_taught(pruner: Pruner, own: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Check that there is a teacher for images without labels; say if there is none for the loss that was given.

    Raises:
        UsageError: there is none.
    """
    if pruner.teacher:
        return
    repairs = isinstance(pruner, RepairOptions) and pruner.repairs  # it takes images without labels too
    if data.get("unlabelled") is not None and not repairs:
        raise UsageError("--unlabelled: without a teacher a network learns from the labels alone; leave it out")
    if "objective" in own:
        tell("--no-teacher: the labels are the only loss; --objective and its options are not used")
