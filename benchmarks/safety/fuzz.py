"""Give every reader files that were changed: ``python -m benchmarks.safety.fuzz --examples 20000 --seed 0``.

A reader keeps its promise if it reads the file or refuses it in one line, in less than 5 seconds of CPU and 1 GB, and
starts nothing, runs nothing and writes nothing.
"""

from __future__ import annotations

import argparse
import collections
import math
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ.setdefault("MPLCONFIGDIR", tempfile.mkdtemp(prefix="kdtool-fuzz-"))

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.safety.attempts import Outcome, attempts
from benchmarks.safety.rows import Rows
from benchmarks.safety.soak import remember_digits
from benchmarks.safety.target import Target
from benchmarks.safety.targets import targets

KEPT = Path("build") / "fuzz"
"""Where the files are kept with which a promise was broken."""

AT_ONCE = 40
"""Files that one process reads."""


@dataclass
class Tally:
    """The outcomes of a target."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    bad: list[tuple[Outcome, bytes]] = field(default_factory=list)
    cpu: float = 0.0
    memory: int = 0

    def add(self, outcome: Outcome, content: bytes) -> None:
        """Count an outcome."""
        self.counts[outcome.kind] += 1
        self.cpu, self.memory = max(self.cpu, outcome.cpu), max(self.memory, outcome.memory)
        if not outcome.good:
            self.bad.append((outcome, content))


def fuzz(target: Target, examples: int, start: int) -> Tally:
    """Attack one target."""
    tally, pending = Tally(), []
    folder = Path(tempfile.mkdtemp(prefix="kdtool-fuzz-"))
    place = folder / "x.run"
    place.mkdir()
    for name, content in target.beside.items():
        (place / name).write_bytes(content)
    path = place / target.file
    cache = os.environ.get("KDTOOL_CACHE")
    os.environ["KDTOOL_CACHE"] = str(folder / "cache")

    @seed(start)
    @settings(
        max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(target.content)
    def collect(content: bytes) -> None:
        pending.append(content)
        if len(pending) == AT_ONCE:
            try_them()

    def try_them() -> None:
        for outcome, content in zip(attempts(target.read, path, pending), pending, strict=True):
            tally.add(outcome, content)
        pending.clear()

    try:
        for content in target.whole:
            path.write_bytes(content)
            target.read(path)  # so that no attempt has to import anything
        collect()
        if pending:
            try_them()
    finally:
        os.environ.pop("KDTOOL_CACHE")
        if cache is not None:
            os.environ["KDTOOL_CACHE"] = cache
        shutil.rmtree(folder)
    return tally


def main() -> int:
    """Attack every target, print a table, and return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=20_000, help="how many files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the targets whose name begins with this")
    parser.add_argument(
        "--rows", type=Path, help="a JSON file to which results are added; what is in it is not repeated"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    remember_digits()
    chosen = [target for target in targets() if target.name.startswith(options.only)]
    shares = sum(target.share for target in chosen)
    rows, broken = Rows(options.rows), 0
    print(f"{'target':<32}{'files':>7}{'read':>7}{'refused':>9}{'broken':>8}{'CPU s':>8}{'MB':>7}{'wall s':>8}")
    for number, target in enumerate(chosen):
        key = {"target": target.name, "seed": options.seed}
        if rows.has(key):
            continue
        started = time.monotonic()
        tally = fuzz(target, math.ceil(options.examples * target.share / shares), options.seed + number)
        broken += len(tally.bad)
        total, seconds = sum(tally.counts.values()), time.monotonic() - started
        rows.add(
            key, files=total, read=tally.counts["read"], refused=tally.counts["refused"],
            broken=[outcome.kind for outcome, _ in tally.bad], cpu=round(tally.cpu, 3), megabytes=tally.memory >> 20,
        )  # fmt: skip
        numbers = (tally.counts["read"], tally.counts["refused"], len(tally.bad), tally.cpu, tally.memory >> 20)
        print(
            f"{target.name:<32}{total:>7}{numbers[0]:>7}{numbers[1]:>9}{numbers[2]:>8}{numbers[3]:>8.2f}{numbers[4]:>7}"
            f"{seconds:>8.0f}",
            flush=True,
        )
        for text, cases in _alike(tally).items():
            file = KEPT / f"{target.name.replace(' ', '-').replace(':', '')}-{abs(hash(text)) % 10**6}-{target.file}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(min(cases, key=len))
            print(f"  {len(cases)} times: {text}  ({file})", flush=True)
    print(f"{rows.sum('files')} files, {rows.sum('broken')} broken promises")
    return int(broken > 0)


def _alike(tally: Tally) -> dict[str, list[bytes]]:
    """Return the contents with which a promise was broken, by the kind and the beginning of the message."""
    found: dict[str, list[bytes]] = {}
    for outcome, content in tally.bad:
        found.setdefault(f"{outcome.kind}: {outcome.text[:150]}", []).append(content)
    return found


if __name__ == "__main__":
    sys.exit(main())
