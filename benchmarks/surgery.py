"""The cost of halving the widths of a network, in seconds and memory, and the cost of loading a checkpoint.

Each network is halved in a process of its own, on one thread; the seconds are CPU seconds. Goals: at most 2 s for
ResNet-50 and 4 s for ViT-B; at most 3 times the memory of the network; loading a checkpoint takes at most 1.5 times as
long as building the base network and loading its state_dict.
"""

import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
NETWORKS = ("torchvision:resnet50", "torchvision:vit_b_16")


def peak():
    """Return the peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def create(spec, image_size=224):
    """Build a network with 1000 classes."""
    from kdtool.models.options import NetworkOptions
    from kdtool.models.sources import create

    return create(spec, options=NetworkOptions(classes=1000, image_size=image_size), data=None)


def halve(spec, init):
    """Print the seconds for building and for halving a network, its size and the memory that both took, in bytes."""
    import torch
    import torchvision  # noqa: F401

    from kdtool.surgery import halve_widths

    torch.set_num_threads(1)
    # The libraries need memory at their first use, which does not belong to the network.
    halve_widths(create("kdtool:lenet-5", 28), init=init)
    before = peak()
    started = time.process_time()
    network = create(spec)
    built = time.process_time()
    size = sum(tensor.nbytes for tensor in network.module.state_dict().values())
    halve_widths(network, init=init)
    print(json.dumps([built - started, time.process_time() - built, size, peak() - before]))


def load(spec):
    """Return two medians: the times to load a checkpoint and that of the halved network, both divided by the time to
    build the base network and load its state_dict."""
    import torch

    from kdtool.models.architecture import skeleton
    from kdtool.models.checkpoint import Checkpoint, read
    from kdtool.surgery import halve_widths

    torch.set_num_threads(1)
    network = create(spec)
    with tempfile.TemporaryDirectory() as directory:
        file, halved, weights = (Path(directory, name) for name in ("network.pt", "halved.pt", "weights.pt"))
        Checkpoint(network).save(file)
        Checkpoint(halve_widths(network)).save(halved)
        torch.save(network.module.state_dict(), weights)
        ratios = []
        for _ in range(ROUNDS):
            times = [time.process_time()]
            for action in (
                lambda: read(file),
                lambda: read(halved),
                lambda: skeleton(network.architecture).load_state_dict(torch.load(weights, weights_only=True)),
            ):
                action()
                times.append(time.process_time())
            whole, half, plain = (after - before for before, after in itertools.pairwise(times))
            ratios.append((whole / plain, half / plain))
    return [statistics.median(column) for column in zip(*ratios, strict=True)]


def main():
    if len(sys.argv) > 1:
        return halve(*sys.argv[1:])
    for spec in NETWORKS:
        for init in ("fresh", "inherit"):
            command = [sys.executable, __file__, spec, init]
            runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
            build, halve_, size, memory = (statistics.median(column) for column in zip(*runs, strict=True))
            times = f"building {build:.2f} s  halving {halve_:.2f} s"
            print(f"{spec:22} {init:8} {times}  memory / network = {memory / size:.2f}", flush=True)
        whole, half = load(spec)
        ratio = f"{whole:.2f}, of the halved network {half:.2f}"
        print(f"{spec:22} loading a checkpoint / building and loading = {ratio}", flush=True)


if __name__ == "__main__":
    main()
