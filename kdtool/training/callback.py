"""The contract of a callback: penalties, constraints and parameters that the optimiser does not move."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.plugins.method_code import MethodError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool.training.step import Step

LOGGED = ("phase", "epoch", "loss", "gradient_ratio", "lr", "threads", "seconds")
"""The names of what the loop logs of an epoch itself, beside those of its validation."""

VALIDATION = "val_"
"""The beginning of the names of what the loop logs of an epoch's validation."""


class Callback:
    """Takes part in one phase; each method does nothing unless it is overridden.

    What a callback does has to follow from the objective, the training options and the student's weights, since a
    resumed phase is recognised by those. In several processes it has to do the same in each of them (see
    `kdtool.utils.decided`). What it remembers belongs in `state`, so that a phase that is killed resumes
    to the same bits.
    """

    keeps_last: ClassVar[bool] = False
    """Whether the phase's result is what its last step left, instead of the epoch that validated best."""
    remedy: ClassVar[str] = ""
    """What a user can do if the loss of the phase is not finite; empty: the loop names --lr and --clip."""
    reads_step: ClassVar[bool] = True
    """Whether `after_step` reads its step; where it does not, nothing has to be put together for it."""
    recordable: ClassVar[bool] = False
    """Whether the forward and backward pass of a step may be recorded in one step of an epoch and replayed in the
    others: there is no `penalty`, and a weight is changed in place alone."""
    over: bool = False
    """Set to True to end the phase after the current step or epoch."""

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Prepare for a module that lies on its device, and for ``epochs`` epochs of ``steps`` steps each."""

    def parameters(self, module: nn.Module) -> list[nn.Parameter]:
        """Return the parameters that this callback moves itself; the optimiser leaves them alone."""
        return []

    def penalty(self, module: nn.Module) -> Tensor | None:
        """Return a scalar tensor that is added to the loss of the step; None for no penalty."""
        return None

    def before_step(self, module: nn.Module) -> None:
        """Act on the gradients of the whole batch, before they are clipped and the optimiser uses them."""

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Act after a step of the optimiser; the gradients of `parameters` are still there and have to be cleared.

        Where several processes or passes share a batch, ``student``, ``teacher``, ``target``, ``indices`` and ``parts``
        of ``step`` are those of the whole batch; the other fields are those of the last pass of this process.
        """

    def after_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Act after ``epoch`` epochs, before the validation, and return numbers for the epoch's log by their names.

        Names that the log has already, such as ``loss``, ``lr`` and all that begin with ``val_``, are refused.
        """
        return {}

    def result(self, module: nn.Module) -> nn.Module:
        """Return the module in a form that a checkpoint can hold, where a phase has to be given up."""
        return module

    def state(self) -> dict[str, Any]:
        """Return all that the callback remembers, as tensors and plain data."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned; of a finished phase this is called without `begin`."""


def logged_by(callback: Callback, module: nn.Module, epoch: int) -> dict[str, Any]:
    """Return what a callback has for the log after ``epoch`` epochs, with numbers in place of tensors of one number.

    Raises:
        MethodError: it has something else than numbers and texts, or names that the loop uses itself.
    """
    values, what = callback.after_epoch(module, epoch), f"{type(callback).__name__}.after_epoch() returned"
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise MethodError(f"{what} {type(values).__name__}, not numbers by their names; return {{}} for none")
    if taken := [name for name in values if name in LOGGED or name.startswith(VALIDATION)]:
        raise MethodError(f"{what} {', '.join(taken)}, which kdtool logs itself; choose other names")
    # As torch and numpy have them.
    plain = {name: value.item() if getattr(value, "ndim", None) == 0 else value for name, value in values.items()}
    for name, value in plain.items():
        if not isinstance(value, str | int | float | None):
            raise MethodError(f"{what} {type(value).__name__} as {name}; the log takes numbers and texts")
    return plain


class KeepEpoch(Callback):
    """Keep a copy of the weights as they were after one epoch (0: before the first step)."""

    recordable: ClassVar[bool] = True

    def __init__(self, epoch: int) -> None:
        """Keep the weights after ``epoch`` epochs."""
        self.epoch = epoch
        self.weights: dict[str, Tensor] = {}
        """The weights by name; empty until that epoch is over."""

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Keep the initial weights, if those were asked for."""
        if self.epoch == 0:
            self.weights = copy.deepcopy(module.state_dict())

    def after_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Keep the weights, if this is the epoch."""
        if epoch == self.epoch:
            self.weights = copy.deepcopy(module.state_dict())
        return {}

    def state(self) -> dict[str, Any]:
        """Return the kept weights."""
        return {"weights": self.weights}

    def load(self, state: dict[str, Any]) -> None:
        """Take over the kept weights."""
        self.weights = state["weights"]
