"""The updates of a phase: everything that changes or follows the weights in a step, with what it remembers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import inf
from typing import Any

from torch import nn

from kdtool.training.engine import Engine
from kdtool.training.optimization.averaging import WeightAverage
from kdtool.training.optimization.clipping import Clipping
from kdtool.training.optimization.memory_order import in_memory_order, put_in_order
from kdtool.training.optimization.optimizer import make_optimizer, make_schedule
from kdtool.training.optimization.parameter_groups import parameter_groups
from kdtool.training.options import Training
from kdtool.training.student import StudentModule
from kdtool.utils.uncompiled import optimizing


class Updates:
    """The optimiser, the schedule of its rate, the clipping of the gradient and the average of the weights."""

    def __init__(
        self,
        student: StudentModule,
        learnt: list[nn.Parameter],
        training: Training,
        engine: Engine,
        steps: int,
        *,
        averaged: bool,
    ) -> None:
        """Prepare for ``steps`` steps in each epoch that move the parameters ``learnt``.

        The weights are averaged if the training says so and ``averaged`` is set.
        """
        self.student, self.engine = student, engine
        with optimizing():
            self.optimizer = make_optimizer(parameter_groups(learnt, student.module, training), training)
        self.schedule = make_schedule(self.optimizer, training, steps)
        self.clipped: list[tuple[Clipping, list[nn.Parameter]]] = []
        if training.clip is not None and training.clip.norm != inf:
            self.clipped = [(Clipping(training.clip), parameters) for parameters in student.independent()]
        self.average: WeightAverage | None = None
        if averaged and training.ema is not None:
            self.average = WeightAverage(student.learners(), training.ema)

    @property
    def rate(self) -> float:
        """The learning rate of the next step, of the parameters that learn fastest."""
        return float(max(self.schedule.get_last_lr()))

    def step(self) -> None:
        """Move the parameters down their gradients, and clear these."""
        with in_memory_order(self.optimizer):
            self.engine.step(self.optimizer, self._clip if self.clipped else None)
        self.schedule.step()

    def _clip(self) -> None:
        for clipping, parameters in self.clipped:
            clipping(parameters)

    def end_step(self) -> None:
        """Take the weights into the average, after callbacks have changed them too."""
        if self.average is not None:
            self.average.update()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[bool]:
        """Put the averages into the student while the block runs; the value is whether there are any."""
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            yield self.average is not None

    def state(self) -> dict[str, Any]:
        """Return all that is remembered from step to step."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.engine.state(),
            "clipping": [clipping.state() for clipping, _ in self.clipped],
            "average": {} if self.average is None else self.average.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        put_in_order(self.optimizer)
        self.schedule.load_state_dict(state["schedule"])
        self.engine.load(state["scaler"])
        saved = state["clipping"]
        # A run of an older release has one state for all networks.
        states = saved if isinstance(saved, list) else [saved] * len(self.clipped)
        for (clipping, _), own in zip(self.clipped, states, strict=True):
            clipping.load(own)
        if self.average is not None:
            self.average.load(state["average"])
