"""A step of narrow networks on two threads, with batch-norms of few channels on one thread and as torch has them.

A ResNet-18 of torchvision's blocks whose first stage has some number of channels, on batches of 64 images of 32 pixels.
All ways take their steps in turn. Prints the medians of the milliseconds of a forward and backward pass, and the ratio
of kdtool's to torch's on two threads.
"""

import contextlib
import statistics
import time

import torch
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet

from kdtool.training.optimization.false_sharing import without_false_sharing
from kdtool.training.optimization.fast_convolutions import convolutions, fast_convolutions

WIDTHS, STEPS, WARM_UP, BATCH, PIXELS = (4, 8, 12, 16, 20), 15, 3, 64, 32
WAYS = {"torch, 1 thread": (1, False), "torch": (2, False), "kdtool": (2, True)}


class Narrow(ResNet):
    """A ResNet-18 with the small stem whose stages have ``width`` channels, and 2, 4 and 8 times as many."""

    def __init__(self, width: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=10)
        self.inplanes = width
        self.conv1 = torch.nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1, self.maxpool = torch.nn.BatchNorm2d(width), torch.nn.Identity()
        for stage in range(4):
            layer = self._make_layer(BasicBlock, width * 2**stage, 2, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = torch.nn.Linear(8 * width, 10)


def seconds(network, images, labels, precision, mended):
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(fast_convolutions(convolutions(network)))
        if mended:
            stack.enter_context(without_false_sharing([network]))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            output = network(images)
        F.cross_entropy(output.float(), labels).backward()
    return time.perf_counter() - started


def main():
    images = torch.randn(BATCH, 3, PIXELS, PIXELS).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,))
    for precision in ("fp32", "bf16"):
        for width in WIDTHS:
            network = Narrow(width).to(memory_format=torch.channels_last)
            times = {name: [] for name in WAYS}
            for _ in range(WARM_UP + STEPS):
                for name, (threads, mended) in WAYS.items():
                    torch.set_num_threads(threads)
                    times[name].append(seconds(network, images, labels, precision, mended))
            medians = {name: 1000 * statistics.median(found[WARM_UP:]) for name, found in times.items()}
            listed = ", ".join(f"{name} {found:.1f} ms" for name, found in medians.items())
            print(
                f"{precision}, {width} channels: {listed}; ratio {medians['kdtool'] / medians['torch']:.2f}", flush=True
            )


if __name__ == "__main__":
    main()
