"""An exponential moving average of the weights of a network in training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """The average a <- d a + (1 - d) w of all parameters and statistics w after each step (Polyak and Juditsky, 1992).

    The decay d of step t is min(decay, (1 + t) / (10 + t)), so that the first steps, which are far from all later
    ones, are soon forgotten. Whole numbers, such as the counts of batch-norms, are those of the last step.
    """

    def __init__(self, modules: Iterable[nn.Module], decay: float) -> None:
        """Begin with the present weights of ``modules``, which lie on their device."""
        self.decay, self.steps = decay, 0
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        self.tensors = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
        self.averages = [tensor.clone() for tensor in self.tensors]

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after a step into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        if self.tensors:
            torch._foreach_lerp_(self.averages, self.tensors, 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the modules while the block runs."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for tensor, average in zip(self.tensors, self.averages, strict=True):
            before = tensor.clone()
            tensor.copy_(average)
            average.copy_(before)

    def state(self) -> dict[str, Any]:
        """Return the averages and the number of steps."""
        return {"steps": self.steps, "averages": [average.clone() for average in self.averages]}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
        self.steps = state["steps"]
        for average, saved in zip(self.averages, state["averages"], strict=True):
            average.copy_(saved)
