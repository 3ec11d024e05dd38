"""The spread of a latency ratio over repeated measurements, on an idle machine and on a busy one.

Compares the paired ratio of CPU times that kdtool measures with the usual one: the ratio of two wall-clock medians, one
network measured after the other. Prints (largest - smallest) / median of each.
"""

import multiprocessing
import os
import statistics
import tempfile
from pathlib import Path

from kdtool.exporting.latency import measure_latency
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_exporters.onnx_model import frozen, write

ROUNDS = 5


def burn():
    """Keep one core busy."""
    total = 0
    while True:
        total += 1


def spread(values):
    """Return (largest - smallest) / median."""
    return (max(values) - min(values)) / statistics.median(values)


def rounds(student, teacher):
    """Return the ratio of two ONNX files, and the spread of both kinds of measurement, as text."""
    paired, noises, separate = [], [], []
    for _ in range(ROUNDS):
        latency = measure_latency(student, teacher)
        paired.append(latency["ratio"])
        noises.append(latency["noise"])
        first, second = (measure_latency(model)["student"]["p50_ms"] for model in (student, teacher))
        separate.append(first / second)
    ratio, noise = statistics.median(paired), statistics.median(noises)
    spreads = f"paired {spread(paired):.1%}, separate {spread(separate):.1%}"
    return f"ratio {ratio:.3f}  spread: {spreads}  A/A noise {noise:.1%}"


def main():
    with tempfile.TemporaryDirectory() as scratch:
        files = {}
        for name in ("torchvision:mobilenet_v3_small", "torchvision:resnet18"):
            options = NetworkOptions(classes=10, in_channels=3, image_size=32)
            network = create(name, options=options, data=None)
            files[name] = Path(scratch) / f"{len(files)}.onnx"
            write(frozen(network.module), network.architecture, files[name], opset=18, metadata={})
        student, teacher = files
        for busy in (False, True):
            burners = [multiprocessing.Process(target=burn, daemon=True) for _ in range(busy * (os.cpu_count() or 1))]
            for burner in burners:
                burner.start()
            title = f"{student} / {teacher}, {'busy' if busy else 'as it is'}:"
            print(f"{title:68} {rounds(files[student], files[teacher])}", flush=True)
            for burner in burners:
                burner.terminate()
                burner.join()


if __name__ == "__main__":
    main()
