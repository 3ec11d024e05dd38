"""Logit standardization against numpy."""

import numpy as np
import pytest
import torch

from kdtool_distillers.logit_std import LogitStd, standardized


def z_scores(logits):
    rows = logits.numpy()
    return (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)


def test_by_hand():
    # Mean 2, squared distances 4, 0, 4: the deviation is the root of 8/3.
    scores = standardized(torch.tensor([[0.0, 2.0, 4.0]], dtype=torch.float64))
    assert scores.tolist()[0] == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])


def test_the_loss(numbers, step_of):
    student, teacher, target = 5 * numbers(4, 3), 2 * numbers(4, 3) + 7, torch.tensor([0, 1, 2, 1])
    p, q = (np.exp(z_scores(z) / 2) / np.exp(z_scores(z) / 2).sum(axis=1, keepdims=True) for z in (teacher, student))
    soft = 4 * (p * np.log(p / q)).sum(axis=1).mean()
    hard = -student.log_softmax(dim=1)[torch.arange(4), target].mean().item()
    value = LogitStd().loss(step_of(student=student, teacher=teacher, target=target))
    assert value.item() == pytest.approx(0.1 * hard + 9 * soft, rel=1e-10)


def test_a_shift_and_a_scale_of_the_logits_cost_nothing(numbers, step_of):
    teacher = numbers(4, 3)
    value = LogitStd(labels=0).loss(step_of(student=0.1 * teacher - 3, teacher=teacher))
    assert value.item() == pytest.approx(0, abs=1e-10)


def test_gradient(numbers):
    assert torch.autograd.gradcheck(standardized, numbers(3, 4).requires_grad_())


def test_equal_logits_have_a_finite_gradient():
    logits = torch.ones(2, 3, requires_grad=True)
    (standardized(logits) * torch.tensor([1.0, 0.0, 2.0])).sum().backward()
    assert torch.isfinite(logits.grad).all()
