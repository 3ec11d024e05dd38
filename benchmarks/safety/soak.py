"""Kill commands before operations on files and at random moments: ``python -m benchmarks.safety.soak``.

Each command runs once without a kill. Then it is killed, once or several times, before one of the operations that
change files or after a random time, and goes on with the same words and ``--resume``. The result has to have the same
weights, bit for bit, and no temporary file may be left.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.safety.children import kill_before, nothing, run

TRAIN = ["--epochs", "3", "--subset", "0.2", "--device", "cpu", "--precision", "fp32"]
LENET = "kdtool:lenet-300-100"

WORDS: dict[str, list[str]] = {
    "teacher": ["teacher", LENET, "--data", "digits"],
    "kd": ["distill", "t.pt", "--refiner", "halve", "--method", "kd"],
    "kd, cached": ["distill", "t.pt", "--refiner", "halve", "--method", "kd", "--cache", "on", "--views", "2"],
    "at": ["distill", "c.pt", "--refiner", "halve", "--method", "at"],
    "ikd": ["distill", "t.pt", "--method", "ikd", "--iters", "2"],
    "mutual": ["distill", "t.pt", "--refiner", "halve", "--method", "mutual"],
    "stagewise": ["distill", "c.pt", "--refiner", "halve", "--method", "stagewise"],
    "magnitude": ["prune", "t.pt", "--method", "magnitude"],
    "filter-l1": ["prune", "c.pt", "--method", "filter-l1"],
}


def soak(name: str, teachers: Path, kills: int, seed: int) -> tuple[int, list[str]]:
    """Kill one command so often, and return how many kills came and what was lost."""
    from kdtool.models.checkpoint import fingerprint, read

    words, chance = [*WORDS[name], *TRAIN, "-o", "o.pt"], random.Random(f"{name} {seed}")

    def place() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="kdtool-soak-"))
        for file in teachers.glob("*.pt"):
            shutil.copy(file, folder)
        return folder

    whole = place()
    started = time.monotonic()
    first = run(words, whole)
    seconds = time.monotonic() - started
    if first.code:
        return 0, [f"fails without a kill: {first.err!r:.300}"]
    meant = fingerprint(read(whole / "o.pt").module.state_dict())
    names = sorted(path.name for path in (whole / "o.run").iterdir())
    shutil.rmtree(whole)
    came, lost = 0, []
    while came < kills:
        folder, story = place(), []
        for _ in range(chance.choice([1, 1, 2, 3])):
            at = chance.randint(1, first.operations)
            by_time = chance.random() < 0.3
            after = chance.random() * seconds if by_time else None
            ended = run([*words, "--resume"], folder, nothing if by_time else kill_before(at), after)
            story.append(f"after {after:.3f} s" if after is not None else f"before operation {at}")
            if ended.code not in (0, -9):
                lost.append(f"{', '.join(story)}: ends with {ended.code}: {ended.err!r:.300}")
            came += ended.code == -9
        ended = run([*words, "--resume"], folder)
        problem = "" if ended.code == 0 else f"ends with {ended.code}: {ended.err!r:.300}"
        if not problem and fingerprint(read(folder / "o.pt").module.state_dict()) != meant:
            problem = "other weights"
        left = [path.name for path in folder.rglob("*") if path.name.endswith(".tmp")]
        if not problem and (left or sorted(path.name for path in (folder / "o.run").iterdir()) != names):
            problem = f"leaves {left or sorted(path.name for path in (folder / 'o.run').iterdir())}"
        if problem:
            lost.append(f"{', '.join(story)}: {problem}")
        shutil.rmtree(folder)
    return came, lost


def make_teachers(folder: Path) -> None:
    """Write the networks that the commands read: ``t.pt`` of linear layers, ``c.pt`` of convolutions."""
    import kdtool

    options: dict[str, Any] = {"data": "digits", "epochs": 1, "subset": 0.2, "device": "cpu"}
    kdtool.teacher(LENET, **options, output=folder / "t.pt")
    kdtool.teacher("kdtool:resnet8x4", **options, output=folder / "c.pt")
    for path in folder.glob("*.run"):
        shutil.rmtree(path)


def main() -> int:
    """Kill every command, print a table, and return 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the commands whose name begins with this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_teachers(Path(folder))
        total = broken = 0
        for name in WORDS:
            if not name.startswith(options.only):
                continue
            came, lost = soak(name, Path(folder), options.kills, options.seed)
            total, broken = total + came, broken + len(lost)
            print(f"{name:<12}{came:>5} kills{len(lost):>5} lost", flush=True)
            for problem in lost[:5]:
                print(f"  {problem}", flush=True)
    print(f"{total} kills, {broken} lost")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
