"""Threads that wait in a busy loop for a moment, with threads that sleep at once and with torch's default.

Each way is a process of its own that takes steps with a ResNet-18 on images of 32 pixels, with two threads. The ways
take turns, with nothing else on the machine and, with --busy, with a program that keeps one core busy. Prints the
milliseconds of a step and the ratios to the way in which the command line waits.
"""

import argparse
import os
import statistics
import subprocess
import sys

from kdtool.cli.process import ROUNDS_OF_WAITING

WAYS = {
    "for a moment": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": ROUNDS_OF_WAITING},
    "sleeping": {"OMP_WAIT_POLICY": "passive"},
    "torch's default": {},
}

STEPS = """
import statistics, time, torch, torchvision
torch.set_num_threads(2)
network = torchvision.models.resnet18(num_classes=10).to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(network.parameters(), 0.05, fused=True)
images, labels = torch.randn(64, 3, 32, 32).to(memory_format=torch.channels_last), torch.randint(10, (64,))
times = []
for _ in range(60):
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(network(images).float(), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    times.append(time.perf_counter() - started)
print(statistics.median(times[10:]))
"""


def seconds(variables):
    """Return the median of the seconds of a step in a process with these variables."""
    kept = {name: value for name, value in os.environ.items() if name not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}}
    words = [sys.executable, "-c", STEPS]
    return float(subprocess.run(words, env={**kept, **variables}, capture_output=True, text=True, check=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="with a program that keeps one core busy")
    chosen = parser.parse_args()
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if chosen.busy else None
    try:
        times = {way: [] for way in WAYS}
        for _ in range(chosen.rounds):
            for way, variables in WAYS.items():
                times[way].append(seconds(variables))
    finally:
        if other:
            other.kill()
    first = times["for a moment"]
    for way, values in times.items():
        ratio = statistics.median(value / one for value, one in zip(values, first, strict=True))
        print(
            f"{way}: {1000 * statistics.median(values):.1f} ms a step, {ratio:.2f} of waiting for a moment", flush=True
        )


if __name__ == "__main__":
    main()
