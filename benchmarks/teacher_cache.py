"""What the cache of the frozen teacher's logits saves in an epoch of kd, against the teacher in every step."""

import statistics
import tempfile
import time
from pathlib import Path

from loop_overhead import Nowhere

from kdtool.cache import Cache
from kdtool.data import open_data
from kdtool.engine import Engine
from kdtool.feed import Feed
from kdtool.frozen import LOGITS, Frozen
from kdtool.pupil import Pupil
from kdtool.settings import DataOptions, NetworkOptions, Training
from kdtool.sources import create
from kdtool.structure.size import measure
from kdtool.training import Loop
from kdtool_distillers.kd import KD

ROUNDS = 5


def epoch(student, teacher, data, training, engine):
    train = Feed(data.train, engine, teacher=teacher, logits=True, views=training.views)
    val = Feed(data.val, engine)
    loop = Loop(
        Pupil(student.module), name="bench", train=train, val=val, training=training, engine=engine, loss=KD().loss,
        store=Nowhere(),
    )  # fmt: skip
    started = time.perf_counter()
    loop.run()
    return time.perf_counter() - started


def main():
    data = open_data(DataOptions(data="digits"))
    small = NetworkOptions(stem="small")
    big = create("torchvision:resnet34", options=small, data=data)
    student = create("torchvision:resnet18", options=small, data=data)
    training = Training(epochs=1, device="cpu")
    engine = Engine(training, 64 * measure(student)["macs"])
    with tempfile.TemporaryDirectory() as scratch:
        keys = {LOGITS: "teacher"}
        cached = Frozen(big.module, keys, engine, Cache(Path(scratch), 10**9))
        every_step = Frozen(big.module, keys, engine, None)
        epoch(student, cached, data, training, engine)  # fills the cache
        ratios = []
        for _ in range(ROUNDS):
            ratios.append(
                epoch(student, every_step, data, training, engine) / epoch(student, cached, data, training, engine)
            )
    print(f"resnet34 teaches resnet18 in {engine.precision}: every step / cached = {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
