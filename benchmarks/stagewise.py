"""The cost of stagewise distillation, compared with a training without a teacher and with one without the cache.

A ResNet-34 teaches its 10-layer student on a part of the CIFAR-10 training images (`cifar10/train`, one folder for
each class, in KDTOOL_DATA), or of another data set (`--data mnist`). Every phase has as many epochs as the training
without a teacher: 100, as in the paper. The trainings are run in turn. Goals: at most 1.5 times the training without a
teacher, and with `--cache-off --views 4` 4 times faster than without the cache. Measured with 4 views: 1.27 and 4.02 in
fp32; 1.36 and 3.20 in bf16, where the cache saves less, since the forward pass of the ResNet-34 is a smaller part of
the time. With 32 epochs it was 1.46 and 3.50 in fp32, since the first pass over each of the 4 views is then a larger
part of the time. With the views that kdtool chooses it is 1.66 for 6 epochs a phase (2 views) and 1.52 for 20 (5
views), which misses the goal. For 6 epochs on a tenth of MNIST in bf16 (`--data mnist --subset 0.1 --epochs 6
--precisions auto`) it was 1.73 at commit `20ab9ca` and 1.56 since a teacher is cut once for all phases and outputs are
written to files without mapping them; it is 1.81 since steps on small maps cost less, which made the training without
a teacher a fifth faster (24 s in place of 30) and stagewise less so (43 s in place of 47); three later runs gave
1.62, 1.77 and 1.69. The ratios are of CPU seconds on one thread, which depend less on other work on the machine than
wall-clock seconds, which are printed too.
With `--cache-off` the benchmark takes 45 minutes (change it by `--epochs` and `--precisions`).

`--memory` runs one epoch of each phase on 5,000 and on 50,000 images, and prints the peak memory of both. The teacher
is trained for one epoch only: the time of a step does not depend on the weights.
"""

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import kdtool
from kdtool.training.options import Training

VALIDATION = 0.02


def folder():
    """Return the directory of CIFAR-10."""
    return Path(os.environ.get("KDTOOL_DATA", ".")).resolve() / "cifar10"


def data(spec):
    """Return the options of the data set."""
    return {"data": spec or f"folder:{folder()}", "validation": VALIDATION}


def seconds(teacher, scratch, method, **options):
    """Return how long a method took: CPU seconds of this process, and wall-clock seconds."""
    settings = {"student": "kdtool:resnet10-concat-head", "force": True, "device": "cpu", **options}
    entry = kdtool.distill(teacher, method, output=scratch / f"{method}.pt", **settings).history[-1]
    return entry["cpu_seconds"], entry["seconds"]


def ratios(numerators, denominators):
    """Return the ratios of the medians of CPU and of wall-clock seconds, as text."""
    cpu, clock = (
        statistics.median(times[kind] for times in numerators)
        / statistics.median(times[kind] for times in denominators)
        for kind in (0, 1)
    )
    return f"{cpu:.2f} (wall clock {clock:.2f})"


def taught(scratch, subset, spec):
    """Return the checkpoint of a ResNet-34 that has seen each image once."""
    path = scratch / "teacher.pt"
    kdtool.teacher("torchvision:resnet34", **data(spec), image_size=32, subset=subset, epochs=1, output=path)
    return path


def costs(teacher, scratch, subset, epochs, views, rounds, precision, cache_off):
    """Train with and without a teacher, and without a cache if asked to, and print the ratios of the times."""
    options = {"epochs": epochs, "views": views, "precision": precision}
    no_teacher, stagewise, no_cache = [], [], []
    for _ in range(rounds):
        no_teacher.append(seconds(teacher, scratch, "none", **options))
        stagewise.append(seconds(teacher, scratch, "stagewise", **options))
        if cache_off:
            no_cache.append(seconds(teacher, scratch, "stagewise", cache="off", **options))
    shown = Training(epochs=epochs, views=views).recurring_views
    print(f"{precision}: {epochs} epochs per phase, {shown} views, {subset:.0%} of the images; ", end="")
    print(f"without a teacher: {no_teacher[0][0]:.0f} s")
    print(f"stagewise / no teacher = {ratios(stagewise, no_teacher)}", flush=True)
    if cache_off:
        print(f"stagewise, --cache off / on = {ratios(no_cache, stagewise)}", flush=True)


def peak(scratch, subset):
    """Return this process's peak memory in MB after one epoch of each phase."""
    seconds(taught(scratch, 0.01, None), scratch, "stagewise", epochs=1, augment="none", subset=subset)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="another data set, such as mnist")
    parser.add_argument("--subset", type=float, default=0.03)
    parser.add_argument("--epochs", type=int, nargs="+", default=[100])
    parser.add_argument("--views", type=int, help="without it as kdtool has it, by the epochs")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--cache-off", action="store_true", help="train with --cache off too")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data is None and not (folder() / "train").is_dir():
        print(
            "skipped: set KDTOOL_DATA to the directory with cifar10/train, which has a folder of images for each class"
        )
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if options.peak is not None:
            print(f"{peak(Path(scratch), options.peak):.0f}")
        elif options.memory:
            for subset in (0.1, 1.0):
                command = [sys.executable, __file__, "--peak", str(subset)]
                megabytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
                print(f"{subset:.0%} of the images: peak memory {megabytes} MB", flush=True)
        else:
            teacher = taught(Path(scratch), options.subset, options.data)
            for precision, epochs in itertools.product(options.precisions, options.epochs):
                settings = (options.subset, epochs, options.views, options.rounds, precision, options.cache_off)
                costs(teacher, Path(scratch), *settings)


if __name__ == "__main__":
    main()
