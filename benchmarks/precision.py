"""What bf16 gains in time and costs in accuracy, against fp32, on the digits, and which of them auto takes; and what
fp32 gains from maps whose channels come last in memory.

Each network is trained from the same weights in all ways in turn, three seeds: two with little work in a step, two with
much, and two of depthwise convolutions, whose layers move more numbers than they compute. Prints the median ratio of
the seconds that the process computed, on one thread, and the mean validation accuracies.
"""

import statistics
import time

import torch
from loop_overhead import Nowhere

from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.options import NetworkOptions
from kdtool.models.size import step_of
from kdtool.models.sources import create
from kdtool.training.batches import DistillationBatches
from kdtool.training.engine import Engine
from kdtool.training.loop import Loop
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan

SEEDS = 3
CASES = [
    ("kdtool:lenet-5", 32, 0.5),
    ("kdtool:resnet20", 8, 1.0),
    ("kdtool:resnet20", 32, 0.5),
    ("torchvision:resnet18", 64, 0.25),
    ("timm:mobilenetv3_small_100", 64, 0.1),
    ("timm:convnext_atto", 64, 0.1),
]
torch.set_num_threads(1)


def trained(spec, data, precision, channels_last, seed):
    training = Training(epochs=5, lr=0.003, precision=precision, device="cpu", seed=seed)
    network = create(spec, options=NetworkOptions(), data=data, seed=seed)
    work = step_of(network, training.batch_size)
    engine = Engine(training, *work, channels_last=channels_last)
    train, val = DistillationBatches(data.train, engine), DistillationBatches(data.val, engine)
    plan = FitPlan("bench", network, None, None, None, None, training)
    loop = Loop(plan.student_module(network.module), plan, train, val, engine, Nowhere())
    started = time.process_time()
    accuracy = loop.run()["accuracy"]
    return time.process_time() - started, accuracy, work


def main():
    for spec, size, subset in CASES:
        data = open_data(DataOptions(data="digits", subset=subset), image_size=size)
        precisions, layouts, accuracies = [], [], {"fp32": [], "bf16": []}
        for seed in range(SEEDS):
            seconds = {}
            for precision, found in accuracies.items():
                seconds[precision], accuracy, work = trained(spec, data, precision, True, seed)
                found.append(accuracy)
            precisions.append(seconds["fp32"] / seconds["bf16"])
            layouts.append(trained(spec, data, "fp32", False, seed)[0] / seconds["fp32"])
        means = ", ".join(f"{name} {statistics.mean(found):.4f}" for name, found in accuracies.items())
        auto = Engine(Training(device="cpu"), *work).precision
        print(
            f"{spec} at {size} px, {work[0] / 1e9:.2f} G MACs a step, {work[0] / work[1]:.0f} for each output "
            f"(auto takes {auto}): fp32 / bf16 seconds = {statistics.median(precisions):.2f}, "
            f"channels first / last in fp32 = {statistics.median(layouts):.2f}; validation accuracy {means}",
            flush=True,
        )


if __name__ == "__main__":
    main()
