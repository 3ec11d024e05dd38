"""What surrounds the work of every command that makes a checkpoint: its output, its history, its run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdtool.commands import history
from kdtool.data.splits import Data
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, Early, read, write
from kdtool.models.size import measure
from kdtool.plugins.method import Method
from kdtool.training.options import EarlyOptions, Training
from kdtool.training.run import Fit, Run
from kdtool.training.run_directory import directory_of, run_directory
from kdtool.utils.files import beside, check_output, slug


def target_of(output: str | Path | None, default: Path, *, force: bool, resume: bool = False) -> Path:
    """Return where the checkpoint goes: ``output``, else ``default``.

    Raises:
        UsageError: the name is no checkpoint's, or the file is there and is not to be overwritten.
    """
    target = Path(output) if output is not None else default
    if target.suffix != ".pt":
        raise UsageError(f"-o {target}: a checkpoint's name ends in .pt")
    if not (resume and directory_of(target).exists()):
        check_output(target, force=force)
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
) -> dict[str, Any]:
    """Return what the history tells of a command that works on ``parent``; ``given`` is what was typed."""
    settings = {
        "options": options.as_data(),
        "training": training.as_data() if training and data else {},
        "data": data.spec.as_data() if data else {},
    }
    if data is not None and data.unlabelled is not None:
        settings["unlabelled"] = {"data": data.unlabelled, "images": data.train.unlabelled}
    more = [one for role, one in (inputs or {}).items() if role.startswith("teacher")]
    paths = [str(one.path) if one.path else "CHECKPOINT" for one in (parent, *more)]
    return history.entry(
        command, paths, {"method": method, **given}, method=method, settings=settings,
        inputs={"checkpoint": parent, **(inputs or {})}, output=target,
    )  # fmt: skip


@contextlib.contextmanager
def running(
    target: Path,
    entry: dict[str, Any],
    data: Data | None,
    training: Training,
    parent: Checkpoint | None,
    *,
    force: bool,
    resume: bool,
    masked: bool = False,
    teachers: Sequence[Checkpoint] = (),
) -> Iterator[Run | Checkpoint]:
    """Yield the run, or the checkpoint that it made where it is resumed and was finished; ``masked`` says that what it
    works on was pruned by masks."""
    keys = ("command", "method", "options", "keep", "training", "data", "unlabelled", "search")
    told: dict[str, Any] = {key: entry[key] for key in keys if key in entry}
    told["inputs"] = {found["role"]: found["weights"] for found in entry["inputs"]}
    # The same images may lie elsewhere now, on another disk say, or KDTOOL_DATA may name what was not needed before.
    told["data"] = {key: value for key, value in told.get("data", {}).items() if key != "directory"}
    with run_directory(target, told, force=force, resume=resume) as directory:
        if directory.finished and target.exists():
            yield read(target)
            return
        yield Run(
            directory.path, data=data, training=training, parent=parent, entry=entry, teachers=teachers, masked=masked
        )
        if target.exists():
            directory.finish()


def early_weights(keep: EarlyOptions, begun: Network, fit: Fit) -> Early | None:
    """Return the weights that a training was told to keep beside its best.

    Raises:
        UsageError: the training was over before that epoch.
    """
    if keep.keep_init:
        return Early(0, begun.module.state_dict())
    if keep.keep_epoch is None:
        return None
    if not fit.early:
        raise UsageError(f"--keep-epoch {keep.keep_epoch}: --patience ended the training before it; ask for less")
    return Early(keep.keep_epoch, fit.early)


def finish(run: Run, network: Network, target: Path, early: Early | None = None) -> Checkpoint:
    """Write what a run made, with its metrics, and return it."""
    checkpoint = run.checkpoint(network, run.scores(network))
    checkpoint.early = early
    write(target, checkpoint)
    return checkpoint


def finish_untrained(checkpoint: Checkpoint, target: Path, entry: dict[str, Any]) -> Checkpoint:
    """Write what no run made, with one more entry of its history, and return it."""
    entry["size"] = measure(checkpoint.network)
    checkpoint.history = [*checkpoint.history, entry]
    write(target, checkpoint)
    return checkpoint
