"""Find out which edits work on which networks: ``python -m benchmarks.coverage``, in the root of the repository."""

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
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="networks at a time, one core each")
@click.option("--only", metavar="PATTERN", default="", help="only networks whose names have or match this")
@click.option("--fresh", is_flag=True, help="forget what was found before")
@click.option("--again", is_flag=True, help="forget what was found of networks that had something refused or failed")
@click.option("--seconds", default=300.0, show_default=True, help="longest time that one cell may compute")
@click.option("--gigabytes", default=8.0, show_default=True, help="largest memory of one process")
@click.option("--list", "listed", default=LIST, type=click.Path(path_type=Path, exists=True), help="the networks")
@click.option("--work", default=ROOT / "build/coverage", type=click.Path(path_type=Path), help="single results")
@click.option("--output", default=ROOT / "examples", type=click.Path(path_type=Path), help="where the table goes")
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
    """Try every edit on every network of the list, and what its results are good for, and write a table of it.

    What is done is not redone: stop it and start it again as you like. The table is written when all of the list is
    done, and one of what there is beside the single results.
    """
    work.mkdir(parents=True, exist_ok=True)
    about, entries = about_here(), read_list(listed)
    try:
        with filelock.FileLock(work / "lock", timeout=0):
            results = [open_result(entry, work, about) for entry in entries]
            chosen = [result for result in results if _matches(result.entry, only)]
            for result in chosen:
                if fresh or (again and _has_trouble(result)):
                    result.reinitialize()
            survey(chosen, jobs, workers.Limits(seconds, gigabytes))
            finished = [result for result in results if result.next_task() is None]
            whole = len(finished) == len(results)
            write(finished, output if whole else work)
    except filelock.Timeout:
        raise click.ClickException(f"{work}: another survey works there; wait for it, or name another --work") from None
    except (KeyboardInterrupt, Error) as error:
        say(str(error) or "stopped; start it again to go on")
        # Without waiting for the workers, which see this process end and end too.
        os._exit(error.exit_code if isinstance(error, Error) else 130)
    old = sum(result.about["sources"] != about["sources"] for result in finished)
    if old:
        say(f"{old} of {len(finished)} were found with other sources of kdtool; --fresh finds them anew")


def _matches(entry: Entry, pattern: str) -> bool:
    return pattern in entry.spec or fnmatchcase(entry.spec, pattern)


def _has_trouble(result: Result) -> bool:
    return any(found["status"] in ("refused", "failed") for found in result.cells.values())


def survey(results: Sequence[Result], jobs: int, limits: workers.Limits) -> None:
    """Do what is left to do, telling how far it is on stderr."""
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
    """Do what is left to do of one network."""
    result.folder.mkdir(exist_ok=True)
    while (task := result.next_task()) is not None:
        workers.work(task[0], result.entry, result.folder, task[1], limits, result.keep)
    result.clear()


def line(result: Result) -> str:
    """Return in one line how it went."""
    seconds = sum(found.get("seconds", 0) for found in result.cells.values())
    bad = [f"{cell} {found['status']}" for cell, found in result.cells.items() if found["status"] not in ("ok", "none")]
    return f"{result.entry.spec:42} {seconds:4.0f} s  {', '.join(bad) or 'ok'}"


def write(results: Sequence[Result], folder: Path) -> None:
    """Write the page and the data, and the totals on stdout."""
    if results:
        write_text(folder / "coverage.md", table.as_page(results))
        write_text(folder / "coverage.json", table.as_data(results))
        click.echo(table.summary(results))
        say(f"see {folder / 'coverage.md'}")


if __name__ == "__main__":
    main()
