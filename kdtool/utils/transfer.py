"""Bring batches to the device where a network runs, and ask for its free memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def on_device(batches: Iterable[Tensor], device: str | torch.device) -> Iterator[Tensor]:
    """Yield the tensors of ``batches`` on ``device``, in their order.

    On a CUDA device each is copied from pinned memory, in a stream of its own, while the network still computes with
    the one before: one batch is read ahead. A batch that lies on the device already is not copied.
    """
    target = torch.device(device)
    if target.type != "cuda":
        for batch in batches:
            yield batch.to(target)
        return
    stream = torch.cuda.Stream(target)
    ahead: tuple[Tensor, Any] | None = None
    for batch in batches:
        if batch.is_cuda:
            yield batch.to(target)
            continue
        with torch.cuda.stream(stream):
            copied = batch.pin_memory().to(target, non_blocking=True)
            following = copied, stream.record_event()
        if ahead is not None:
            yield _ready(*ahead, target)
        ahead = following
    if ahead is not None:
        yield _ready(*ahead, target)


def _ready(tensor: Tensor, copied: Any, device: torch.device) -> Tensor:
    """Return a tensor that the present stream of a CUDA device may read, as soon as it is copied."""
    present = torch.cuda.current_stream(device)
    present.wait_event(copied)
    tensor.record_stream(present)  # so that its memory is not given away while this stream reads it
    return tensor


def free_memory(device: torch.device) -> float | None:
    """Return how many bytes of a device's memory are free; None if that is not known.

    On the CPU it is as much as one wants: the images are there already, and are not copied.
    """
    if device.type == "cpu":
        return float("inf")
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps of memory that was given back is free for it too.
    return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
