"""How far a phase has come, as its state file holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class State:
    """How far a phase has come, and the best epoch of it so far."""

    epoch: int = 0
    best_epoch: int = -1
    best: dict[str, Any] = field(default_factory=dict)
    """The validation metrics of the best epoch."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_auxiliary: dict[str, Tensor] = field(default_factory=dict)

    def better(self, metrics: dict[str, Any], measure: str = "accuracy") -> bool:
        """Return whether an epoch is better than all before: by ``measure``, then by the loss where that is equal or
        not measured."""
        if not self.best:
            return True
        now = (metrics.get(measure, 0.0), -metrics["loss"])
        return now > (self.best.get(measure, 0.0), -self.best["loss"])
