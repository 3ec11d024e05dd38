"""The cross-entropy of a batch in which some images have no label, and of the passes of a step."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from kdtool.data.raw import UNLABELLED
from kdtool.training.step import Step


def step_of(target, **about):
    student = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return Step(student, torch.tensor(target), torch.zeros(4), torch.zeros(4, 3), **about)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_mean_over_the_images_that_have_one(smoothing):
    step = step_of([0, UNLABELLED, 2, UNLABELLED], unlabelled=True, label_smoothing=smoothing)
    known = F.cross_entropy(step.student[[0, 2]], torch.tensor([0, 2]), label_smoothing=smoothing)
    assert step.cross_entropy().item() == pytest.approx(known.item(), rel=1e-6)


def test_it_is_0_with_a_gradient_of_0_where_none_has_one():
    step = step_of([UNLABELLED] * 4, unlabelled=True)
    step.cross_entropy().backward()
    assert step.cross_entropy().item() == 0
    assert not step.student.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_the_mean_over_the_passes_of_mixtures_is_that_over_the_step(smoothing, weights):
    step = step_of([UNLABELLED] * 4, unlabelled=True, label_smoothing=smoothing, class_weights=weights)
    # The last image has no label, and the one before it is mixed with it.
    step.parts = torch.tensor([[1.0, 0, 0], [0, 0.7, 0.3], [0, 0, 0.6], [0, 0, 0]])
    passes = [
        dataclasses.replace(step, student=step.student[rows], parts=step.parts[rows], known=2.6 / 4)
        for rows in (slice(0, 2), slice(2, 4))
    ]
    assert sum(one.cross_entropy().item() / 2 for one in passes) == pytest.approx(step.cross_entropy().item())


def test_a_pass_of_mixtures_without_labels_adds_nothing():
    step = step_of([UNLABELLED] * 4, unlabelled=True, parts=torch.zeros(4, 3), known=0.0)
    assert step.cross_entropy().item() == 0
