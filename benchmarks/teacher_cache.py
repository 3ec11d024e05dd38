"""What the cache of the frozen teacher's logits saves in an epoch of kd, against the teacher in every step."""

import statistics
import tempfile
import time
from pathlib import Path

from loop_overhead import Nowhere

from kdtool.data import open_data
from kdtool.engine import Engine
from kdtool.settings import DataOptions, NetworkOptions, Training
from kdtool.sources import create
from kdtool.structure.size import measure
from kdtool.teacher_cache import FrozenTeacher
from kdtool.training import Loop
from kdtool_distillers.kd import KD

ROUNDS = 5


def epoch(student, teacher, data, training, engine):
    loop = Loop(
        student.module, name="bench", data=data, training=training, engine=engine, loss=KD().loss, store=Nowhere(),
        teacher=teacher,
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
        images = len(data.train)
        about = {"images": images, "classes": 10}
        cached = FrozenTeacher(big.module, "teacher", Path(scratch), engine, views=1, **about)
        every_step = FrozenTeacher(big.module, "teacher", Path(scratch), engine, views=0, **about)
        epoch(student, cached, data, training, engine)  # fills the cache
        ratios = []
        for _ in range(ROUNDS):
            ratios.append(
                epoch(student, every_step, data, training, engine) / epoch(student, cached, data, training, engine)
            )
    print(f"resnet34 teaches resnet18 in {engine.precision}: every step / cached = {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
