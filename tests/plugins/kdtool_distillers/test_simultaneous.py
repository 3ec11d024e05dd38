"""All stages at once against numpy."""

import numpy as np
import pytest
import torch

from kdtool_distillers.simultaneous import Simultaneous


def test_the_loss_is_the_sum_over_the_stages(numbers, step_of):
    maps = [(numbers(4, 3, 4, 4), numbers(4, 3, 4, 4)), (numbers(4, 5, 2, 2), numbers(4, 5, 2, 2))]
    student, target = numbers(4, 6), torch.tensor([5, 0, 3, 3])
    powers = np.exp(student.numpy())
    hard = -np.log(powers[np.arange(4), target.numpy()] / powers.sum(axis=1)).mean()
    errors = sum(((f.numpy() - g.numpy()) ** 2).sum() / f.numel() for f, g in maps)
    for options, weight in (({}, 1.0), ({"weight": 0.3}, 0.3)):
        value = Simultaneous(**options).loss(step_of(maps, student=student, target=target)).item()
        assert value == pytest.approx(hard + weight * errors, rel=1e-11)


def test_gradient(numbers, step_of):
    maps, teacher = numbers(2, 3, 2, 2).requires_grad_(), numbers(2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda student: Simultaneous().loss(step_of([(student, teacher)])), maps)
