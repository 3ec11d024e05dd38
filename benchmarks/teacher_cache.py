"""What the cache of the frozen teacher's logits saves in an epoch of kd, against the teacher in every step."""

import copy
import statistics
import tempfile
import time
from pathlib import Path

from loop_overhead import Nowhere

from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.training.batches import DistillationBatches
from kdtool.training.engine import Engine
from kdtool.training.frozen_network import LOGITS, FrozenNetwork
from kdtool.training.loop import Loop
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache
from kdtool.training.plan import FitPlan
from kdtool_distillers.kd import KD

ROUNDS = 5


def epoch(student, teacher, frozen, data, training, engine):
    train = DistillationBatches(data.train, engine, teacher=frozen, logits=True, views=training.views)
    val = DistillationBatches(data.val, engine)
    plan = FitPlan("bench", student, teacher, KD(), None, None, training)
    loop = Loop(plan.student_module(student.module), plan, train, val, engine, Nowhere())
    started = time.perf_counter()
    loop.run()
    return time.perf_counter() - started


def main():
    data = open_data(DataOptions(data="digits"))
    small = NetworkOptions(stem="small")
    big = create("torchvision:resnet34", options=small, data=data)
    student = create("torchvision:resnet18", options=small, data=data)
    training = Training(epochs=1, device="cpu", views=1)
    engine = Engine(training, 64 * measure(student)["macs"])
    with tempfile.TemporaryDirectory() as scratch:
        keys = {LOGITS: "teacher"}
        cached = FrozenNetwork(copy.deepcopy(big.module), keys, engine, Cache(Path(scratch), 10**9))
        every_step = FrozenNetwork(copy.deepcopy(big.module), keys, engine, None)
        epoch(student, big, cached, data, training, engine)  # fills the cache
        ratios = []
        for _ in range(ROUNDS):
            ratios.append(
                epoch(student, big, every_step, data, training, engine)
                / epoch(student, big, cached, data, training, engine)
            )
    print(f"resnet34 teaches resnet18 in {engine.precision}: every step / cached = {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
