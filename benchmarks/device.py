"""What the training loop reaches of the bare step's throughput on an accelerator, with its input.

Both train the same network in the device's own precision, in turn: the bare step on batches that lie on the device
already, the loop as ``kdtool teacher`` runs it, which also reads, augments, normalises, copies, schedules and looks at
the loss. ResNet-18 with the small stem at 32 pixels, ResNet-50 at 224 pixels from JPEG files of 256 pixels, and
ResNet-20, whose step waits for the launch of its kernels. Prints the images a second of both and the median of the
paired ratios. Goal: at least 0.9 for the first two.

``--compile`` compiles both; ``--only NAME`` takes one network; ``--cuda-graphs auto`` shows what those bring, and
``--layout contiguous`` and ``--cudnn-benchmark`` whether slow kernels were chosen. ``--profile`` prints what the device
does in one epoch of the loop instead, and how much of the time it has nothing to do.
"""

import argparse
import copy
import dataclasses
import io
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from loop_overhead import Nowhere
from PIL import Image
from torch.nn import functional as F

from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.batches import DistillationBatches, kept_on
from kdtool.training.engine import engine_for
from kdtool.training.loop import Loop
from kdtool.training.optimization.optimizer import make_optimizer
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan

CASES = {
    "resnet18": ("torchvision:resnet18", "small", 32, 256, 20_000),
    "resnet50": ("torchvision:resnet50", "default", 224, 128, 6_400),
    "resnet20": ("kdtool:resnet20", "default", 32, 128, 20_000),
}
"""Specification, stem, pixels, batch, images."""

CLASSES = 10
FILES = 200
"""The pictures that differ; the others are copies of them, since only the work of reading them counts."""


def write_images(folder: Path, pixels: int, images: int) -> None:
    """Write smooth random JPEG pictures, which are about as large as photos of that size."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(FILES, 3, 24, 24, generator=generator)
    for split, count in (("train", images), ("val", CLASSES)):
        for number in range(count):
            into = folder / split / f"class{number % CLASSES}"
            into.mkdir(parents=True, exist_ok=True)
            if number < FILES:
                picture = F.interpolate(coarse[number, None], size=pixels, mode="bicubic")[0].clamp(0, 1)
                content = io.BytesIO()
                as_bytes = (picture.permute(1, 2, 0) * 255).byte().numpy()
                Image.fromarray(as_bytes).save(content, "JPEG", quality=90)
                data = content.getvalue()
                kept = folder / f"{number}.bytes"
                if split == "train":
                    kept.write_bytes(data)
            else:
                data = (folder / f"{number % FILES}.bytes").read_bytes()
            (into / f"{number}.jpg").write_bytes(data)


def wait(device: torch.device) -> None:
    """Wait until a device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare(network, engine, training, batches, steps: int, *, compiled: bool) -> float:
    """Return the images a second of forward, backward and step on batches that lie on the device."""
    module = engine.place(copy.deepcopy(network.module)).train()
    forward = torch.compile(module) if compiled else module
    optimizer = make_optimizer(list(module.parameters()), training)
    started = 0.0
    for number, (images, target) in enumerate(itertools.islice(itertools.cycle(batches), steps + 10)):
        if number == 10:
            wait(engine.device)
            started = time.perf_counter()
        with engine.autocast():
            output = forward(images)
        F.cross_entropy(output.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()
    wait(engine.device)
    return steps * training.batch_size / (time.perf_counter() - started)


class Timed(Loop):
    """The loop, with the seconds of each epoch's steps alone."""

    def _train_epoch(self, replica, advance):
        wait(self.engine.device)
        started = time.perf_counter()
        loss = super()._train_epoch(replica, advance)
        wait(self.engine.device)
        self.seconds.append(time.perf_counter() - started)
        return loss


def looped(network, engine, training, data) -> float:
    """Return the images a second of the steps of the loop, the first epoch left out."""
    module = copy.deepcopy(network.module)
    plan = FitPlan("bench", network, None, None, None, None, training)
    split = kept_on(data.train, engine.device, training.images_on)
    loop = Timed(
        plan.student_module(module),
        plan,
        DistillationBatches(split, engine),
        DistillationBatches(data.val, engine),
        engine,
        Nowhere(),
    )
    loop.seconds = []
    loop.run()
    return len(split) / statistics.median(loop.seconds[1:])


def profiled(network, engine, training, data) -> str:
    """Return a table of the kernels of one epoch of the loop, and which part of the time the device computed."""
    looped(network, engine, dataclasses.replace(training, epochs=2), data)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if engine.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    started = time.perf_counter()
    with torch.profiler.profile(activities=kinds) as profile:
        looped(network, engine, dataclasses.replace(training, epochs=2), data)
    seconds, rows = time.perf_counter() - started, profile.key_averages()
    busy = sum(row.self_device_time_total for row in rows) / 1e6
    order = "self_device_time_total" if busy else "self_cpu_time_total"
    table = rows.table(sort_by=order, row_limit=20, max_name_column_width=50)
    return f"the device computed for {busy:.1f} of {seconds:.1f} s\n{table}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cuda-graphs", choices=("auto", "off"), default="off")
    parser.add_argument("--layout", choices=("channels-last", "contiguous"), default="channels-last")
    parser.add_argument("--cudnn-benchmark", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--part", type=float, default=1.0, help="of the images")
    chosen = parser.parse_args()
    if chosen.device == "auto" and not torch.cuda.is_available():
        print("nothing measured: there is no CUDA device (--device cpu: on the CPU)")
        return
    torch.backends.cudnn.benchmark = chosen.cudnn_benchmark
    for name in [chosen.only] if chosen.only else CASES:
        spec, stem, size, batch, images = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder), round(size * 8 / 7) if size > 32 else size, int(images * chosen.part))
            data = open_data(DataOptions(data=f"folder:{folder}"), image_size=size)
            training = Training(
                epochs=chosen.epochs,
                batch_size=batch,
                device=chosen.device,
                optimizer="sgd",
                lr=0.01,
                compile=chosen.compile,
                cuda_graphs=chosen.cuda_graphs,
            )
            network = create(spec, options=NetworkOptions(stem=stem), data=data)
            engine = engine_for(training, batch, network)
            engine.channels_last &= chosen.layout == "channels-last"
            if chosen.profile:
                print(f"{name}: {profiled(network, engine, training, data)}")
                continue
            pieces = data.train.batches(
                batch,
                order=torch.arange(min(8 * batch, len(data.train) // batch * batch)),
                view=0,
                device=engine.device,
                channels_last=engine.channels_last,
            )
            batches = [(pixels, target) for _, pixels, target in pieces]
            steps, rows = len(data.train) // batch, []
            for _ in range(chosen.rounds):
                ours = looped(network, engine, training, data)
                rows.append((ours, bare(network, engine, training, batches, steps, compiled=chosen.compile)))
            ratio = statistics.median(ours / plain for ours, plain in rows)
            loop, plain = (statistics.median(column) for column in zip(*rows, strict=True))
            print(
                f"{name:10} {engine.device.type} {engine.precision}{'  compiled' if chosen.compile else ''}  "
                f"loop {loop:,.0f} images/s, bare step {plain:,.0f}; loop / bare = {ratio:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
