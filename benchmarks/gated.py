"""What a step of the gated search costs over a step of plain distillation on the same network.

Both run through the training loop with SGD, on the same batches with the teacher's logits at hand, in turn; gates close
all the while, so that the search counts its costs anew. Prints the median of the paired ratios of CPU time on one
thread. Goal: at most 1.25.
"""

import copy
import itertools
import statistics
import time

import torch
from loop_overhead import Nowhere

import kdtool
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.batches import DistillationBatches
from kdtool.training.engine import Engine
from kdtool.training.frozen_network import FrozenNetwork
from kdtool.training.loop import Loop
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan
from kdtool.training.sharing.replicas import Replica
from kdtool_distillers.gated_options import GateSearchOptions
from kdtool_distillers.gated_search import GateSearch, GateSearchLoss
from kdtool_distillers.kd import KD

ROUNDS = 7
STEPS = 2
BATCH = 32
torch.set_num_threads(1)


class Kept(DistillationBatches):
    """A feed of a few batches that were made once, with the teacher's logits, as the cache would give them."""

    kept = ()

    def batches(self, batch_size, **told):
        yield from self.kept


def few_batches(data, engine, teacher):
    feed = DistillationBatches(data.train, engine, FrozenNetwork(teacher, {"logits": ""}, engine, None), logits=True)
    return list(itertools.islice(feed.batches(BATCH, view=0), STEPS))


def prepared(network, module, data, engine, batches, objective, *callbacks):
    """Return a call that takes `STEPS` steps."""
    train = Kept(data.train.first(STEPS * BATCH), engine)
    train.kept = batches
    training = Training(epochs=100, optimizer="sgd", lr=1e-3, batch_size=BATCH, device="cpu", precision="fp32")
    val = DistillationBatches(data.val, engine)
    plan = FitPlan("bench", network, network, objective, None, None, training)
    loop = Loop(plan.student_module(module), plan, train, val, engine, Nowhere(), callbacks)
    loop.balance.looks = set()  # they belong to the beginning of a phase
    replica = Replica(loop.learner)
    return lambda: loop._train_epoch(replica, lambda *told: None)


def main():
    for spec, size in (("kdtool:densenet-bc-100-12", 16), ("timm:resnet18", 64), ("timm:mobilenetv3_small_100", 64)):
        data = open_data(DataOptions(data="digits"), image_size=size)
        engine = Engine(Training(device="cpu", precision="fp32"), 0)
        network = create(spec, options=NetworkOptions(), data=data)
        batches = few_batches(data, engine, copy.deepcopy(network.module))
        gated = kdtool.surgery.gates.gate_channels(network)
        shape = network.architecture.input
        # Gates that close all the while, so that their costs are counted anew, and a budget that is never met.
        options = GateSearchOptions(target_macs="1", closing="proximal", gate_penalty=1.0, gate_lr=1e-2, round_to=16)
        costs = [kdtool.surgery.gates.GateCosts(gated.module, shape, "macs", 16) for _ in range(2)]
        calls = [
            prepared(network, network.module, data, engine, batches, KD()),
            prepared(
                network, gated.module, data, engine, batches, GateSearchLoss(options), GateSearch(options, *costs)
            ),
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
