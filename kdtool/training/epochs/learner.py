"""Everything that learns in a phase as one module, from a batch to its loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.plugins.method_code import misreturned
from kdtool.training.step import Step
from kdtool.utils.processes import gathered

if TYPE_CHECKING:
    from kdtool.training.batches import Batch
    from kdtool.training.callback import Callback
    from kdtool.training.engine import Engine
    from kdtool.training.plan import FitPlan
    from kdtool.training.student import StudentModule


class Learner(nn.Module):
    """The student, its adapters and its auxiliary networks.

    The loss is computed inside, so that what several processes exchange (see `kdtool.training.sharing.replicas`) are
    the gradients of the parameters that the loss depends on, and no others.
    """

    def __init__(
        self,
        student: StudentModule,
        plan: FitPlan,
        engine: Engine,
        callbacks: Sequence[Callback],
        *,
        unlabelled: bool = False,
        class_weights: Tensor | None = None,
    ) -> None:
        """Join the parts of ``student``, which lie on their device; ``unlabelled`` says that labels may be missing.

        ``class_weights`` [classes] are those of the labels' cross-entropy (see `Step.cross_entropy`).
        """
        super().__init__()
        self.parts = nn.ModuleList([student.module, student.adapters, student.auxiliary.module])
        self.student, self.plan, self.engine, self.callbacks = student, plan, engine, callbacks
        self.unlabelled = unlabelled
        self.class_weights = None if class_weights is None else class_weights.to(engine.device)
        self.classifier = None if plan.classifier is None else plan.classifier.to(engine.device)
        self.seen: Step | None = None
        """The last batch, as the loss saw it."""

    def forward(self, batch: Batch, epoch: int, known: float | None = None) -> Tensor:
        """Return the loss of a batch with the penalties of the callbacks, a scalar tensor; see `Step.known`."""
        self.seen = self.step(batch, epoch, known)
        loss = self.plan.loss(self.seen)
        for callback in self.callbacks:
            penalty = callback.penalty(self.student.module)
            loss = loss if penalty is None else loss + penalty
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise misreturned(self.plan.objective, "a loss that does not depend on the student's outputs")
        return loss

    def step(self, batch: Batch, epoch: int, known: float | None = None) -> Step:
        """Return a batch as a loss sees it."""
        training = self.plan.training
        with self.engine.autocast():
            student, maps, auxiliary = self.student(batch.inputs)
        return Step(
            self._logits(student),
            batch.target,
            batch.inputs,
            batch.teacher,
            epoch,
            training.epochs,
            training.label_smoothing,
            self.student.compare(maps, batch.maps),
            [pair.owner for pair in self.student.pairs],
            [self._logits(output, "a network that learns with ") for output in auxiliary],
            self.unlabelled,
            self.classifier,
            batch.indices,
            batch.parts,
            known,
            self.class_weights,
        )

    def _logits(self, output: Any, which: str = "") -> Tensor:
        """Return the output of a network in float32; in an error ``which`` stands before the student's name."""
        if not isinstance(output, Tensor):
            raise Error(
                f"{which}{self.plan.student.architecture.spec}: returns a {type(output).__name__} in train mode; name "
                "a subclass of it whose forward returns the logits alone"
            )
        return output.float()


def without_graph(step: Step) -> Step:
    """Return a step with what `whole_step` takes of it alone, so that the memory of the rest is free."""
    return dataclasses.replace(
        step, student=step.student.detach(), images=step.images[:0], maps=(), auxiliary=(), owners=()
    )


def whole_step(steps: Sequence[Step]) -> Step:
    """Return the step that the passes of all processes make up, without gradient.

    ``student``, ``teacher``, ``target``, ``indices`` and ``parts`` are those of all images of the step; the other
    fields are those of the last pass of this process.
    """
    joined: dict[str, Any] = {}
    for name in ("student", "teacher", "target", "indices", "parts"):
        parts = [value.detach() for step in steps if (value := getattr(step, name)) is not None]
        if parts:
            joined[name] = gathered(torch.cat(parts))
    return dataclasses.replace(steps[-1], **joined)
