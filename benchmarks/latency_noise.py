"""How far the same latency ratio spreads when it is measured again, on a machine as it is and on a busy one.

The paired ratio of thread-CPU times beside the ratio of two wall medians that were taken apart, one network after the
other, as is often done. Prints (largest - smallest) / median of each.
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
    total = 0
    while True:
        total += 1


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def rounds(student, teacher):
    paired, noises, apart = [], [], []
    for _ in range(ROUNDS):
        found = measure_latency(student, teacher)
        paired.append(found["ratio"])
        noises.append(found["noise"])
        alone = [measure_latency(model)["student"]["p50_ms"] for model in (student, teacher)]
        apart.append(alone[0] / alone[1])
    ratio, noise = statistics.median(paired), statistics.median(noises)
    return f"ratio {ratio:.3f}  spread: paired {spread(paired):.1%}, apart {spread(apart):.1%}  A/A noise {noise:.1%}"


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
            told = f"{student} / {teacher}, {'busy' if busy else 'as it is'}:"
            print(f"{told:68} {rounds(files[student], files[teacher])}", flush=True)
            for burner in burners:
                burner.terminate()
                burner.join()


if __name__ == "__main__":
    main()
