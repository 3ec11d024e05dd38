"""What a phase measures after an epoch, and how it says that a loss is not a finite number."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from kdtool.training.evaluate import VALIDATION_BATCH, images_for_a_loss, score
from kdtool.training.sharing.replicas import agree_on_statistics
from kdtool.training.sharing.shares import is_shared, spans
from kdtool.utils.processes import gathered, summed

if TYPE_CHECKING:
    from kdtool.training.batches import DistillationBatches
    from kdtool.training.epochs.learner import Learner


@torch.no_grad()
def validate(learner: Learner, val: DistillationBatches, trained: int, epoch: int) -> dict[str, Any]:
    """Return the metrics of the student on the validation split: those that the plan of its phase selects by.

    Several processes share the images; each has the metrics of all of them, every image counted once. ``trained`` is
    the number of images that it is trained on, ``epoch`` counts from 0.
    """
    student, plan = learner.student, learner.plan
    agree_on_statistics(student.learners())
    student.eval()
    if plan.validates == "accuracy":
        start, sizes = spans(len(val), VALIDATION_BATCH)
        order = torch.arange(start, start + sum(sizes))
        logits, labels = [], []
        for batch in val.batches(sizes, order=order):
            with learner.engine.autocast():
                logits.append(student.answer(batch.inputs).float())
            labels.append(batch.target)
        # Copied at the end, since a device would stop at each copy.
        measured = torch.cat(logits).cpu(), torch.cat(labels).cpu()
        if is_shared(len(val)):
            measured = gathered(measured[0]), gathered(measured[1])
        return score(*measured, val.split.name, plan.training.select)
    chosen = images_for_a_loss(len(val), trained)
    if len(chosen) < len(val):  # the rows of the others stay empty: phases that need all images must not read them
        val = dataclasses.replace(val, kept_as=f"{val.split.name}-every-{int(chosen[1])}")
    start, sizes = spans(len(chosen), VALIDATION_BATCH)
    total = 0.0
    for batch in val.batches(sizes, order=chosen[start : start + sum(sizes)]):
        total += float(plan.loss(learner.step(batch, epoch))) * len(batch.indices)
    if is_shared(len(chosen)):
        total = float(summed(torch.tensor(total, dtype=torch.float64)))
    return {"split": val.split.name, "loss": total / len(chosen), "images": len(chosen)}
