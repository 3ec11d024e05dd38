"""What stagewise distillation costs: against training the same student without a teacher, and without the cache.

ResNet-34 teaches its 10-layer student on a part of the CIFAR-10 training images (`cifar10/train`, one folder for each
class, in KDTOOL_DATA), every phase for as many epochs as the training without a teacher has: 100, as in the paper. All
are run in turn. Goals: at most 1.5 times that training, and 4 times quicker than with `--cache off`. Measured: 1.27 and
4.02 in fp32; 1.36 and 3.20 in bf16, in which what the cache saves, a ResNet-34's forward above all, is cheaper beside
what is left. With 32 epochs, over which the first look at each of the 4 views is spread less, it was 1.46 and 3.50 in
fp32. The ratios are of the seconds that the process computed, on one thread, which other work on the machine changes
less than those of the clock beside them. All of it takes three quarters of an hour (`--epochs`, `--precisions`).
With `--memory` it runs one epoch of each phase on 5,000 and on 50,000 images, and prints the peak memory of both.
The teacher is hardly trained: how long a step takes does not depend on the weights.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import kdtool

IMAGES = 50_000
VALIDATION = 0.02


def folder():
    return Path(os.environ.get("KDTOOL_DATA", ".")).resolve() / "cifar10"


def data():
    return {"data": f"folder:{folder()}", "validation": VALIDATION}


def seconds(teacher, scratch, method, **options):
    """Return how long a method took, in seconds of this process and of the clock."""
    about = {"student": "kdtool:resnet10-concat-head", "force": True, "device": "cpu", **options}
    entry = kdtool.distill(teacher, method, output=scratch / f"{method}.pt", **about).history[-1]
    return entry["cpu_seconds"], entry["seconds"]


def ratios(above, below):
    """Return the ratio of the medians of such pairs, as text."""
    computed, clock = (
        statistics.median(pair[kind] for pair in above) / statistics.median(pair[kind] for pair in below)
        for kind in (0, 1)
    )
    return f"{computed:.2f} (by the clock {clock:.2f})"


def costs(scratch, subset, epochs, views, rounds, precisions):
    teacher = scratch / "teacher.pt"
    kdtool.teacher("torchvision:resnet34", **data(), image_size=32, subset=subset, epochs=1, output=teacher)
    images = round(IMAGES * (1 - VALIDATION) * subset)
    for precision in precisions:
        told = {"epochs": epochs, "views": views, "precision": precision}
        alone, stagewise, without = [], [], []
        for _ in range(rounds):
            alone.append(seconds(teacher, scratch, "none", **told))
            stagewise.append(seconds(teacher, scratch, "stagewise", **told))
            without.append(seconds(teacher, scratch, "stagewise", cache="off", **told))
        print(f"{precision}: {epochs} epochs a phase, {views} views, {images} images; no teacher: {alone[0][0]:.0f} s")
        print(f"stagewise / no teacher = {ratios(stagewise, alone)}")
        print(f"stagewise, --cache off / on = {ratios(without, stagewise)}", flush=True)


def peak(scratch, subset):
    """Return this process's peak memory in MB after one epoch of each phase."""
    teacher = scratch / "teacher.pt"
    kdtool.teacher("torchvision:resnet34", **data(), image_size=32, subset=0.01, epochs=1, output=teacher)
    seconds(teacher, scratch, "stagewise", epochs=1, augment="none", subset=subset)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--subset", type=float, default=0.03)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=float, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if not (folder() / "train").is_dir():
        print("skipped: set KDTOOL_DATA to the directory that holds cifar10/train, a folder of images for each class")
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if told.peak is not None:
            print(f"{peak(Path(scratch), told.peak):.0f}")
        elif told.memory:
            for subset in (0.1, 1.0):
                command = [sys.executable, __file__, "--peak", str(subset)]
                megabytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
                print(f"{round(IMAGES * subset)} images: peak memory {megabytes} MB", flush=True)
        else:
            costs(Path(scratch), told.subset, told.epochs, told.views, told.rounds, told.precisions)


if __name__ == "__main__":
    main()
