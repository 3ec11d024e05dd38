"""Pipes of real commands over networks of the list and others: ``python -m benchmarks.coverage.pipes``.

Each is ``kdtool teacher NAME … | kdtool refine … | kdtool export --onnx``, three processes that pass on a path.
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
--onnx`, in a folder of its own, which began with nothing. Half of the networks are in [the list](coverage.md), half are
not. Made by `python -m benchmarks.coverage.pipes`; **parity** is how far onnxruntime's outputs are from the network's,
relative to the largest. The networks are not trained: what is shown is that the commands fit together.

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
    """Return the pipes of a file with one ``source:name side options`` a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Pipe(*line.split(maxsplit=2)) for line in lines if line.strip() and not line.startswith("#")]


def run(pipe: Pipe, folder: Path) -> dict[str, Any]:
    """Run a pipe in a folder; return what it printed and how the result compares, or the last line of what failed."""
    kdtool = Path(sys.executable).with_name("kdtool")
    started: list[subprocess.Popen[bytes]] = []
    given = None
    for number, arguments in enumerate(pipe.commands()):
        with open(folder / f"{number}.txt", "wb") as log:
            one = subprocess.Popen([kdtool, *arguments], cwd=folder, stdin=given, stdout=subprocess.PIPE, stderr=log)
        if given is not None:
            given.close()  # so that the command before it is told when this one ends
        started, given = [*started, one], one.stdout
    printed, _ = started[-1].communicate()
    codes = [one.wait() for one in started]
    if any(codes):
        first = next(number for number, code in enumerate(codes) if code)
        said = (folder / f"{first}.txt").read_text(encoding="utf-8").splitlines()
        return {"codes": codes, "reason": said[-1] if said else ""}
    found = json.loads(printed)
    before, after = (
        sum(one.numel() for one in read(folder / name).network.module.parameters())
        for name in ("teacher.pt", found["checkpoint"])
    )
    return {"codes": codes, "compression": before / after, "onnx": found["file_bytes"], "parity": found["parity"]}


@click.command()
@click.option("--pipes", default=PIPES, type=click.Path(path_type=Path, exists=True), help="the networks and options")
@click.option("--output", default=ROOT / "examples/pipes.md", type=click.Path(path_type=Path), help="the table")
def main(pipes: Path, output: Path) -> None:
    """Run every pipe, and write a table of what came out."""
    listed = {entry.spec for entry in read_list(LIST)}
    table = []
    failed = 0
    for pipe in read_pipes(pipes):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = run(pipe, Path(folder))
        say(f"{pipe.spec}: exit codes {found['codes']}, {time.monotonic() - began:.0f} s")
        failed += any(found["codes"])
        table.append(row(pipe, found, pipe.spec in listed))
    titles = ["network", "side", "in the list", "refine", "exit codes", "fewer parameters", "ONNX bytes", "parity"]
    write_text(output, _INTRODUCTION.format(count=len(table)) + as_table(titles, table))
    say(f"see {output}")
    sys.exit(1 if failed else 0)


def row(pipe: Pipe, found: dict[str, Any], is_listed: bool) -> list[str]:
    """Return a row of the table."""
    begins = [pipe.spec, pipe.side, "yes" if is_listed else "no", f"`{pipe.refine}`", str(found["codes"])]
    if "reason" in found:
        return [*begins, found["reason"], "", ""]
    return [*begins, f"{found['compression']:.3g}x", f"{found['onnx']:,}", f"{found['parity']['relative']:.1e}"]


if __name__ == "__main__":
    main()
