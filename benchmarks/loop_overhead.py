"""What the training loop costs over the bare forward, backward and step of the same precision.

Both train the same network from the same weights on the same digits for three epochs, in turn, on one thread; the loop
also augments, normalises, schedules, looks at the loss and validates. Prints the median of the paired ratios of CPU
seconds, which other work on the machine changes less than those of the clock. Goal: at most 1.05.

``--rounds 2`` is a quick look.
"""

import argparse
import copy
import statistics
import time

import torch
from torch.nn import functional as F

from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.batches import DistillationBatches
from kdtool.training.engine import Engine
from kdtool.training.loop import Loop
from kdtool.training.optimization.optimizer import make_optimizer
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan

ROUNDS = 9
EPOCHS = 3


class Nowhere:
    """A store that keeps nothing."""

    def load(self):
        return None

    def save(self, state):
        pass

    def log(self, row):
        pass


def bare(module, engine, training, batches, held_out):
    engine.place(module)
    optimizer = make_optimizer(list(module.parameters()), training)
    started = time.process_time()
    for _ in range(EPOCHS):
        module.train()
        for images, target in batches:
            with engine.autocast():
                output = module(images)
            F.cross_entropy(output.float(), target).backward()
            optimizer.step()
            optimizer.zero_grad()
        module.eval()
        with torch.no_grad(), engine.autocast():
            for images in held_out:
                module(images)
    return time.process_time() - started


def looped(network, engine, training, data):
    module = copy.deepcopy(network.module)
    plan = FitPlan("bench", network, None, None, None, None, training)
    train, val = DistillationBatches(data.train, engine), DistillationBatches(data.val, engine)
    loop = Loop(plan.student_module(module), plan, train, val, engine, Nowhere())
    started = time.process_time()
    loop.run()
    return time.process_time() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)  # what threads wait for each other on a busy machine would drown the difference
    for spec, size, stem in (
        ("kdtool:lenet-5", 32, "default"),
        ("torchvision:resnet18", 8, "small"),
    ):
        for precision in ("fp32", "bf16"):
            data = open_data(DataOptions(data="digits"), image_size=size)
            training = Training(epochs=EPOCHS, precision=precision, device="cpu", threads=1)
            engine = Engine(training, 0)
            network = create(spec, options=NetworkOptions(stem=stem), data=data)
            layout = {"channels_last": engine.channels_last}
            batches = [(images, target) for _, images, target in data.train.batches(64, view=0, **layout)]
            held_out = [images for _, images, _ in data.val.batches(256, **layout)]
            ratios = []
            for _ in range(rounds):
                ours = looped(network, engine, training, data)
                ratios.append(ours / bare(copy.deepcopy(network.module), engine, training, batches, held_out))
            low_high = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{spec:34} {precision}  loop / bare = {statistics.median(ratios):.3f}  ({low_high})", flush=True)


if __name__ == "__main__":
    main()
