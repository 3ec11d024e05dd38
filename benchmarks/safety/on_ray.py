"""Kill a study on Ray: ``python -m benchmarks.safety.on_ray``.

A small cluster runs on this machine. The study runs once without a kill. Then, at random moments, the process that
started it or a worker of Ray is killed, up to four times in a study. A worker's task is begun again by Ray, and the
study is called again where its own process was killed. The files have to be those without a kill, but for their times.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.safety.contents import contents, difference
from benchmarks.safety.killed import STUDY, make_inputs
from benchmarks.safety.rows import Rows
from benchmarks.safety.soak import Kills

NAME, MOST, TRIES = "study, Ray", 4, 3
"""How the table calls it, how many kills one study may have, and how often it is called again if Ray is late."""


@contextlib.contextmanager
def cluster(workers: int = 2) -> Iterator[str]:
    """Yield the address of a cluster of this machine, which is gone afterwards."""
    from ray.cluster_utils import Cluster

    os.environ.update(RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1")
    os.environ.pop("RAY_ADDRESS", None)
    node = {"num_cpus": workers, "object_store_memory": 100_000_000, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield made.address
    finally:
        made.shutdown()


def begin(folder: Path, address: str) -> subprocess.Popen[bytes]:
    """Start the study in a folder."""
    line = [sys.executable, "-m", "kdtool", "run", "s.toml", "-o", "s.study", "--ray", address]
    with (folder / "err.log").open("ab") as errors:
        return subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)


def workers() -> list[psutil.Process]:
    """Return the workers of this process's cluster, those that compute first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            name = " ".join(process.cmdline())
            if name.startswith("ray::"):
                found.append((name.startswith("ray::IDLE"), process.pid, process))
    return [process for *_, process in sorted(found)]


def soak(inputs: Path, address: str, kills: int, seed: int) -> Kills:
    """Kill a study so often, and return what was lost."""
    chance = random.Random(f"{NAME} {seed}")

    def place() -> Path:
        folder = inputs / "work"  # always the same one: its name is in the histories
        folder.mkdir()
        shutil.copy(inputs / "l.pt", folder)
        for name, text in STUDY:
            (folder / name).write_text(text)
        return folder

    whole, started = place(), time.monotonic()
    if code := begin(whole, address).wait():
        return Kills(lost=[f"fails without a kill ({code}): {(whole / 'err.log').read_text()[-500:]!r}"])
    seconds, meant = time.monotonic() - started, contents(whole)
    shutil.rmtree(whole)
    result = Kills()
    while result.timed < kills:
        folder, story = place(), []
        process = begin(folder, address)
        for _ in range(chance.randint(1, MOST)):
            after = chance.random() * seconds
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after)
                break
            running = workers()
            if running and chance.random() < 0.5:
                running[0].send_signal(signal.SIGKILL)
                story.append(f"a worker after {after:.1f} s")
            else:
                process.kill()
                process.wait()
                story.append(f"the study after {after:.1f} s")
                process = begin(folder, address)
            result.timed += 1
        code = process.wait()
        for _ in range(TRIES):
            if "does not answer as a Ray cluster" not in (folder / "err.log").read_text()[-300:] or not code:
                break  # a machine with much to do answers late, which loses nothing
            code = begin(folder, address).wait()
        problem = f"ends with {code}: {(folder / 'err.log').read_text()[-300:]!r}" if code else ""
        if problem := problem or difference(meant, contents(folder)):
            result.lost.append(f"{', '.join(story)}: {problem}")
        shutil.rmtree(folder)
    return result


def main() -> int:
    """Kill the study, print what came out, and return 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="a JSON file to which the result is added")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, cluster() as address:
        make_inputs(Path(folder), ["l"])
        kills = soak(Path(folder), address, options.kills, options.seed)
    about = {"operations": 0, "kills": kills.came, "by_time": kills.timed, "lost": kills.lost}
    key = {"kind": "study", "name": NAME, "seed": options.seed}
    Rows(options.rows).add(key, **about, seconds=round(time.monotonic() - started, 1))
    print(f"{kills.came} kills, {len(kills.lost)} lost", *kills.lost, sep="\n  ")
    return int(bool(kills.lost))


if __name__ == "__main__":
    sys.exit(main())
