"""The run of a command that several processes work on: the first one has its directory, all have the same data."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdtool.data.fingerprint import changes, checked, moved
from kdtool.errors import Error, UsageError
from kdtool.training.foresight.trial import Trial
from kdtool.training.options import Training
from kdtool.training.run_directory import RunDirectory, directory_of, run_directory
from kdtool.training.sharing.shares import check_shares
from kdtool.utils.files import temporary_folder
from kdtool.utils.processes import collected, count, decided, leads_node, node, nodes, together
from kdtool.utils.strict_json import dumps

# What computes: other versions give other numbers.
VERSIONS = ("kdtool", "torch", "torchvision", "timm")


@contextlib.contextmanager
def shared_directory(
    target: Path, identity: Mapping[str, Any], training: Training, *, force: bool, resume: bool
) -> Iterator[RunDirectory]:
    """Open the run's directory, in the first process alone; the others get one of their own, which is then removed.

    Raises:
        UsageError: the directory cannot be used, or the processes cannot share a batch.
        Error: another process works there, or the processes differ in what they compute with.
    """
    with together(training.device), contextlib.ExitStack() as stack:
        check_alike(identity)
        check_step(training)
        opened = []

        def open_directory() -> bool:
            opened.append(stack.enter_context(run_directory(target, identity, force=force, resume=resume)))
            return opened[0].finished

        finished = decided(open_directory)
        if opened:
            yield opened[0]
            return
        if leads_node() and node() > 0:
            stack.callback(shutil.rmtree, cache_of(target), ignore_errors=True)
        scratch = stack.enter_context(temporary_folder("kdtool-process"))
        yield RunDirectory(scratch, dict(identity), finished)


def check_step(training: Training) -> None:
    """Check that the processes can share a step; in a trial of their number another one is taken if they cannot.

    Raises:
        UsageError: they cannot.
        TrialEnded: this is a trial.
    """
    try:
        if training.batch_size.auto and count() > 1:
            raise UsageError(
                "--batch-size auto: works in one process, since the others would wait for the one that is out of "
                "memory; give a number, and --accumulate"
            )
        check_shares(training.batch_size, training.accumulate)
    except UsageError as error:
        if (trial := Trial.pending()) is not None:
            trial.give_up(str(error))
        raise


def cache_of(target: Path) -> Path:
    """Return where the processes on this machine keep the outputs of frozen networks."""
    cache = directory_of(target) / "cache"
    return cache / f"node-{node()}" if node() > 0 else cache


def check_alike(identity: Mapping[str, Any]) -> None:
    """Check that all processes run the same command on the same data with the same versions.

    Raises:
        Error: they do not.
    """
    if count() < 2:
        return
    if len(set(collected(nodes()))) > 1:  # it is found from the number of processes here
        raise Error(
            "the machines have unlike numbers of processes; start the processes with torchrun, which numbers the "
            "machines, or equally many on each"
        )
    own = {
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        **json.loads(dumps(identity, default=str)),
    }
    first, *others = collected((platform.node(), own))
    for number, (machine, other) in enumerate(others, start=1):
        found = _differences(moved(first[1], other), other)
        if found:
            raise Error(
                f"process {number} ({machine}) differs from process 0 ({first[0]}): {'; '.join(found[:3])}; give all "
                "of them the same versions, files and options"
            )


def _differences(first: Mapping[str, Any], other: Mapping[str, Any], name: str = "") -> list[str]:
    """Return in words in what two nested pieces of plain data differ."""
    found = []
    for key in {**first, **other}:
        before, now, path = first.get(key), other.get(key), f"{name}.{key}".strip(".")
        if before == now:
            continue
        if path == "data.splits":
            found += [f"images of {text}" for text in changes(checked(before or {}), checked(now or {}))]
        elif isinstance(before, Mapping) and isinstance(now, Mapping):
            found += _differences(before, now, path)
        else:
            found.append(f"{path} is {dumps(now)[:60]} instead of {dumps(before)[:60]}")
    return found
