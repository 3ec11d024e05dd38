"""What every command that makes a checkpoint does around its work: the output, the history entry and the run."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool.commands import history
from kdtool.commands.foresight import Work, foreseen
from kdtool.commands.processes import cache_of, shared_directory
from kdtool.commands.tracking import tracking
from kdtool.data.checks import tell
from kdtool.data.fingerprint import moved
from kdtool.data.splits import Data
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, Early, fingerprint, read, write
from kdtool.models.conversion import Convention, convention_of, conversion_of
from kdtool.models.size import measure
from kdtool.plugins.distributions import PluginName, plugins_in
from kdtool.plugins.method import Method
from kdtool.training.callback import KeepEpoch
from kdtool.training.foresight.rehearsal import Closing
from kdtool.training.history_entry import Clock, HistoryEntry
from kdtool.training.options import Training
from kdtool.training.phase import count_epochs
from kdtool.training.run import Run
from kdtool.training.run_directory import BEGINS, changed, directory_of, is_unused
from kdtool.utils.files import beside, check_output, noted, slug, write_text
from kdtool.utils.processes import count, decided, rank
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

if TYPE_CHECKING:
    from torch import nn


IDENTITY = (
    *("command", "method", "options", "keep", "initial", "training", "data", "unlabelled", "search", "budget"),
    "quantised",
)
"""What makes an entry of a history another command, beside the weights that it was given."""

UNTRAINED = (*IDENTITY, "seed", "architecture")
"""The same where nothing was trained."""

MADE = "made.json"
"""The file of a finished run that tells which checkpoint it made."""

FINISHED = "{}: is finished already"


def target_of(
    output: str | Path | None,
    default: Path,
    *,
    force: bool,
    resume: bool = False,
    untrained: bool = False,
    endings: Sequence[str] = (),
) -> Path:
    """Return where the checkpoint goes: ``output``, else ``default``.

    ``untrained`` says that it is made without a run: with ``resume`` the file itself tells what made it. Further files
    beside it have these ``endings`` in place of ``.pt``.

    Raises:
        UsageError: the name is no checkpoint's, or a file is there and is not to be overwritten.
    """
    target = Path(output) if output is not None else default
    if target.suffix != ".pt":
        raise UsageError(f"-o {target}: a checkpoint's name ends in .pt")
    if resume and untrained:
        check_output(target, force=force or target.is_file())
    elif not (resume and not is_unused(directory_of(target))):
        for file in (target, *(beside(target, ending) for ending in endings)):
            check_output(file, force=force)
    return target


def named_after(parent: Checkpoint, method: str) -> Path:
    """Return the name of what a method makes of a checkpoint, beside it."""
    return beside(parent.path or Path(f"{slug(parent.architecture.name)}.pt"), f"-{slug(method)}.pt")


def entry_of(
    command: str,
    method: str,
    parent: Checkpoint,
    given: dict[str, Any],
    target: Path,
    options: Method,
    training: Training | None = None,
    data: Data | None = None,
    inputs: dict[str, Checkpoint] | None = None,
    plugins: Iterable[PluginName] = (),
) -> HistoryEntry:
    """Return the history entry of a command that works on ``parent``; ``given`` are the options as they were typed.

    ``plugins`` took part beside the method ``options`` and the data set.
    """
    settings = {
        "options": options.as_data(),
        "training": training.as_data() if training and data else {},
        "data": data.spec.as_data() if data else {},
    }
    teachers = [teacher for role, teacher in (inputs or {}).items() if role.startswith("teacher")]
    more = [("datasets", data.unlabelled.partition(":")[0])] if data and data.unlabelled else []
    paths = [str(teacher.path) if teacher.path else "CHECKPOINT" for teacher in (parent, *teachers)]
    entry = history.entry(
        command, paths, {"method": method, **given}, method=method, settings=settings,
        inputs={"checkpoint": parent, **(inputs or {})}, output=target, plugins=[*plugins_in(options), *plugins, *more],
    )  # fmt: skip
    if data is not None and data.unlabelled is not None:
        entry.record(unlabelled={"data": data.unlabelled, "images": data.train.unlabelled})
    return entry


@contextlib.contextmanager
def running(
    target: Path,
    entry: HistoryEntry,
    data: Data | None,
    training: Training,
    parent: Checkpoint | None,
    *,
    force: bool,
    resume: bool,
    masked: bool = False,
    teachers: Sequence[Checkpoint] = (),
    work: Work | None = None,
    track: str | None = None,
    closing: Closing | None = None,
    begins: Mapping[str, Any] | None = None,
) -> Iterator[Run | Checkpoint]:
    """Yield the run; or, where a finished run is resumed, the checkpoint that it made.

    ``masked`` says that the network was pruned by masks. ``work`` is what will be done in the run; it is foreseen, so
    that the user knows what the command costs, and sees how far it is. ``track`` names the programs that show it,
    ``closing`` is what the command does with the file of the result. ``begins`` describes the network that is trained,
    as plain data; another one makes it another command.

    Raises:
        UsageError: the run is that of another command, or the file at ``target`` is not what it made.
    """
    identity = {**_identity(entry.as_data()), **({BEGINS: dict(begins)} if begins is not None else {})}
    if data is not None:
        # The same weights teach something else if they expect other images, or have another order of classes.
        own = [convention_of(teacher, data.spec) for teacher in teachers]
        if any(convention != Convention.of(data.spec) for convention in own):
            identity["teachers"] = [dataclasses.asdict(convention) for convention in own]
    with shared_directory(target, identity, training, force=force, resume=resume) as directory:
        if decided(lambda: directory.finished and target.exists()):
            directory.tidy()
            try:
                finished = read(target)
            except Error as error:
                raise type(error)(f"{error}; or remove it, and the same command with --resume trains again") from error
            made = noted(directory.path / MADE)
            if made and made != made_of(finished):
                raise UsageError(
                    f"{target}: is not what its run {directory.path} made; name another output with -o, or start "
                    "again with --force"
                )
            yield finished
            return
        if directory.finished:
            directory.reopen()
        entry.clock = Clock(directory.path)
        run = Run(
            directory.path, data=data, training=training, parent=parent, entry=entry, teachers=teachers, masked=masked
        )
        if count() > 1:
            run.caches = cache_of(target)
            entry.record(processes=count())
        foresight = foreseen(run, work, target, closing) if work is not None else contextlib.nullcontext()
        with tracking(run, track if rank() == 0 else None, target, resumed=resume), foresight:
            yield run
        if target.exists():
            directory.finish()


def begins_with(network: Network | None, **more: Any) -> dict[str, Any]:
    """Return what tells a network before its training from others, as plain data; None is one that the method makes."""
    if network is None:
        return {"network": None, **more}
    content = dumps(network.architecture.as_data(), sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"network": network.architecture.spec, "structure": digest, **more}


def _identity(recorded: Mapping[str, Any], keys: Sequence[str] = IDENTITY) -> dict[str, Any]:
    """Return what makes an entry of a history another command, as plain data."""
    identity = {key: recorded[key] for key in keys if key in recorded}
    identity["inputs"] = {used["role"]: used["weights"] for used in recorded.get("inputs", ())}
    # The same images may lie on another disk now, or KDTOOL_DATA may name the directory that the option named before.
    identity["data"] = {key: value for key, value in recorded.get("data", {}).items() if key != "directory"}
    return identity


def early_weights(kept: KeepEpoch) -> Early:
    """Return the early weights that a training kept.

    Raises:
        UsageError: the training ended before that epoch.
    """
    if not kept.weights:
        raise UsageError(f"--keep-epoch {kept.epoch}: --patience ended the training before it; ask for less")
    return Early(kept.epoch, kept.weights)


def finish(
    run: Run, network: Network, target: Path, early: Early | None = None, trained_in: Path | None = None
) -> Checkpoint:
    """Write the network that a run made, with its metrics, and return the checkpoint.

    ``trained_in`` is the directory of the run inside it that trained the network, if the run itself did not.
    """
    if run.entry.training:
        run.record(**decided(lambda: count_epochs(run.directory, trained_in)))
    checkpoint = run.checkpoint(network, run.scores(network))
    checkpoint.early = early
    if (conversion := conversion_of(network.module)) is not None:
        tell(
            f"{target}: goes on with weights of its teacher, and keeps the teacher's mean "
            f"{', '.join(f'{number:.4g}' for number in conversion.own.mean)} and std "
            f"{', '.join(f'{number:.4g}' for number in conversion.own.std)}, and its order of classes"
        )
    decided(lambda: write(target, checkpoint))
    decided(lambda: write_text(run.directory / MADE, dumps(made_of(checkpoint), indent=1) + "\n"))
    checkpoint.path = target
    return checkpoint


def made_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what tells the checkpoint of a run from others, as plain data."""
    return {"weights": fingerprint(checkpoint.module.state_dict())}


