"""What it brings to choose the number of threads by timing the first steps of a phase.

Trains the same network on the same random images with one thread, with all, and with the number that is chosen, in
turn. Prints for each network the median of the paired ratios of the time of a step to that with one thread. Goal: at
most 1.05 with the chosen number, whatever else runs, and the smaller of the two others to 5 %.
"""

import os
import statistics
import time

os.environ.pop("OMP_NUM_THREADS", None)

import torch
from torch.nn import functional as F

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.threads import Threads

ROUNDS, STEPS = 5, 12

# Network, channels, side of the images in pixels, images per step.
CASES = (
    ("kdtool:lenet-5", 1, 28, 64),
    ("kdtool:resnet20", 3, 32, 64),
    ("torchvision:resnet18", 3, 32, 64),
    ("torchvision:mobilenet_v2", 3, 64, 32),
)


def seconds(module, images, labels, threads):
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    with threads:
        for _ in range(8 if not threads.decided else 1):  # what is being timed is not counted
            F.cross_entropy(module(images), labels).backward()
            threads.tick()
        started = time.perf_counter()
        for _ in range(STEPS):
            F.cross_entropy(module(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            threads.tick()
        return (time.perf_counter() - started) / STEPS


def main():
    cpu, everything = torch.device("cpu"), torch.get_num_threads()
    for name, channels, side, batch in CASES:
        options = NetworkOptions(classes=10, in_channels=channels, image_size=side)
        module = create(name, options=options, data=None).module.train()
        images, labels = torch.randn(batch, channels, side, side), torch.randint(10, (batch,))
        ratios, chosen = {"all": [], "chosen": []}, set()
        for _ in range(ROUNDS):
            automatic = Threads(None, cpu)
            one = seconds(module, images, labels, Threads(1, cpu))
            ratios["all"].append(seconds(module, images, labels, Threads(everything, cpu)) / one)
            ratios["chosen"].append(seconds(module, images, labels, automatic) / one)
            chosen.add(automatic.count)
        medians = ", ".join(f"{key} {statistics.median(values):.2f}" for key, values in ratios.items())
        print(f"{name}: {medians} of the time with one thread (chose {sorted(chosen)} of {everything})", flush=True)


if __name__ == "__main__":
    main()
