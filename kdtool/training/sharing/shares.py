"""Which images of each step a process takes, in how many passes, and how much each pass counts.

The processes of one training share every batch of the order that one process would follow, so that the mean over the
batch, and with it each step, is the same for any number of processes and passes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from kdtool.errors import UsageError
from kdtool.utils import processes

# Losses that compare the images of a batch, and the statistics of batch-norm, need two of them.
FEWEST = 2


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of this process: the places ``start`` to ``stop`` in the order of the epoch.

    ``weight`` is how much its mean loss counts in that of the step; the weights of all passes of all processes add up
    to 1.
    """

    start: int
    stop: int
    weight: float


def even(start: int, stop: int, parts: int) -> list[tuple[int, int]]:
    """Return the bounds of ``parts`` ranges next to each other, whose sizes differ by at most 1; larger ones first."""
    size, larger = divmod(stop - start, parts)
    edges = itertools.accumulate((size + (number < larger) for number in range(parts)), initial=start)
    return list(itertools.pairwise(edges))


def shares(images: int, batch_size: int, accumulate: int, rank: int, count: int) -> list[list[Pass]]:
    """Return the passes of process ``rank`` of ``count`` in each step of an epoch of ``images`` images.

    A step takes ``batch_size`` images in ``accumulate`` passes, as many as are left at the end of an epoch, then in
    fewer passes. Where so few images are left for a pass that a process would get less than `FEWEST`, every process
    takes all of them, and counts for its part.
    """
    steps = []
    for start in range(0, images, batch_size):
        stop = min(start + batch_size, images)
        left = stop - start
        passes = min(math.ceil(left * accumulate / batch_size), max(left // (FEWEST * count), 1))
        step = []
        for begin, end in even(start, stop, passes):
            if count > 1 and end - begin >= FEWEST * count:
                own = even(begin, end, count)[rank]
                step.append(Pass(*own, (own[1] - own[0]) / left))
            else:
                step.append(Pass(begin, end, (end - begin) / left / count))
        steps.append(step)
    return steps


def check_shares(batch_size: int, accumulate: int) -> None:
    """Check that a batch can be shared by the processes and passes.

    Raises:
        UsageError: it cannot.
    """
    if batch_size % accumulate:
        raise UsageError(
            f"--accumulate {accumulate}: does not divide --batch-size {batch_size}, the images of a whole step"
        )
    count, size = processes.count(), batch_size // accumulate
    least = FEWEST * count
    if size >= least or (size >= 1 and count == accumulate == 1):
        return
    whole = f"--batch-size {batch_size}" + (f" in {accumulate} passes" if accumulate > 1 else "")
    among = f"{count} processes need {least} images in each pass" if count > 1 else f"a pass needs {FEWEST} images"
    raise UsageError(f"{whole}: {among}, {FEWEST} each; give a larger --batch-size, which counts all processes")


def spans(images: int, batch_size: int) -> tuple[int, list[int]]:
    """Return the first of the images, in their order, that this process measures, and the sizes of its batches.

    All processes have equally many batches. Where there are too few images to share (`is_shared`), each process
    measures all of them.
    """
    if not is_shared(images):
        whole = [batch_size] * (images // batch_size)
        return 0, whole + [images % batch_size] * (images % batch_size > 0)
    parts = even(0, images, processes.count())
    batches = math.ceil((parts[0][1] - parts[0][0]) / batch_size)
    start, stop = parts[processes.rank()]
    return start, [end - begin for begin, end in even(start, stop, batches)]


def is_shared(images: int) -> bool:
    """Return whether the processes share so many images that are only measured."""
    return processes.count() > 1 and FEWEST * processes.count() <= images
