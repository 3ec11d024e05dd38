"""Recorded forward passes of a frozen network, one for each form of its input that comes often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from kdtool.training.recording.graph import Copies, NotRecordedError, Recording, form
from kdtool.utils.progress import say_once

# So many calls of one form run as they are, since the first ones set layers up; and so many forms are recorded.
BEFORE, MOST = 2, 4

Outputs = tuple[Tensor, dict[str, Tensor]]
Forward = Callable[[Tensor], Outputs]


class RecordedForward:
    """Runs a function of one tensor, without gradient, from recordings of it."""

    def __init__(self, device: torch.device, *, wanted: bool = False) -> None:
        """Record on ``device``; if recordings are ``wanted``, a network that cannot be recorded is reported."""
        self.device, self.wanted, self.usable = device, wanted, True
        self.calls: Counter[Hashable] = Counter()
        self.recordings: dict[Hashable, tuple[Copies, Recording[Outputs]]] = {}
        self.pool: Any = None

    def __call__(self, what: Hashable, forward: Forward, x: Tensor) -> Outputs:
        """Return ``forward(x)``; ``what`` tells functions apart.

        The outputs are copies, which the next call leaves alone.
        """
        key = (what, form([x]))
        if key not in self.recordings and not self._record(key, forward, x):
            return forward(x)
        inputs, recording = self.recordings[key]
        inputs.take([x])
        output, maps = recording.replay()
        return output.clone(), {name: rows.clone() for name, rows in maps.items()}

    def _record(self, key: Hashable, forward: Forward, x: Tensor) -> bool:
        """Record the function if its time has come, and return whether it is recorded."""
        self.calls[key] += 1
        if not self.usable or self.calls[key] <= BEFORE or len(self.recordings) == MOST:
            return False
        inputs = Copies([x])
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        try:
            recording = Recording(lambda: forward(inputs.tensors[0]), self.device, self.pool)
        except NotRecordedError as error:
            self.usable = False
            if self.wanted:
                say_once(f"--cuda-graphs on: {error}; a frozen network runs without them")
            return False
        self.recordings[key] = inputs, recording
        return True
