"""What iterative distillation with 4 iterations costs, beside the training of its largest student alone.

Both distil the same teacher, a ResNet-18 with the small stem on random images of 32 pixels, whose widths are halved
once and up to four times. Prints the median of the paired ratios of the time on the clock and of CPU time; what both do
before and after the training counts. Goal: at most 2.

``--images 256 --epochs 1 --rounds 1`` is a quick look.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from processes import make_images

import kdtool
from kdtool.utils.verbosity import QUIET, verbosity


def cost(teacher: Path, output: Path, method: str, **options) -> tuple[float, float]:
    """Distil, and return the seconds on the clock and those of CPU time.

    Those of the history would leave out what comes before and after the method: of a single student its halving and its
    evaluation, which are a part of `ikd`.
    """
    started, computed = time.perf_counter(), time.process_time()
    with verbosity(QUIET):
        kdtool.distill(teacher, method, output=output, force=True, batch_size=64, device="cpu", **options)
    return time.perf_counter() - started, time.process_time() - computed


def main() -> None:
    """Measure in turns, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    clock, cpu = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_images(folder / "images", options.images)
        data = f"folder:{folder / 'images'}"
        made = {"data": data, "image_size": 32, "stem": "small", "epochs": 0}
        kdtool.teacher("torchvision:resnet18", output=folder / "teacher.pt", **made)
        for number in range(options.rounds):
            kinds = {
                "one": ("kd", {"refiner": "halve"}),
                "all": ("ikd", {"iters": 4, "refiner": "halve"}),
            }
            order = list(kinds) if number % 2 == 0 else list(kinds)[::-1]
            costs = {}
            for kind in order:
                method, own = kinds[kind]
                output = folder / f"{kind}.pt"
                costs[kind] = cost(folder / "teacher.pt", output, method, epochs=options.epochs, **own)
            clock.append(costs["all"][0] / costs["one"][0])
            cpu.append(costs["all"][1] / costs["one"][1])
            seconds = ", ".join(f"{kind} {costs[kind][0]:.1f} s" for kind in kinds)
            print(f"round {number + 1}: {seconds}; ratio {clock[-1]:.2f}, of CPU time {cpu[-1]:.2f}", flush=True)
    print(
        f"median ratio of 4 iterations to one student: {statistics.median(clock):.2f}, of CPU time "
        f"{statistics.median(cpu):.2f}"
    )


if __name__ == "__main__":
    main()
