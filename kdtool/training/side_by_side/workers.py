"""The trainings of a run as tasks of a Ray cluster."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any, TypeVar

from kdtool.errors import Error, UsageError
from kdtool.plugins.own_code import imported
from kdtool.training.history_entry import Clock
from kdtool.training.side_by_side.placement import Placement
from kdtool.training.side_by_side.task import (
    Answer,
    OneRun,
    Task,
    do,
    files_in,
    gather_log,
    home_of,
    sees,
)
from kdtool.utils.files import slug, write_files
from kdtool.utils.processes import launched
from kdtool.utils.progress import say
from kdtool.utils.ray_cluster import Cluster, connected, why

Result = TypeVar("Result")
Given = TypeVar("Given", bound=OneRun)


class Workers:
    """Workers of a cluster, which do trainings that do not depend on each other."""

    def __init__(self, cluster: Cluster) -> None:
        """Hand tasks to ``cluster``."""
        self.cluster = cluster

    def each(self, run: Given, tasks: Mapping[str, Callable[[Given], Result]]) -> dict[str, Result]:
        """Return what the tasks return, by name (see `Run.each`).

        Raises:
            Error: one of them failed; the others are stopped, and go on when the command is resumed.
        """
        sent: Any = copy.copy(run)
        sent.workers = None  # of one level: a task would wait for room that it takes itself
        sent.entry = dataclasses.replace(run.entry, clock=Clock())
        # A worker has another current folder.
        sent.directory, sent.caches, sent.logs = (path.resolve() for path in (run.directory, run.caches, run.logs))
        token = sent.directory / f".ray-{uuid.uuid4().hex}"
        token.touch()
        try:
            reference = self.cluster.put(sent)
            packages = imported()
            blind = not all(self.cluster.on_each_machine(sees, str(token)))
            futures = {}
            for name, work in tasks.items():
                earlier = [self.cluster.put(_earlier(run, name))] if blind else []
                task = Task(name, [reference, self.cluster.put(work)], str(token), packages, earlier)
                futures[self.cluster.submit(do, task)] = name
            answers: dict[str, Result] = {}
            while futures:
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    name = futures.pop(future)
                    problem = future.exception()
                    if problem is not None:
                        raise Error(f"{name}: {why(problem)}; run the same command with --resume to try it again")
                    answers[name] = self._home(run, name, future.result())
            return {name: answers[name] for name in tasks}
        finally:
            self.cluster.stop()
            token.unlink(missing_ok=True)

    def _home(self, run: OneRun, name: str, answer: Answer) -> Any:
        """Bring home what a task made, and return its result."""
        write_files(run.directory, answer.files)
        gather_log(run.directory, name)
        run.entry.clock.before["cpu_seconds"] += answer.cpu_seconds
        shutil.rmtree(home_of(run.directory, name) / "cache", ignore_errors=True)
        if answer.error is not None:
            raise answer.error
        say(f"{name}: done in {answer.seconds:.0f} s on {answer.where}")
        return answer.result


def _earlier(run: OneRun, name: str) -> dict[str, bytes]:
    """Return what an earlier attempt left, by names in the run's directory."""
    files = files_in(home_of(run.directory, name))
    return {f"phases/{slug(name)}/{path}": content for path, content in files.items()}


@contextlib.contextmanager
def workers_of(placement: Placement) -> Iterator[Workers | None]:
    """Yield the workers that the options name, or None for this process alone.

    Raises:
        UsageError: this process is one of several that a launcher started.
        Error: the cluster does not answer.
    """
    if placement.ray is None:
        yield None
        return
    if launched() > 1:
        raise UsageError("--ray: each task of a cluster is one process; start kdtool without torchrun or a launcher")
    with connected(placement.ray, placement.resources) as cluster:
        yield Workers(cluster)
