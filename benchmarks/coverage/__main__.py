"""Survey which edits work on which networks: ``python -m benchmarks.coverage``, in the root of the repository."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from pathlib import Path

import click
import filelock

from benchmarks.coverage import table, workers
from benchmarks.coverage.networks import LIST, Entry, read_list
from benchmarks.coverage.results import ROOT, Result, about_here, open_result
from kdtool import Error
from kdtool.utils.files import write_text
from kdtool.utils.progress import say


@click.command()
@click.option(
    "--jobs", default=2, show_default=True, type=click.IntRange(1), help="networks in parallel, each on one core"
)
@click.option("--only", metavar="PATTERN", default="", help="only networks whose names contain or match this")
@click.option("--fresh", is_flag=True, help="discard all earlier results")
@click.option("--again", is_flag=True, help="discard the results of networks with a refused or failed cell")
@click.option("--seconds", default=300.0, show_default=True, help="CPU seconds that a cell may take")
@click.option("--gigabytes", default=8.0, show_default=True, help="memory that a process may take")
@click.option(
    "--list", "listed", default=LIST, type=click.Path(path_type=Path, exists=True), help="file with the networks"
)
@click.option(
    "--work",
    default=ROOT / "build/coverage",
    type=click.Path(path_type=Path),
    help="directory of the results of single networks",
)
@click.option("--output", default=ROOT / "examples", type=click.Path(path_type=Path), help="directory of the table")
def main(
    jobs: int,
    only: str,
    fresh: bool,
    again: bool,
    seconds: float,
    gigabytes: float,
    listed: Path,
    work: Path,
    output: Path,
) -> None:
    """Try every edit on every network of the list, use the results, and write a table.

    The survey can be stopped and started again: cells that are done are not tried again. The table is written to the
    output when the whole list is done; until then, a table of the finished networks is written to the work directory.
    """
    work.mkdir(parents=True, exist_ok=True)
    about, entries = about_here(), read_list(listed)
    try:
        with filelock.FileLock(work / "lock", timeout=0):
            results = [open_result(entry, work, about) for entry in entries]
            chosen = [result for result in results if _matches(result.entry, only)]
            for result in chosen:
                if fresh or (again and _has_trouble(result)):
                    result.forget()
            survey(chosen, jobs, workers.Limits(seconds, gigabytes))
            finished = [result for result in results if result.next_task() is None]
            complete = len(finished) == len(results)
            write(finished, output if complete else work)
    except filelock.Timeout:
        raise click.ClickException(
            f"{work}: another survey uses this directory; wait for it, or name another with --work"
        ) from None
    except (KeyboardInterrupt, Error) as error:
        say(str(error) or "stopped; start it again to continue")
        # This does not wait for the workers: they end when this process ends.
        os._exit(error.exit_code if isinstance(error, Error) else 130)
    outdated = sum(result.about["sources"] != about["sources"] for result in finished)
    if outdated:
        say(f"{outdated} of {len(finished)} results are from other sources of kdtool; --fresh computes them again")


def _matches(entry: Entry, pattern: str) -> bool:
    return pattern in entry.spec or fnmatchcase(entry.spec, pattern)


def _has_trouble(result: Result) -> bool:
    return any(outcome["status"] in ("refused", "failed") for outcome in result.cells.values())


def survey(results: Sequence[Result], jobs: int, limits: workers.Limits) -> None:
    """Examine the networks that are not done, and report the progress on stderr."""
    left = [result for result in results if result.next_task() is not None]
    say(f"{len(results) - len(left)} of {len(results)} networks are done, {len(left)} are left")
    workers.prepare()
    started = time.monotonic()
    pool = ThreadPoolExecutor(jobs)
    running = {pool.submit(examine, result, limits): result for result in left}
    for count, future in enumerate(as_completed(running), start=1):
        future.result()
        minutes = (time.monotonic() - started) / 60
        rest = minutes / count * (len(left) - count)
        say(f"{count}/{len(left)}  {line(running[future])}  {minutes:.0f} min, about {rest:.0f} left")


def examine(result: Result, limits: workers.Limits) -> None:
    """Try all cells of a network that are not done."""
    result.folder.mkdir(exist_ok=True)
    while (task := result.next_task()) is not None:
        workers.work(task[0], result.entry, result.folder, task[1], limits, result.keep)
    result.clear()


def line(result: Result) -> str:
    """Return the outcomes of a network in one line."""
    seconds = sum(outcome.get("seconds", 0) for outcome in result.cells.values())
    statuses = {cell: outcome["status"] for cell, outcome in result.cells.items()}
    trouble = [f"{cell} {status}" for cell, status in statuses.items() if status not in ("ok", "none")]
    return f"{result.entry.spec:42} {seconds:4.0f} s  {', '.join(trouble) or 'ok'}"


def write(results: Sequence[Result], folder: Path) -> None:
    """Write the page and the data, and print the totals."""
    if results:
        write_text(folder / "coverage.md", table.as_page(results))
        write_text(folder / "coverage.json", table.as_data(results))
        click.echo(table.summary(results))
        say(f"see {folder / 'coverage.md'}")


if __name__ == "__main__":
    main()
