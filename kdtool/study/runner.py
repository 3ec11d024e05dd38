"""Run a study: each command of a recipe in a process of its own, unless its checkpoint is up to date."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from kdtool.errors import Error, UsageError
from kdtool.plugins.options import OptionInfo
from kdtool.plugins.places import split
from kdtool.study.alike import notes
from kdtool.study.comparisons import comparisons, recorded
from kdtool.study.on_ray import OnRay
from kdtool.study.places import Exit, Local, Place
from kdtool.study.recipe import Command, Recipe, in_step, option_value, read_recipe
from kdtool.study.record import Record, opened
from kdtool.study.results import means, numbers_of, row_of
from kdtool.study.start import refusal
from kdtool.training.side_by_side.placement import Placement
from kdtool.utils.files import write_text
from kdtool.utils.progress import say
from kdtool.utils.ray_cluster import Cluster, connected
from kdtool.utils.strict_json import dumps

DONE, FAILED, NOT_RUN = "done", "failed", "not run"

SHARE = 50
"""While a study runs, its results are written again after so many times the time that it takes to write them."""


def run_study(
    recipe: str | Path | Recipe,
    *,
    output: str | Path | None = None,
    jobs: int = 1,
    force: bool = False,
    **placement: Any,
) -> dict[str, Any]:
    """Run the commands of a recipe, ``jobs`` of them in parallel, and return the results, as plain data.

    ``placement`` are options of `Placement`: with ``ray="auto"`` the commands run as tasks of a Ray cluster, which
    decides how many run at a time.

    A command is not run again if its checkpoint was made by the same words from the same inputs, unless ``force`` is
    given. An interrupted command is resumed. If a command fails, only the commands that use its checkpoint are left
    out.

    Returns:
        ``study`` (its name), ``directory``, ``rows`` (one for each checkpoint: ``name`` of its command, ``step``,
        ``values`` of the matrix, ``accuracy`` and ``error`` on the test split, ``val_accuracy``, ``parameters``,
        ``nonzero``, ``macs``, ``compression``, ``seconds`` of the whole command, ``checkpoint``; of a training also
        ``epochs`` (trained in all phases together; not those of trials), ``trial_epochs`` (of ``--search`` and of
        ``compress``, if there were any), ``recipe`` (its name or ``none``), ``optimizer``, ``batch_size``, ``chosen``
        (the setting that ``--search`` chose) and ``cpu_seconds`` of its processes; of a strategy that makes several
        models also ``models``, a row for each, such as ``ikd``'s M0 ... M4; of an export also ``file_bytes``,
        ``gzip_bytes``, ``latency_ms`` and ``latency_ratio``, and the accuracy of the file), ``means`` over seeds (the
        same numbers, ``seeds``, the number of seeds, and for each number the ends of its 95 % interval, such as
        ``error_low`` and ``error_high``), ``comparisons`` of pairs (the steps ``a`` and ``b``, or with ``along`` the
        ``step`` and the values ``a`` and ``b``, such as ``method=kd``; ``values``, ``accuracy_difference`` (of ``b``
        minus ``a`` on the test split), ``classified_differently``, ``agreement``, ``l2``, ``l2_sum``, ``mcnemar_p``),
        ``comparison_means``, ``failed`` (``name``, ``error`` and ``log``), ``not_run`` (names) and ``notes`` (texts:
        what was not trained alike). The same data are written to ``results.json`` in the directory.

    Raises:
        UsageError: the recipe is wrong, or its directory holds something else.
        Error: another process runs the study, or the cluster does not answer.
    """
    jobs = OptionInfo("jobs", int, 1, "", minimum=1).check(jobs)
    (placement,) = split(placement, Placement)
    places = Placement(**placement)
    planned = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, output)
    if jobs > 1 or places.ray is not None:
        _check_shares(planned, "--ray" if places.ray is not None else f"--jobs {jobs}")
    connection: contextlib.AbstractContextManager[Cluster | None] = contextlib.nullcontext()
    if places.ray is not None:
        if jobs > 1:
            raise UsageError("--jobs and --ray exclude each other; Ray runs as many steps as the cluster has room for")
        _check_nothing_waits_for_itself(planned)
        connection = connected(places.ray, places.resources)
    # A cluster may not answer, so it is asked before anything is written.
    with connection as cluster, opened(planned.directory, force=force) as record:
        with _stopping(Local(record, jobs) if cluster is None else OnRay(record, cluster)) as place:
            study = _Study(planned, record, place)
            study.run()
        pairs, not_compared = comparisons(planned, record, study.done())
        result = study.write_results(pairs, not_compared)
    for note in result["notes"]:
        say(note)
    return result


def _check_nothing_waits_for_itself(recipe: Recipe) -> None:
    """Check that no command would hand out tasks, and wait for room that it takes itself.

    Raises:
        UsageError: a command has an option ``--ray`` of its own.
    """
    for command in recipe.commands:
        if any(word.partition("=")[0] == "--ray" for word in command.template):
            raise in_step(recipe, command, UsageError("the study itself runs with --ray; leave it out of the step"))


def _check_shares(recipe: Recipe, asked: str) -> None:
    """Check that no command tries how many processes have room on the machine, which it shares with others.

    Raises:
        UsageError: a command has ``--processes auto``; ``asked`` is the option because of which others run beside it.
    """
    for command in recipe.commands:
        if option_value(command.words(recipe.directory), "--processes") == "auto":
            problem = f"--processes auto takes the whole machine, which other steps share ({asked}); give a number"
            raise in_step(recipe, command, UsageError(problem))


@contextlib.contextmanager
def _stopping(place: Place) -> Iterator[Place]:
    """Yield a place; an error or an interruption ends what runs there."""
    try:
        yield place
    finally:
        place.stop()


@dataclass
class _Study:
    """The state of a study while its commands run."""

    recipe: Recipe
    record: Record
    place: Place
    status: dict[str, str] = field(default_factory=dict)
    """The outcome of each command that is settled: done, failed or not run."""
    errors: dict[str, str] = field(default_factory=dict)
    """Why each command failed."""
    _next: float = 0.0
    """The time from which on the results may be written again."""

    def run(self) -> None:
        """Run all commands that need to be run."""
        try:
            self._run()
        finally:  # also if it was interrupted
            with contextlib.suppress(Error):
                self._write_results_so_far(now=True)

    def _run(self) -> None:
        running: dict[Future[Any], Command] = {}
        waiting: deque[Command] = deque()
        while True:
            waiting += self._ready({command.name for command in (*running.values(), *waiting)})
            # Before older results are removed, those of another recipe among them.
            self._write_results_so_far()
            # One that waits has not begun: what an older command left at its place stays until then.
            while waiting and self.place.has_room(len(running)):
                command = waiting.popleft()
                running[self.place.submit(command)] = command
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                command = running.pop(future)
                self._end(command, self.place.ended(command, future))

    def _ready(self, begun: set[str]) -> list[Command]:
        """Return the commands that can begin now, and set the status of those that need not or cannot run.

        ``begun`` are the names of those that were returned before.
        """
        ready = []
        for command in self.recipe.commands:
            if command.name in self.status or command.name in begun:
                continue
            # A command comes after those whose checkpoints it reads, so one pass is enough.
            inputs = {self.status.get(name) for name in command.inputs.values()}
            if inputs & {FAILED, NOT_RUN}:
                self.status[command.name] = NOT_RUN
            elif inputs <= {DONE}:
                if self.record.is_done(command):
                    self.status[command.name] = DONE
                else:
                    ready.append(command)
        return ready

    def _end(self, command: Command, ended: Exit) -> None:
        """Record the outcome of a command, and report it with the progress of the study."""
        error = (ended.error or f"ended with exit code {ended.code}") if ended.code else None
        if error is not None and not ended.began:
            self._settle(command, ended.seconds, error)
            return
        earlier = self.record.earlier(command)
        seconds = (earlier or 0.0) + ended.seconds
        if earlier is not None and refusal(error) is not None:
            # It has no status, so it is ready again; `Record.start` sees the error, and lets it begin anew.
            self.record.end(command, status=FAILED, seconds=round(seconds, 1), error=error)
            return
        result: dict[str, Any] = {"error": error}
        if error is None:
            try:
                row, data = numbers_of(self.record.file(command))
                # The checkpoint also counts attempts that were killed together with their study, or on a cluster.
                seconds = max(seconds, row.pop("seconds", 0.0))
                more = {key: row.pop(key, None) for key in ("training", "content")}
                result = {"row": row, "data": data, **more}
            except Error as problem:
                error = str(problem)
                result = {"error": error}
        status = DONE if error is None else FAILED
        self.record.end(command, status=status, seconds=round(seconds, 1), **result)
        self._settle(command, seconds, error)

    def _settle(self, command: Command, seconds: float, error: str | None) -> None:
        """Set the status of a command that ended, and report it with the progress of the study."""
        self.status[command.name] = DONE if error is None else FAILED
        if error is not None:
            self.errors[command.name] = error
        outcome = _duration(seconds) if error is None else f"failed: {error}"
        say(f"[{len(self.status)}/{len(self.recipe.commands)}] {command.name}: {outcome}{self._time_left()}")

    def _time_left(self) -> str:
        """Return an estimate of the remaining time, from the mean time of each step (of all steps if it has none)."""
        times: dict[str, list[float]] = {}
        for command in self.recipe.commands:
            if self.status.get(command.name) == DONE:
                times.setdefault(command.step, []).append(self.record.commands[command.name]["seconds"])
        rest = [command for command in self.recipe.commands if command.name not in self.status]
        if not rest or not times:
            return ""
        overall = fmean([seconds for step_times in times.values() for seconds in step_times])
        seconds = sum(fmean(times.get(command.step, [overall])) for command in rest)
        return f"; about {_duration(seconds / min(self.place.at_once, len(rest)))} left"

    def failures(self) -> list[dict[str, Any]]:
        """Return a row for each failed command: its name, the error and the path of its log."""
        return [
            {
                "name": command.name,
                "error": self.errors[command.name],
                "log": str(self.record.log(command)),
            }
            for command in self.recipe.commands
            if self.status.get(command.name) == FAILED
        ]

    def done(self) -> set[str]:
        """Return the names of the commands that are done."""
        return {name for name, status in self.status.items() if status == DONE}

    def write_results(self, pairs: list[dict[str, Any]], not_compared: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the results with these comparisons, and return them; what is not settled yet was not run."""
        done = self.done()
        rows = [row_of(command, self.record) for command in self.recipe.commands if command.name in done]
        failed = self.failures()
        settled = done | {row["name"] for row in failed}
        result = {
            "study": self.recipe.name,
            "directory": str(self.recipe.directory),
            "rows": rows,
            "means": means(rows),
            "comparisons": pairs,
            "comparison_means": means(pairs),
            "failed": [*failed, *not_compared],
            "not_run": [command.name for command in self.recipe.commands if command.name not in settled],
            "notes": notes(self.recipe, self.record, done),
        }
        write_text(self.recipe.directory / "results.json", dumps(result, indent=1) + "\n")
        return result

    def _write_results_so_far(self, *, now: bool = False) -> None:
        """Write the results that there are, unless that took a large part of the time lately."""
        began = time.monotonic()
        if now or began >= self._next:
            self.write_results(recorded(self.recipe, self.record, self.done()), [])
            self._next = time.monotonic() + SHARE * (time.monotonic() - began)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
