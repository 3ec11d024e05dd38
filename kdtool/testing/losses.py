"""Checks of a distiller's loss, for `kdtool.testing`."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from kdtool.data.raw import UNLABELLED
from kdtool.distillation.distiller import LossDistiller
from kdtool.testing.require import require
from kdtool.testing.samples import sample_step
from kdtool.training.step import Step


def check_loss(distiller: LossDistiller, learner: str, *, per_class: int, epoch: int) -> None:
    """Check a loss on a small random batch, as a ``learner`` (``convnet``, ``vit``) sees it in an epoch, from 0 on."""
    name = f"{distiller.name}: a {learner} with {per_class} image{'s' if per_class > 1 else ''} per class"
    name += f", epoch {epoch + 1}"
    step, module = sample_step(distiller, per_class=per_class, epoch=epoch, student=learner)
    parts = [step.student, step.teacher, step.images, *(one for both in step.maps for one in both)]
    given = [part.detach().clone() for part in parts]

    loss = distiller.loss(step)

    require(isinstance(loss, torch.Tensor) and loss.shape == (), f"{name}: the loss is no scalar tensor: {loss!r}")
    require(bool(torch.isfinite(loss)), f"{name}: the loss is {loss.item()}")
    require(loss.requires_grad, f"{name}: the loss does not depend on the student")
    loss.backward()
    same = all(torch.equal(one, before) for one, before in zip(parts, given, strict=True))
    require(same, f"{name}: the loss changed its batch in place")
    require(not step.teacher.requires_grad and step.teacher.grad is None, f"{name}: the teacher got a gradient")
    check_gradients(module, name)
    _check_labels(distiller, sample_step(distiller, per_class=per_class, epoch=epoch, student=learner)[0], name)


def _check_labels(distiller: LossDistiller, step: Step, name: str) -> None:
    """Check that images may have no label, unless the distiller says that they need one."""
    if not distiller.needs_labels():
        for unlabelled in (1, len(step.target)):
            target = torch.cat([step.target.new_full((unlabelled,), UNLABELLED), step.target[unlabelled:]])
            some = distiller.loss(dataclasses.replace(step, unlabelled=True, target=target))
            require(
                bool(torch.isfinite(some)),
                f"{name}: the loss is {some.item()} where images have no label; let needs_labels() say so",
            )


def check_gradients(module: nn.Module, name: str) -> None:
    """Check that gradients reach all of a network, are finite, and are not all zero."""
    gradients = {key: tensor.grad for key, tensor in module.named_parameters()}
    lost = [key for key, gradient in gradients.items() if gradient is None]
    require(not lost, f"{name}: no gradient reaches {', '.join(lost[:3])} of the student")
    found = [gradient for gradient in gradients.values() if gradient is not None]
    require(all(bool(torch.isfinite(one).all()) for one in found), f"{name}: a gradient is not finite")
    require(any(bool(one.count_nonzero()) for one in found), f"{name}: all gradients are zero")
