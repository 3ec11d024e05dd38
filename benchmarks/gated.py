"""What a step of the gated search costs over a step of plain distillation on the same network.

Both run through the training loop with SGD and cached teacher's logits, on the same batches in turn; the search moves
its gates and asks what they cost in every step. Prints the median of the paired ratios of CPU time on one thread, of
epochs after the first, whose steps ask the teacher. Goal: at most 1.25.
"""

import copy
import statistics
import time

import torch

import kdtool
from kdtool.data import open_data
from kdtool.engine import Engine
from kdtool.feed import Feed
from kdtool.frozen import Frozen
from kdtool.pupil import Pupil
from kdtool.settings import DataOptions, NetworkOptions, Training
from kdtool.sources import create
from kdtool.training import Loop
from kdtool_distillers.gated_search import GateSearch, Search
from kdtool_distillers.kd import KD

ROUNDS = 7
STEPS = 4
torch.set_num_threads(1)


class Nowhere:
    """A store that keeps nothing."""

    def load(self):
        return None

    def save(self, state):
        pass

    def log(self, row):
        pass


class Batches(Feed):
    """A feed of the first few batches."""

    def batches(self, batch_size, **told):
        batches = super().batches(batch_size, order=torch.arange(STEPS * batch_size), view=told.get("view"))
        yield from batches


def prepared(module, data, engine, training, teacher, loss, guide=None):
    """Return a call that takes `STEPS` steps."""
    train = Batches(data.train, engine, Frozen(teacher, {"logits": ""}, engine, None), logits=True)
    loop = Loop(
        Pupil(module), name="bench", train=train, val=Feed(data.val, engine), training=training, engine=engine,
        loss=loss, store=Nowhere(), guide=guide,
    )  # fmt: skip
    return lambda: loop._train_epoch(lambda *told: None)


def main():
    for spec, size in (("kdtool:densenet-bc-100-12", 16), ("timm:resnet18", 64), ("timm:mobilenetv3_small_100", 64)):
        data = open_data(DataOptions(data="digits"), image_size=size)
        training = Training(epochs=100, optimizer="sgd", lr=1e-3, batch_size=32, device="cpu", precision="fp32")
        engine = Engine(training, 0)
        network = create(spec, options=NetworkOptions(), data=data)
        gated = kdtool.gate_channels(network)
        shape = network.architecture.input
        # Gates that close all the while, so that their costs are counted anew, and a budget that is never met.
        told = Search(target_macs="1", gate_penalty=1.0, gate_lr=1e-2, round_to=16)
        costs = [kdtool.GateCosts(gated.module, shape, "macs", 16) for _ in range(2)]
        calls = [
            prepared(copy.deepcopy(network.module), data, engine, training, network.module, KD().loss),
            prepared(gated.module, data, engine, training, network.module, told.loss, GateSearch(told, *costs)),
        ]
        ratios = []
        for number in range(ROUNDS + 1):
            taken = []
            for call in calls if number % 2 else reversed(calls):
                started = time.process_time()
                call()
                taken.append(time.process_time() - started)
            plain, search = taken if number % 2 else reversed(taken)
            if number:  # the first warms up
                ratios.append(search / plain)
        low_high = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{spec:28} search / kd = {statistics.median(ratios):.3f}  ({low_high})", flush=True)


if __name__ == "__main__":
    main()
