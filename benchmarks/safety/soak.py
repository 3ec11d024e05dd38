"""Kill commands before operations on files and at random moments: ``python -m benchmarks.safety.soak``.

Each command runs once without a kill. Then it is killed, once or several times, before one of the operations that
change files or after a random time, and goes on with the same words and ``--resume``. The result has to be the same:
every file of it, bit for bit but for the times in it, and no other file may be left. All processes are forks of this
one, which has imported what the commands need.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLCONFIGDIR", tempfile.mkdtemp(prefix="kdtool-soak-"))

import torch

from benchmarks.safety.children import end, import_all, kill_before, nothing, run
from benchmarks.safety.contents import contents, difference
from benchmarks.safety.killed import COMMANDS, Command, make_inputs
from benchmarks.safety.rows import Rows
from benchmarks.safety.sources import sources, write_sources
from benchmarks.safety.studies import forking_studies

BY_TIME = 0.3
"""The part of the kills that come after a random time."""


@dataclass
class Kills:
    """What became of a command that was killed."""

    operations: int = 0
    """Operations that change files, without a kill."""
    before: int = 0
    """Kills before an operation."""
    timed: int = 0
    """Kills after a random time."""
    lost: list[str] = field(default_factory=list)

    @property
    def came(self) -> int:
        """All kills."""
        return self.before + self.timed


def soak(command: Command, inputs: Path, kills: int, seed: int) -> Kills:
    """Kill a command so often, and return what was lost."""
    chance, words = random.Random(f"{command.kind} {command.name} {seed}"), [*command.words]

    def place() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="kdtool-soak-"))
        for name in {word for word in [*words, *" ".join(text for _, text in command.files).split()]}:
            if (inputs / name).is_file():
                shutil.copy(inputs / name, folder)
        for name, text in command.files:
            (folder / name).write_text(text)
        return folder

    for whole in (place(), place()):  # the first one imports, the second one is timed
        started = time.monotonic()
        first = run(words, whole, processes=command.processes)
        seconds = time.monotonic() - started
        if first.code:
            return Kills(lost=[f"fails without a kill: ... {first.err[-500:]!r}"])
        meant = contents(whole)
        shutil.rmtree(whole)
        if not import_all(first.modules):
            break
    result = Kills(first.operations)
    while result.came < kills:
        folder, story, groups = place(), [], []
        for _ in range(chance.choice([1, 2, 3, 4, 6, 8])):
            at, after = chance.randint(1, first.operations), chance.random() * seconds
            alone = command.processes == 1 and chance.random() < 0.5
            by_time = chance.random() < BY_TIME
            ended = run(
                [*words, *command.again], folder, nothing if by_time else kill_before(at, alone=alone),
                after if by_time else None, command.processes,
            )  # fmt: skip
            groups.append(ended.group)
            story.append(f"after {after:.3f} s" if by_time else f"before operation {at}{' alone' * alone}")
            died = ended.code == -9 or (alone and not by_time and ended.operations >= at)
            if not died and ended.code != 0:
                result.lost.append(f"{', '.join(story)}: ends with {ended.code}: {ended.err[-300:]!r}")
            result.timed += died and by_time
            result.before += died and not by_time
            if not died:
                break  # it is finished; a kill of what is left to do comes with the last operations
        ended = run([*words, *command.again], folder, processes=command.processes)
        problem = f"ends with {ended.code}: {ended.err[-300:]!r}" if ended.code else ""
        if not problem and ended.out != first.out and command.kind != "study":  # its table has the seconds
            problem = f"prints {ended.out[:200]!r}"
        problem = problem or difference(meant, contents(folder))
        for group in groups:
            end(group)
        if problem:
            result.lost.append(f"{', '.join(story)}: {problem}")
        shutil.rmtree(folder)
    return result


def remember_digits() -> None:
    """Let the digits be read once for all processes: it takes as long as a training of them."""
    import sklearn.datasets

    sklearn.datasets.load_digits = functools.cache(sklearn.datasets.load_digits)
    sklearn.datasets.load_digits()


def missing(command: Command, kills: int, earlier: Sequence[dict[str, Any]]) -> int:
    """Return how many of so many kills of a command earlier series lack."""
    return max(0, kills - sum(row["kills"] for row in _of(command, earlier)))


def quick_first(commands: Sequence[Command], earlier: Sequence[dict[str, Any]]) -> list[Command]:
    """Return commands by what a kill of each took in earlier series; those that were not killed come last."""
    return sorted(commands, key=lambda command: _seconds(command, earlier))


def is_chosen(command: Command, only: Sequence[str], skip: Sequence[str]) -> bool:
    """Return whether a command's kind or name begins with one of ``only``, and its kind is none of ``skip``."""
    begins = command.kind.startswith(tuple(only)) or command.name.startswith(tuple(only))
    return begins and command.kind not in skip


def _of(command: Command, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a command."""
    return [row for row in rows if (row["kind"], row["name"]) == (command.kind, command.name)]


def _seconds(command: Command, rows: Sequence[dict[str, Any]]) -> float:
    own = _of(command, rows)
    return sum(row["seconds"] for row in own) / max(1, sum(row["kills"] for row in own)) if own else math.inf


def main() -> int:
    """Kill every command, print a table, and return 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the commands whose kind or name begins with this; several with ;")
    parser.add_argument("--skip", default="", help="the commands of these kinds are not killed, such as teacher,study")
    parser.add_argument(
        "--rows", type=Path, help="a JSON file to which results are added; what is in it is not repeated"
    )
    parser.add_argument(
        "--counted", type=Path, nargs="*", default=[],
        help="JSON files of earlier series: only the kills that they lack are made, those of quick commands first",
    )  # fmt: skip
    options = parser.parse_args()
    torch.set_num_threads(1)
    remember_digits()
    rows, broken = Rows(options.rows), 0
    earlier = [row for path in options.counted for row in Rows(path).rows]
    chosen = [command for command in COMMANDS if is_chosen(command, options.only.split(";"), options.skip.split(","))]
    if earlier:
        chosen = quick_first(chosen, earlier)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        make_inputs(Path(folder))
        write_sources(Path(folder))  # before its folder is on the path
        stack.enter_context(sources(Path(folder)))
        stack.enter_context(forking_studies())
        print(f"{'kind':<12}{'command':<22}{'operations':>11}{'kills':>7}{'by time':>9}{'lost':>6}{'wall s':>8}")
        for command in chosen:
            key = {"kind": command.kind, "name": command.name, "seed": options.seed}
            wanted = missing(command, options.kills, earlier + rows.rows * bool(earlier))
            if rows.has(key) or not wanted:
                continue
            if not command.can_run:
                print(f"{command.kind:<12}{command.name:<22}{command.needs} is not installed: left out", flush=True)
                continue
            started = time.monotonic()
            kills = soak(command, Path(folder), wanted, options.seed)
            broken += len(kills.lost)
            seconds = round(time.monotonic() - started, 1)
            about = {"operations": kills.operations, "kills": kills.came, "by_time": kills.timed, "lost": kills.lost}
            rows.add(key, **about, seconds=seconds)
            print(
                f"{command.kind:<12}{command.name:<22}{kills.operations:>11}{kills.came:>7}{kills.timed:>9}"
                f"{len(kills.lost):>6}{seconds:>8.0f}",
                flush=True,
            )
            for problem in kills.lost[:5]:
                print(f"  {problem}", flush=True)
    print(f"{rows.sum('kills')} kills, {rows.sum('lost')} lost")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
