"""What bf16 gains in time and costs in accuracy, against fp32, on the digits.

ResNet-18 with the small stem, trained from the same weights in both precisions in turn, three seeds, at two image
sizes: one below and one above the work per step from which `--precision auto` takes bf16. Prints the median ratio of
the seconds and the mean validation accuracies.
"""

import statistics
import time

from loop_overhead import Nowhere

from kdtool.data import open_data
from kdtool.engine import BF16_PAYS_FROM_MACS, Engine
from kdtool.settings import DataOptions, NetworkOptions, Training
from kdtool.sources import create
from kdtool.step import Step
from kdtool.structure.size import measure
from kdtool.training import Loop

SEEDS = 3


def train(data, precision, seed):
    training = Training(epochs=3, precision=precision, device="cpu", seed=seed)
    network = create("torchvision:resnet18", options=NetworkOptions(stem="small"), data=data, seed=seed)
    macs = measure(network)["macs"] * training.batch_size
    loop = Loop(
        network.module, name="bench", data=data, training=training, engine=Engine(training, macs),
        loss=Step.cross_entropy, store=Nowhere(),
    )  # fmt: skip
    started = time.perf_counter()
    accuracy = loop.run()["accuracy"]
    return time.perf_counter() - started, accuracy, macs


def main():
    for size, subset in ((8, 1.0), (20, 0.25)):
        data = open_data(DataOptions(data="digits", subset=subset), image_size=size)
        ratios, accuracies = [], {"fp32": [], "bf16": []}
        for seed in range(SEEDS):
            seconds = {}
            for precision, found in accuracies.items():
                seconds[precision], accuracy, macs = train(data, precision, seed)
                found.append(accuracy)
            ratios.append(seconds["fp32"] / seconds["bf16"])
        means = ", ".join(f"{name} {statistics.mean(found):.4f}" for name, found in accuracies.items())
        auto = "bf16" if macs >= BF16_PAYS_FROM_MACS else "fp32"
        print(
            f"{size} px, {macs / 1e9:.1f} G MACs a step (auto takes {auto}): fp32 / bf16 seconds = "
            f"{statistics.median(ratios):.2f}; validation accuracy {means}",
            flush=True,
        )


if __name__ == "__main__":
    main()
