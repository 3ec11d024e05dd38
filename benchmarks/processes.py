"""A training in two processes of one thread, with the same training in one process of two threads, on ResNet-20.

Both train on the same 2,048 images of 32 pixels, in batches of 256 for all processes together, in turn. The time of an
epoch is that of the log, without the first one, in which both set themselves up. Prints the images per second of both
and the median of the paired ratios. Goal: two processes are at least as fast.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, EPOCHS, ROUNDS = 2048, 4, 5
COMMAND = ["-m", "kdtool", "teacher", "kdtool:resnet20", "--epochs", str(EPOCHS), "--batch-size", "256"]
OPTIONS = [
    "--optimizer",
    "sgd",
    "--lr",
    "0.1",
    "--precision",
    "fp32",
    "--device",
    "cpu",
    "--image-size",
    "32",
    "--force",
]
KINDS = {
    "one process, two threads": ([sys.executable], "2"),
    "two processes, one thread": ([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"], "1"),
}


def make_images(folder: Path) -> None:
    """Write images of random pixels in ten classes."""
    random = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 256)):
        for number in range(count):
            target = folder / split / f"class{number % 10}"
            target.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(target / f"{number}.png")


def images_per_second(kind: str, data: Path, output: Path) -> float:
    """Train once, and return the images per second of the median epoch."""
    start, threads = KINDS[kind]
    command = [*start, *COMMAND, *OPTIONS, "--data", f"folder:{data}", "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": threads})
    rows = [json.loads(line) for line in (output.with_suffix(".run") / "metrics.jsonl").read_text().splitlines()]
    return IMAGES / statistics.median(row["seconds"] for row in rows[1:])


def main() -> None:
    """Measure in turns, and print the ratio."""
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        make_images(Path(scratch) / "images")
        for number in range(ROUNDS):
            speeds = [images_per_second(kind, Path(scratch) / "images", Path(scratch) / "net.pt") for kind in KINDS]
            ratios.append(speeds[1] / speeds[0])
            shown = ", ".join(f"{kind} {speed:.0f}" for kind, speed in zip(KINDS, speeds, strict=True))
            print(f"round {number + 1}, images per second: {shown}; ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio of two processes to one: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
