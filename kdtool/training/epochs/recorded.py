"""The forward and backward pass of a phase's steps, recorded anew in each epoch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kdtool.training.recording.graph import Copies, NotRecordedError, Recording, form, unknown_code
from kdtool.utils.processes import count
from kdtool.utils.progress import say_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdtool.training.batches import Batch
    from kdtool.training.epochs.learner import Learner
    from kdtool.training.step import Step

# The first steps of an epoch run as they are: layers are set up in them, and memory is taken.
BEFORE = 2

# An epoch of fewer steps is not worth a recording, which costs about two steps.
FEWEST = 8


@dataclass(frozen=True)
class _Recorded:
    """A step that was recorded: the batch that it reads, and what it leaves."""

    inputs: Copies
    form: tuple[Any, ...]
    recording: Recording[Tensor]
    step: Step
    gradients: list[tuple[nn.Parameter, Tensor]]


class RecordedSteps:
    """Runs a learner forward and backward from a recording.

    A loss may depend on the epoch, but on nothing else that Python computes from step to step; so each epoch has a
    recording of its own, and `unsuited` names what may depend on more.
    """

    def __init__(self, learner: Learner, passes: Sequence[Sequence[Any]]) -> None:
        """Prepare to record a step of ``learner``; ``passes`` are those of each step of an epoch."""
        self.learner = learner
        self.recorded: _Recorded | None = None
        self.taken, self.epoch = 0, 0
        self.wanted = learner.engine.records
        reason = unsuited(learner, passes) if self.wanted else None
        if reason is not None:
            self._give_up(reason)

    def begin(self, epoch: int) -> None:
        """Begin an epoch; epochs count from 0."""
        self.recorded, self.epoch, self.taken = None, epoch, 0

    def run(self, batch: Batch) -> Tensor | None:
        """Run a batch forward and backward, and return its loss, a scalar without a graph.

        None: the batch has not been run, since it has another form, or nothing is recorded yet.
        """
        if not self.wanted:
            return None
        self.taken += 1
        if self.taken <= BEFORE:
            return None
        if self.recorded is None:
            try:
                self.recorded = self._record(batch)
            except NotRecordedError as error:
                self._give_up(str(error))
                return None
        recorded, tensors = self.recorded, _tensors(batch)
        if form(tensors) != recorded.form:
            return None
        recorded.inputs.take(tensors)
        loss = recorded.recording.replay()
        for weight, gradient in recorded.gradients:
            weight.grad = gradient
        self.learner.seen = dataclasses.replace(recorded.step, indices=batch.indices)
        return loss

    def _record(self, batch: Batch) -> _Recorded:
        """Record the step on a batch of this form.

        Raises:
            NotRecordedError: that is not possible.
        """
        learner, inputs = self.learner, Copies(_tensors(batch))
        learner.seen = None  # its graph belongs to another stream
        own = _with(batch, inputs.tensors)

        def step() -> Tensor:
            loss: Tensor = learner(own, self.epoch, None)
            learner.engine.backward(loss)
            return loss.detach()

        weights = learner.student.parameters()
        try:
            recording = Recording(step, learner.engine.device)
            gradients = [(weight, weight.grad) for weight in weights if weight.grad is not None]
        finally:
            for weight in weights:
                weight.grad = None
        assert learner.seen is not None
        return _Recorded(inputs, form(_tensors(batch)), recording, learner.seen, gradients)

    def _give_up(self, reason: str) -> None:
        """Run all steps as they are from here on."""
        self.wanted, self.recorded = False, None
        if self.learner.engine.records_all:
            say_once(f"--cuda-graphs on: {reason}; {self.learner.plan.name} runs without them")


class _Unseen:
    """Stands for the places of the images in their split, which are not on the device: no recorded step reads them."""

    def __getattr__(self, name: str) -> Any:
        raise NotRecordedError("the loss reads the places of the images")


def _tensors(batch: Batch) -> list[Tensor]:
    """Return the tensors of a batch that are not empty, as the teacher's logits are where no loss reads them."""
    parts = [] if batch.parts is None else [batch.parts]
    return [tensor for tensor in (batch.inputs, batch.target, batch.teacher, *batch.maps, *parts) if len(tensor)]


def _with(batch: Batch, tensors: Sequence[Tensor]) -> Batch:
    """Return a batch with ``tensors`` in the place of those that `_tensors` returns of it."""
    left = iter(tensors)

    def other(tensor: Tensor) -> Tensor:
        return next(left) if len(tensor) else tensor

    return dataclasses.replace(
        batch,
        indices=_Unseen(),  # type: ignore[arg-type]
        inputs=other(batch.inputs),
        target=other(batch.target),
        teacher=other(batch.teacher),
        maps=[other(rows) for rows in batch.maps],
        parts=None if batch.parts is None else other(batch.parts),
    )


def unsuited(learner: Learner, passes: Sequence[Sequence[Any]]) -> str | None:
    """Return why the steps of a phase are not recorded; None if they can be, as far as is known beforehand."""
    training, student = learner.plan.training, learner.student
    if count() > 1:
        return "several processes exchange gradients in each step"
    if training.accumulate > 1:
        return "a step has several passes"
    if learner.engine.scaler is not None:
        return "the loss of fp16 is scaled anew in each step"
    if training.checkpoint_activations:
        return "activations are computed again in the backward pass"
    if len(passes) < FEWEST:
        return f"an epoch has fewer than {FEWEST} steps"
    if learner.unlabelled:
        return "some images have no label"
    acting = next((callback for callback in learner.callbacks if not callback.recordable), None)
    if acting is not None:
        return f"{type(acting).__name__} may change the step"
    modules = (student.module, student.adapters, student.auxiliary.module)
    code = None if learner.engine.records_all else unknown_code(modules, learner.plan.objective)
    if code is not None:
        return f"{code} is not known to do the same in every step"
    return None
