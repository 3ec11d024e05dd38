"""Pipes of real commands with networks of the list and others: ``python -m benchmarks.coverage.pipes``.

A pipe is ``kdtool teacher NAME … | kdtool refine … | kdtool export --onnx``: three processes that pass on a path.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.coverage.networks import LIST, read_list
from benchmarks.coverage.results import ROOT
from benchmarks.coverage.table import as_table
from kdtool.models.checkpoint import read
from kdtool.utils.files import write_text
from kdtool.utils.progress import say

TEACHER = "--classes 10"
EXPORT = "--onnx --json --no-latency"
PIPES = Path(__file__).with_name("pipes.txt")

_INTRODUCTION = f"""\
# Pipes of commands over {{count}} networks

Each row is one line of a shell, `kdtool teacher NAME {TEACHER} --image-size SIDE | kdtool refine HOW | kdtool export
--onnx`, which runs in an empty folder of its own. Half of the networks are in [the list](coverage.md), half are not.
Made by `python -m benchmarks.coverage.pipes`. **parity** is the largest difference between the outputs of onnxruntime
and those of the network, relative to the largest output. The networks are not trained: the table shows that the
commands work together.

"""


@dataclass(frozen=True)
class Pipe:
    """A network, the side of its images in pixels, and the options of refine."""

    spec: str
    side: str
    refine: str

    def commands(self) -> list[list[str]]:
        """Return the arguments of the three commands."""
        teacher = ["teacher", self.spec, *TEACHER.split(), "--image-size", self.side, "-o", "teacher.pt"]
        return [teacher, ["refine", *self.refine.split()], ["export", *EXPORT.split()]]


def read_pipes(path: Path) -> list[Pipe]:
    """Return the pipes of a file with a ``source:name side options`` on each line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Pipe(*line.split(maxsplit=2)) for line in lines if line.strip() and not line.startswith("#")]


def run(pipe: Pipe, folder: Path) -> dict[str, Any]:
    """Run a pipe in a folder; return the numbers of the result, or the last message of the first failed command."""
    kdtool = Path(sys.executable).with_name("kdtool")
    started: list[subprocess.Popen[bytes]] = []
    stdin = None
    for number, arguments in enumerate(pipe.commands()):
        with open(folder / f"{number}.txt", "wb") as log:
            process = subprocess.Popen(
                [kdtool, *arguments], cwd=folder, stdin=stdin, stdout=subprocess.PIPE, stderr=log
            )
        if stdin is not None:
            stdin.close()  # so that the command before it gets SIGPIPE when this one ends
        started, stdin = [*started, process], process.stdout
    printed, _ = started[-1].communicate()
    codes = [process.wait() for process in started]
    if any(codes):
        first = next(number for number, code in enumerate(codes) if code)
        messages = (folder / f"{first}.txt").read_text(encoding="utf-8").splitlines()
        return {"codes": codes, "reason": messages[-1] if messages else ""}
    exported = json.loads(printed)
    before, after = (
        sum(parameter.numel() for parameter in read(folder / name).network.module.parameters())
        for name in ("teacher.pt", exported["checkpoint"])
    )
    numbers = {"compression": before / after, "onnx": exported["file_bytes"], "parity": exported["parity"]}
    return {"codes": codes, **numbers}


@click.command()
@click.option(
    "--pipes", default=PIPES, type=click.Path(path_type=Path, exists=True), help="file with the networks and options"
)
@click.option(
    "--output", default=ROOT / "examples/pipes.md", type=click.Path(path_type=Path), help="file for the table"
)
def main(pipes: Path, output: Path) -> None:
    """Run every pipe and write a table of the results."""
    listed = {entry.spec for entry in read_list(LIST)}
    table = []
    failed = 0
    for pipe in read_pipes(pipes):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            result = run(pipe, Path(folder))
        say(f"{pipe.spec}: exit codes {result['codes']}, {time.monotonic() - began:.0f} s")
        failed += any(result["codes"])
        table.append(row(pipe, result, pipe.spec in listed))
    titles = ["network", "side", "in the list", "refine", "exit codes", "fewer parameters", "ONNX bytes", "parity"]
    write_text(output, _INTRODUCTION.format(count=len(table)) + as_table(titles, table))
    say(f"see {output}")
    sys.exit(1 if failed else 0)


def row(pipe: Pipe, result: dict[str, Any], is_listed: bool) -> list[str]:
    """Return the row of a pipe in the table."""
    cells = [pipe.spec, pipe.side, "yes" if is_listed else "no", f"`{pipe.refine}`", str(result["codes"])]
    if "reason" in result:
        return [*cells, result["reason"], "", ""]
    parity = f"{result['parity']['relative']:.1e}"
    return [*cells, f"{result['compression']:.3g}x", f"{result['onnx']:,}", parity]


if __name__ == "__main__":
    main()
