"""The checks of a loss report what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import kdtool
from kdtool import LossDistiller, Step
from kdtool.testing.checks import check_distiller


def _vector(step: Step) -> Any:
    return (step.student - step.teacher).square().mean(dim=1)


def _nan(step: Step) -> Any:
    return (step.student - step.student.detach()).square().sum().sqrt() * float("nan")


def _number(step: Step) -> Any:
    return step.student.mean().item()


def _detached(step: Step) -> Any:
    return (step.student.detach() - step.teacher).square().mean()


def _flat(step: Step) -> Any:
    return 0 * step.student.sum()


def _infinite_gradient(step: Step) -> Any:
    return (step.student - step.student.detach()).square().sum().sqrt()


def _in_place(step: Step) -> Any:
    return (step.student - step.teacher.div_(2)).square().mean()


def _needs_three_images(step: Step) -> Any:
    return (step.student - step.teacher)[8:].square().mean()


def _late(step: Step) -> Any:
    return (step.student - step.teacher).square().mean() / torch.tensor(9 - step.epoch)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_vector, "the loss is not a scalar tensor"),
        (_number, "the loss is not a scalar tensor"),
        (_nan, "the loss is nan"),
        (_detached, "the loss does not depend on the student"),
        (_flat, "all gradients are zero"),
        (_infinite_gradient, "a gradient is not finite"),
        (_in_place, "the loss changed its batch in place"),
        (_needs_three_images, "with 1 image per class, epoch 1: the loss is nan"),
        (_late, "with 1 image per class, epoch 10: the loss is inf"),
    ],
)
def test_a_wrong_loss_is_told(wrong: Callable[[Step], Any], message: str) -> None:
    class Wrong(LossDistiller):
        """Do it wrongly."""

        def loss(self, step: Step) -> Any:
            return wrong(step)

    with pytest.raises(AssertionError, match=message):
        check_distiller(Wrong)


def _wrong_shape(step: Step) -> Any:
    return (step.student @ step.teacher).mean()


def _labels(step: Step) -> Any:
    target = torch.nn.functional.one_hot(step.target, step.student.shape[1])
    return (step.student - step.teacher).square().mean() + (step.student * target).mean()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_wrong_shape, r"with 3 images per class, epoch 1: loss\(\) fails: RuntimeError"),
        (_labels, r"loss\(\) fails for images without a label: .*; make needs_labels\(\) return True"),
    ],
)
def test_a_loss_that_raises_is_told(wrong: Callable[[Step], Any], message: str) -> None:
    class Raising(LossDistiller):
        """Raise."""

        def loss(self, step: Step) -> Any:
            return wrong(step)

    with pytest.raises(AssertionError, match=message):
        check_distiller(Raising)


def test_a_check_leaves_the_callers_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)

    check_distiller(kdtool.make("distillers", "kd"))

    assert torch.equal(torch.rand(2), expected)