def finished_untrained(
    target: Path, entry: HistoryEntry, module: nn.Module | None = None, *, force: bool
) -> Checkpoint | None:
    """Return the checkpoint at ``target`` if the same command made it, without a run; None if it is to be made.

    ``module`` is a network whose weights it has to have, where the command alone does not tell them. With ``force``
    another file is to be replaced.

    Raises:
        UsageError: another command made it.
        Error: it is damaged.
    """
    if not target.exists():
        return None
    try:
        made = read(target)
    except Error:
        if force:
            return None
        raise
    recorded = made.history[-1] if made.history else {"inputs": [], "data": {}}
    before, now = (_identity(about, UNTRAINED) for about in (recorded, entry.as_data()))
    if module is not None:
        before["weights"], now["weights"] = (fingerprint(other.state_dict()) for other in (made.module, module))
    before, now = (json.loads(dumps(identity, default=str)) for identity in (before, now))
    if different := changed(moved(before, now), now):
        if force:
            return None
        raise UsageError(
            f"{target}: exists already, and --resume needs the same command: {different}; choose another name with "
            "-o, or overwrite it with --force"
        )
    say(FINISHED.format(target))
    return made


def finish_untrained(checkpoint: Checkpoint, target: Path, entry: HistoryEntry, *, dry_run: bool = False) -> Checkpoint:
    """Write a checkpoint that no run made, with ``entry`` at the end of its history, and return it."""
    entry.record(size=measure(checkpoint.network))
    checkpoint.history = [*checkpoint.history, entry.as_data()]
    if dry_run:
        say(f"makes {target.name} without training")
    else:
        write(target, checkpoint)
    return checkpoint
