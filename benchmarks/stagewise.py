"""What stagewise distillation costs: against training the same student without a teacher, and without the cache.

ResNet-34 teaches its 10-layer student on a part of the CIFAR-10 training images (`cifar10/train`, one folder for each
class, in KDTOOL_DATA), every phase for as many epochs as the training without a teacher has. Both are run in turn.
Goals: at most 1.5 times that training, and 4 times quicker than with `--cache off`. With `--memory` it runs one epoch
of each phase on 5,000 and on all images, and prints the peak memory of both. The teacher is hardly trained: how long
a step takes does not depend on the weights.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import kdtool

IMAGES = 50_000


def folder():
    return Path(os.environ.get("KDTOOL_DATA", ".")).resolve() / "cifar10"


def data():
    return f"folder:{folder()}"


def seconds(teacher, scratch, method, **options):
    about = {"student": "kdtool:resnet10-concat-head", "force": True, "device": "cpu", **options}
    student = kdtool.distill(teacher, method, output=scratch / f"{method}.pt", **about)
    return student.history[-1]["seconds"]


def costs(scratch, subset, epochs, views, rounds):
    teacher = scratch / "teacher.pt"
    kdtool.teacher("torchvision:resnet34", data=data(), image_size=32, subset=subset, epochs=1, output=teacher)
    about = {"epochs": epochs, "views": views}
    alone = [seconds(teacher, scratch, "none", **about)]
    ratios, without = [], 0.0
    for _ in range(rounds):
        stagewise = seconds(teacher, scratch, "stagewise", **about)
        alone.append(seconds(teacher, scratch, "none", **about))
        ratios.append(stagewise / statistics.mean(alone[-2:]))
    print(f"{epochs} epochs a phase, {views} views, {round(IMAGES * 0.9 * subset)} images", flush=True)
    print(
        f"stagewise / no teacher = {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True
    )
    # The phases without a cache all cost alike: a quarter of the epochs is enough to see it.
    without = 4 * seconds(teacher, scratch, "stagewise", epochs=epochs // 4, views=views, cache="off")
    print(f"stagewise, --cache off / on = {without / stagewise:.2f}", flush=True)


def peak(scratch, subset):
    """Return this process's peak memory in MB after one epoch of each phase."""
    teacher = scratch / "teacher.pt"
    kdtool.teacher("torchvision:resnet34", data=data(), image_size=32, subset=0.01, epochs=0, output=teacher)
    seconds(teacher, scratch, "stagewise", epochs=1, augment="none", subset=subset)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--subset", type=float, default=0.04)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=float, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if not (folder() / "train").is_dir():
        print("skipped: set KDTOOL_DATA to the directory that holds cifar10/train, a folder of images for each class")
        return
    with tempfile.TemporaryDirectory() as scratch:
        if told.peak is not None:
            print(f"{peak(Path(scratch), told.peak):.0f}")
        elif told.memory:
            for subset in (0.1, 1.0):
                command = [sys.executable, __file__, "--peak", str(subset)]
                megabytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
                print(f"{round(IMAGES * subset)} images: peak memory {megabytes} MB", flush=True)
        else:
            costs(Path(scratch), told.subset, told.epochs, told.views, told.rounds)


if __name__ == "__main__":
    main()
