"""Run a study: each command of a recipe in a process of its own, unless its checkpoint is up to date."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from kdtool.errors import Error, UsageError
from kdtool.study.recipe import ONNX, Command, Recipe, read_recipe
from kdtool.study.record import Record, opened
from kdtool.study.results import comparisons, means, numbers_of, row_of
from kdtool.utils.files import write_text
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

KDTOOL = (sys.executable, "-m", "kdtool")

DONE, FAILED, NOT_RUN = "done", "failed", "not run"


def run_study(
    recipe: str | Path | Recipe, *, output: str | Path | None = None, jobs: int = 1, force: bool = False
) -> dict[str, Any]:
    """Run the commands of a recipe, ``jobs`` of them in parallel, and return the results, as plain data.

    A command is not run again if its checkpoint was made by the same words from the same inputs, unless ``force`` is
    given. An interrupted command is resumed. If a command fails, only the commands that use its checkpoint are left
    out.

    Returns:
        ``study`` (its name), ``directory``, ``rows`` (one for each checkpoint: ``step``, ``values`` of the matrix,
        ``accuracy`` and ``error`` on the test split, ``val_accuracy``, ``parameters``, ``nonzero``, ``macs``,
        ``compression``, ``seconds``, ``checkpoint``; of a strategy that makes several models also ``models``, a row for
        each, such as ``ikd``'s M0 ... M4; of an export also ``file_bytes``, ``gzip_bytes``, ``latency_ms`` and
        ``latency_ratio``, and the accuracy of the file), ``means`` over seeds (the same numbers, ``seeds``, the number
        of seeds, and for each number the ends of its 95 % interval, such as ``error_low`` and ``error_high``),
        ``comparisons`` of pairs (the steps ``a`` and ``b``, ``values``, ``classified_differently``, ``agreement``,
        ``l2``, ``l2_sum``, ``mcnemar_p``), ``comparison_means``, ``failed`` (``name``, ``error`` and ``log``) and
        ``not_run`` (names). The same data are written to ``results.json`` in the directory.

    Raises:
        UsageError: the recipe is wrong, or its directory holds something else.
        Error: another process runs the study.
    """
    if jobs < 1:
        raise UsageError(f"--jobs: {jobs} is out of range: at least 1")
    planned = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, output)
    with opened(planned.directory, force=force) as record:
        study = _Study(planned, record, jobs)
        study.run()
        rows = [row_of(command, record) for command in planned.commands if study.status[command.name] == DONE]
        pairs, not_compared = comparisons(planned, record, {row["name"] for row in rows})
        result = {
            "study": planned.name,
            "directory": str(planned.directory),
            "rows": rows,
            "means": means(rows),
            "comparisons": pairs,
            "comparison_means": means(pairs),
            "failed": [*study.failures(), *not_compared],
            "not_run": [command.name for command in planned.commands if study.status[command.name] == NOT_RUN],
        }
        write_text(planned.directory / "results.json", dumps(result, indent=1) + "\n")
        return result


@dataclass
class _Exit:
    """The exit code of a process and how long it ran."""

    code: int
    seconds: float


@dataclass
class _Study:
    """The state of a study while its commands run."""

    recipe: Recipe
    record: Record
    jobs: int
    status: dict[str, str] = field(default_factory=dict)
    """The outcome of each command that is settled: done, failed or not run."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stopped: bool = False

    def run(self) -> None:
        """Run all commands that need to be run; an interruption ends their processes too."""
        running: dict[Future[_Exit], Command] = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while True:
                    for command in self._ready([command.name for command in running.values()]):
                        running[pool.submit(self._process, command, self.record.begin(command))] = command
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._end(running.pop(future), future.result())
            except BaseException:
                self.stopped = True
                for process in self.processes:
                    if process.poll() is None:
                        process.terminate()
                raise

    def _ready(self, running: list[str]) -> list[Command]:
        """Return the commands that can begin now, and set the status of those that need not or cannot run."""
        ready = []
        for command in self.recipe.commands:
            if command.name in self.status or command.name in running:
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

    def _process(self, command: Command, resume: bool) -> _Exit:
        """Run one command to its end; its stderr is written to its log."""
        if self.stopped:
            return _Exit(-1, 0.0)
        directory = self.recipe.directory
        target = self.record.file(command)
        words = [*KDTOOL, *command.words(directory), "-o", str(target)]
        exports = command.suffix == ONNX
        # What an export measures goes beside its file.
        printed = target.with_suffix(".json") if exports else Path(os.devnull)
        environment = dict(os.environ)
        if self.jobs > 1:
            # Parallel processes share the cores evenly.
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
        say(f"{command.name}: {'resumes' if resume else 'begins'}")
        started = time.monotonic()
        with open(self.log(command), "wb") as log, open(printed, "wb") as output:
            process = subprocess.Popen(
                [*words, *(["--json"] if exports else []), *(["--resume"] if resume else [])],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=environment,
            )
            self.processes.append(process)
            if self.stopped:
                process.terminate()
            code = process.wait()
        return _Exit(code, time.monotonic() - started)

    def _end(self, command: Command, ended: _Exit) -> None:
        """Record the outcome of a command, and report it with the progress of the study."""
        error = (_last_line(self.log(command)) or f"ended with exit code {ended.code}") if ended.code else None
        row: dict[str, Any] = {}
        data: dict[str, Any] | None = None
        if error is None:
            try:
                row, data = numbers_of(self.record.file(command))
            except Error as problem:
                error = str(problem)
        status = DONE if error is None else FAILED
        self.status[command.name] = status
        result = {"row": row, "data": data} if error is None else {"error": error}
        self.record.end(command, status=status, seconds=round(ended.seconds, 1), **result)
        outcome = _duration(ended.seconds) if error is None else f"failed: {error}"
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
        return f"; about {_duration(seconds / min(self.jobs, len(rest)))} left"

    def log(self, command: Command) -> Path:
        """Return the path of the file with the command's stderr."""
        return self.recipe.directory / f"{command.name}.log"

    def failures(self) -> list[dict[str, Any]]:
        """Return a row for each failed command: its name, the error and the path of its log."""
        return [
            {
                "name": command.name,
                "error": self.record.commands[command.name]["error"],
                "log": str(self.log(command)),
            }
            for command in self.recipe.commands
            if self.status[command.name] == FAILED
        ]


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ") if lines else ""


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
