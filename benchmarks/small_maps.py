"""A step on small images without the weights that meet padding alone, and an optimiser's step in the order of memory,
each with torch's own.

A ResNet-18 of torchvision as made for 224 pixels sees batches of 64 images of 32 pixels: its last stage has maps of
1 x 1. All ways take their steps in turn, on one thread. Prints the medians of the CPU milliseconds of a forward and
backward pass and of a step of fused SGD, and the ratio of whole steps.
"""

import statistics
import time

import torch
import torchvision
from torch.nn import functional as F

from kdtool.training.optimization.fast_convolutions import convolutions, fast_convolutions
from kdtool.training.optimization.memory_order import in_memory_order

STEPS, WARM_UP, BATCH, PIXELS = 25, 5, 64, 32
torch.set_num_threads(1)


class Plain:
    """A network that is trained with torch alone."""

    def __init__(self):
        torch.manual_seed(0)
        self.network = torchvision.models.resnet18(num_classes=10).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.05, 0.9, nesterov=True, fused=True)
        self.times = []

    def passes(self, images, labels):
        F.cross_entropy(self.network(images).float(), labels).backward()

    def moves(self):
        self.optimizer.step()

    def step(self, images, labels, precision):
        started = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            self.passes(images, labels)
        between = time.process_time()
        self.moves()
        ended = time.process_time()
        self.optimizer.zero_grad()
        self.times.append((between - started, ended - between, ended - started))


class Ours(Plain):
    """The same as a phase of kdtool trains it."""

    def passes(self, images, labels):
        with fast_convolutions(convolutions(self.network)):
            super().passes(images, labels)

    def moves(self):
        with in_memory_order(self.optimizer):
            super().moves()


def main():
    images = torch.randn(BATCH, 3, PIXELS, PIXELS).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,))
    for precision in ("fp32", "bf16"):
        ways = [Plain(), Ours()]
        for _ in range(WARM_UP + STEPS):
            for way in ways:
                way.step(images, labels, precision)
        theirs, ours = (
            [1000 * statistics.median(times) for times in zip(*way.times[WARM_UP:], strict=True)] for way in ways
        )
        print(
            f"{precision}: forward and backward {ours[0]:.1f} and {theirs[0]:.1f} ms, SGD {ours[1]:.1f} and "
            f"{theirs[1]:.1f} ms, kdtool and torch; kdtool / torch = {ours[2] / theirs[2]:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
