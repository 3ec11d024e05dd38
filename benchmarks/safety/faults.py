"""Run commands on a system that fails: ``python -m benchmarks.safety.faults``.

A command keeps its promise if it ends with code 0 and its result, or with one line and another code; what it wrote is
whole or not there, and no temporary file is left.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLCONFIGDIR", tempfile.mkdtemp(prefix="kdtool-faults-"))

import torch

from benchmarks.safety.children import (
    BROKEN,
    FORBIDDEN,
    NO_SPACE,
    READ_ONLY,
    Ended,
    Prepare,
    broken_pipe,
    descriptors,
    fail_at,
    import_all,
    limited,
    nothing,
    run,
    stream,
    without,
)
from benchmarks.safety.rows import Rows

TRAIN = ["--epochs", "2", "--subset", "0.2", "--device", "cpu"]


@dataclass(frozen=True)
class Command:
    """A command, the file that it writes (none: it prints a result), and whether it reads the teacher."""

    name: str
    words: tuple[str, ...]
    output: str = ""


COMMANDS = [
    Command("teacher", ("teacher", "kdtool:lenet-300-100", "--data", "digits", *TRAIN, "-o", "o.pt"), "o.pt"),
    Command("refine", ("refine", "t.pt", "--method", "halve", "-o", "o.pt"), "o.pt"),
    Command("distill", ("distill", "t.pt", "--refiner", "halve", *TRAIN, "-o", "o.pt"), "o.pt"),
    Command("prune", ("prune", "t.pt", "--ratio", "0.5", *TRAIN, "-o", "o.pt"), "o.pt"),
    Command("inspect", ("inspect", "t.pt", "--json")),
    Command("evaluate", ("evaluate", "t.pt", "--json")),
    Command("report", ("report", "t.pt", "-o", "o.html"), "o.html"),
]

# For each command: what fails at some of its operations on files, and what the process lacks.
CODES = {"no space": NO_SPACE, "read-only": READ_ONLY, "input/output error": BROKEN, "forbidden": FORBIDDEN}

LACKS: dict[str, Prepare] = {
    "stdout full": stream(1, "/dev/full"),
    "stdout closed": stream(1, None),
    "stdout without a reader": broken_pipe,
    "stderr full": stream(2, "/dev/full"),
    "stderr closed": stream(2, None),
    "files of at most 1,000 bytes": limited(resource.RLIMIT_FSIZE, 1000),
    "files of at most 400 bytes": limited(resource.RLIMIT_FSIZE, 400),
    "16 MB of memory": limited(resource.RLIMIT_AS, 16 << 20, more=True),
    "2 descriptors": descriptors(2),
    "no descriptor": descriptors(0),
    "no home": without("HOME", "XDG_CACHE_HOME", "KDTOOL_CACHE", "USER", "LOGNAME"),
}


def wrong(command: Command, ended: Ended, place: Path, kept: set[str]) -> str:
    """Return what was not as promised, or an empty text."""
    from kdtool import Error
    from kdtool.models.checkpoint import read

    output = place / command.output
    if command.output.endswith(".pt") and output.exists():
        try:
            read(output)
        except Error as error:
            return f"its output cannot be read: {error}"
    left = {path.name for path in place.rglob("*") if path.name.endswith(".tmp") and path.name not in kept}
    if left:
        return f"leaves {', '.join(sorted(left))}"
    if "Traceback" in ended.err or "unexpected" in ended.err:
        return f"says {ended.err.strip().splitlines()[-1]!r:.300}"
    if ended.code < 0:
        return f"is killed by signal {-ended.code}"
    if ended.code == 0:
        there = output.exists() if command.output else ended.out.strip()
        return "" if there else "ends with 0 without its result"
    said = [line for line in ended.err.splitlines() if line.startswith("Error: ")]
    return "" if len(said) == 1 else f"ends with {ended.code} and says {ended.err!r:.300}"


def faults(command: Command, teacher: Path, per_code: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return each fault of a command with what was wrong; the seed chooses the operations that fail."""
    results = []

    def attempt(name: str, prepare: Prepare, quiet: tuple[str, ...] = ()) -> Ended:
        place = Path(tempfile.mkdtemp(prefix="kdtool-faults-"))
        shutil.copy(teacher, place / "t.pt")
        ended = run(command.words, place, prepare)
        problem = wrong(command, ended, place, set())
        if any(word in name for word in quiet) and problem.startswith("ends with") and "without" not in problem:
            problem = ""  # nobody can read the line
        results.append((f"{command.name}: {name}", problem))
        shutil.rmtree(place)
        return ended

    whole = attempt("nothing fails", nothing)
    import_all(whole.modules)  # a process that lacks something would fail where it imports
    operations = whole.operations
    for name, code in CODES.items():
        step = max(1, operations // per_code)
        for number in range(1 + seed % step, operations + 1, step):
            attempt(f"{name} at operation {number} of {operations}", fail_at(number, code))
        if operations:
            attempt(f"{name} at every operation", fail_at(-1, code))
    for name, prepare in LACKS.items():
        attempt(name, prepare, quiet=("stderr", "reader"))
    return results


def main() -> int:
    """Try every fault, print what was wrong and a table, and return 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--per-code", type=int, default=4, help="at how many operations of a command each error is tried"
    )
    parser.add_argument("--seed", type=int, default=0, help="which operations fail")
    parser.add_argument("--only", default="", help="the command")
    parser.add_argument(
        "--rows", type=Path, help="a JSON file to which results are added; what is in it is not repeated"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    import kdtool

    rows, broken = Rows(options.rows), 0
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "t.pt"
        kdtool.teacher("kdtool:lenet-300-100", data="digits", epochs=1, subset=0.2, device="cpu", output=teacher)
        kdtool.report(teacher, output=Path(folder) / "r.html")  # imports what reports need
        for command in COMMANDS:
            key = {"command": command.name, "seed": options.seed}
            if not command.name.startswith(options.only) or rows.has(key):
                continue
            found = faults(command, teacher, options.per_code, options.seed)
            bad = [f"{name}: {problem}" for name, problem in found if problem]
            broken += len(bad)
            rows.add(key, faults=len(found), broken=bad)
            print(f"{command.name:<10}{len(found):>5} faults{len(bad):>5} broken promises", flush=True)
            for problem in bad:
                print(f"  {problem}", flush=True)
    print(f"{rows.sum('faults')} faults, {rows.sum('broken')} broken promises")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
