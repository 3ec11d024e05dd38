"""The time that the command line takes to start, divided by the time to import click. Goal for --help: at most 2.5."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 11


def seconds(command):
    """Return how long a command takes, in seconds."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main():
    script = str(Path(sys.executable).with_name("kdtool"))
    click = [sys.executable, "-c", "import click"]
    for arguments in (["--help"], ["plugins"], ["distill", "--method", "ikd", "--help"]):
        ratios, times = [], []
        for _ in range(ROUNDS):
            base = seconds(click)
            times.append(seconds([script, *arguments]))
            ratios.append(times[-1] / base)
        milliseconds = f"{1000 * statistics.median(times):.0f} ms"
        print(
            f"kdtool {' '.join(arguments):26} {milliseconds:>8}  / import click = {statistics.median(ratios):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
