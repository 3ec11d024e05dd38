"""Checks of the loss of a distiller."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from kdtool.data.raw import UNLABELLED
from kdtool.distillation.distiller import LossDistiller
from kdtool.testing.require import failing, require
from kdtool.testing.samples import sample_step
from kdtool.training.step import Step


def check_loss(distiller: LossDistiller, learner: str, *, per_class: int, epoch: int) -> None:
    """Check a loss on a small random batch.

    The batch has ``per_class`` images of each class and comes from a student of the kind ``learner`` (``convnet``
    or ``vit``) in an ``epoch``, of which the first is 0.

    Raises:
        AssertionError: the loss is not a finite scalar, does not train all parameters of the student, changes its
            inputs, trains the teacher, or fails for images without a label.
    """
    name = f"{distiller.name}: a {learner} with {per_class} image{'s' if per_class > 1 else ''} per class"
    name += f", epoch {epoch + 1}"
    with failing(f"{name}: check(), watch() or an adapter fails"):
        step, module = sample_step(distiller, per_class=per_class, epoch=epoch, student=learner)
    inputs = [step.student, step.teacher, step.images, *(tensor for pair in step.maps for tensor in pair)]
    before = [tensor.detach().clone() for tensor in inputs]

    with failing(f"{name}: loss() fails"):
        loss = distiller.loss(step)

    require(isinstance(loss, torch.Tensor) and loss.shape == (), f"{name}: the loss is not a scalar tensor: {loss!r}")
    require(bool(torch.isfinite(loss)), f"{name}: the loss is {loss.item()}")
    require(loss.requires_grad, f"{name}: the loss does not depend on the student")
    with failing(f"{name}: the gradient of the loss fails"):
        loss.backward()
    unchanged = all(torch.equal(*pair) for pair in zip(inputs, before, strict=True))
    require(unchanged, f"{name}: the loss changed its batch in place")
    require(not step.teacher.requires_grad and step.teacher.grad is None, f"{name}: the teacher got a gradient")
    check_gradients(module, name)
    _check_labels(distiller, sample_step(distiller, per_class=per_class, epoch=epoch, student=learner)[0], name)


def _check_labels(distiller: LossDistiller, step: Step, name: str) -> None:
    """Check that the loss is finite for images without a label, unless the distiller needs labels."""
    way_out = "; make needs_labels() return True"
    if not distiller.needs_labels():
        for unlabelled in (1, len(step.target)):
            target = torch.cat([step.target.new_full((unlabelled,), UNLABELLED), step.target[unlabelled:]])
            batch = dataclasses.replace(step, unlabelled=True, target=target)
            with failing(f"{name}: loss() fails for images without a label", way_out):
                loss = distiller.loss(batch)
            scalar = isinstance(loss, torch.Tensor) and loss.shape == ()
            require(scalar, f"{name}: the loss for images without a label is not a scalar tensor: {loss!r}")
            finite = bool(torch.isfinite(loss))
            require(finite, f"{name}: the loss is {loss.item()} for images without a label{way_out}")


def check_gradients(module: nn.Module, name: str) -> None:
    """Check that every parameter of a network has a finite gradient, and that not all gradients are zero."""
    gradients = {key: tensor.grad for key, tensor in module.named_parameters()}
    missing = [key for key, gradient in gradients.items() if gradient is None]
    require(not missing, f"{name}: no gradient reaches {', '.join(missing[:3])} of the student")
    present = [gradient for gradient in gradients.values() if gradient is not None]
    require(all(bool(torch.isfinite(gradient).all()) for gradient in present), f"{name}: a gradient is not finite")
    require(any(bool(gradient.count_nonzero()) for gradient in present), f"{name}: all gradients are zero")
