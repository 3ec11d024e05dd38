"""Attention transfer against numpy, position by position."""

import math

import numpy as np
import pytest
import torch

from kdtool_distillers.at import AT, attention_loss


def by_hand(student, teacher):
    total, count = 0.0, 0
    for f, g in zip(student.numpy(), teacher.numpy(), strict=True):
        a, b = ((maps**2).mean(axis=0).ravel() for maps in (f, g))
        a, b = a / math.sqrt((a**2).sum()), b / math.sqrt((b**2).sum())
        total += ((a - b) ** 2).sum()
        count += len(a)
    return total / count


def test_maps_of_other_channels(numbers):
    student, teacher = numbers(3, 2, 4, 4), numbers(3, 5, 4, 4)
    assert attention_loss(student, teacher).item() == pytest.approx(by_hand(student, teacher), rel=1e-12)


def test_two_positions_by_hand():
    # Energies (1, 0) against (0, 4): norms 1, so the squares are 1 and 1.
    student, teacher = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, -2.0]]]])
    assert attention_loss(student, teacher).item() == 1.0


def test_the_larger_map_is_averaged():
    student = torch.tensor([[[[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[3.0, 0.0]]]], dtype=torch.float64)
    assert attention_loss(student, teacher).item() == pytest.approx(0, abs=1e-15)
    assert attention_loss(teacher, student).item() == pytest.approx(0, abs=1e-15)


def test_the_loss_sums_over_stages(numbers, step_of):
    maps = [(numbers(2, 3, 4, 4), numbers(2, 2, 4, 4)), (numbers(2, 6, 2, 2), numbers(2, 4, 2, 2))]
    expected = np.log(3) + 1000 * sum(by_hand(student, teacher) for student, teacher in maps)
    assert AT().loss(step_of(maps)).item() == pytest.approx(expected, rel=1e-10)


def test_gradient(numbers):
    student, teacher = numbers(2, 3, 4, 4).requires_grad_(), numbers(2, 2, 2, 2)
    assert torch.autograd.gradcheck(lambda maps: attention_loss(maps, teacher), student)


def test_a_dead_map_has_a_finite_gradient():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    attention_loss(student, torch.ones(2, 3, 4, 4)).backward()
    assert torch.isfinite(student.grad).all()
