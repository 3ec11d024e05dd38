"""A training in two processes of one thread, with the same training in one process of two threads, on ResNet-20.

Both train on the same 2,048 images of 32 pixels, in batches of 256 for all processes together, in turn. The time of an
epoch is that of the log, without the first one, in which both set themselves up. Prints the images per second of both
and the median of the paired ratios. Goal: two processes are at least as fast.

``--images 512 --rounds 1`` is a quick look.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

EPOCHS = 4
COMMAND = ["-m", "kdtool", "teacher", "kdtool:resnet20", "--epochs", str(EPOCHS), "--batch-size", "256", "--force"]
OPTIONS = ["--optimizer", "sgd", "--lr", "0.1", "--precision", "fp32", "--device", "cpu", "--image-size", "32"]
KINDS = {"one process, two threads": ("1", "2"), "two processes, one thread": ("2", "1")}
"""How many processes, and how many threads each of them has."""


def make_images(folder: Path, images: int) -> None:
    """Write images of random pixels in ten classes."""
    random = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 256)):
        for number in range(count):
            target = folder / split / f"class{number % 10}"
            target.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(target / f"{number}.png")


def images_per_second(kind: str, data: Path, output: Path, images: int) -> float:
    """Train once, and return the images per second of the median epoch."""
    processes, threads = KINDS[kind]
    words = [*COMMAND, *OPTIONS, "--data", f"folder:{data}", "--processes", processes, "-o", str(output)]
    subprocess.run(
        [sys.executable, *words], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": threads}
    )
    rows = [json.loads(line) for line in (output.with_suffix(".run") / "metrics.jsonl").read_text().splitlines()]
    return images / statistics.median(row["seconds"] for row in rows[1:])


def main() -> None:
    """Measure in turns, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        data, output = Path(scratch) / "images", Path(scratch) / "net.pt"
        make_images(data, options.images)
        for number in range(options.rounds):
            kinds = list(KINDS) if number % 2 == 0 else list(KINDS)[::-1]
            speeds = {kind: images_per_second(kind, data, output, options.images) for kind in kinds}
            one, two = (speeds[kind] for kind in KINDS)
            ratios.append(two / one)
            shown = ", ".join(f"{kind} {speeds[kind]:.0f}" for kind in KINDS)
            print(f"round {number + 1}, images per second: {shown}; ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio of two processes to one: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
