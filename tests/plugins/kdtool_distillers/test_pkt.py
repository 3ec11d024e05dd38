"""PKT against numpy."""

import math

import numpy as np
import pytest
import torch

from kdtool_distillers.pkt import PKT, neighbours, probabilities


def authors(student, teacher):
    """The loss of the authors' repository, with loops over the pairs of images."""
    eps, found = 1e-7, []
    for features in (student, teacher):
        rows = [row / (math.sqrt(sum(row**2)) + eps) for row in features]
        kernel = np.array([[(float(x @ y) + 1) / 2 for y in rows] for x in rows])
        found.append(np.array([row / row.sum() for row in kernel]))
    ours, theirs = found
    return np.mean([q * math.log((q + eps) / (p + eps)) for p, q in zip(ours.flat, theirs.flat, strict=True)])


def test_the_loss_is_the_authors(numbers, step_of):
    student, teacher = 3 * numbers(6, 4), numbers(6, 5)
    expected = authors(student.numpy(), teacher.numpy())
    assert neighbours(student, teacher).item() == pytest.approx(expected, rel=1e-11)
    maps = [(student[:, :, None, None].expand(-1, -1, 2, 2), teacher[:, :, None, None])]
    assert PKT().loss(step_of(maps)).item() == pytest.approx(math.log(3) + 30000 * expected, rel=1e-10)
    assert PKT(weight=2.0).loss(step_of(maps)).item() == pytest.approx(math.log(3) + 2 * expected, rel=1e-10)


def test_three_images_by_hand():
    # Cosines 1, 0 and -1 become 1, 1/2 and 0.
    features = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]], dtype=torch.float64)
    expected = [2 / 3, 1 / 3, 0, 1 / 4, 1 / 2, 1 / 4, 0, 1 / 3, 2 / 3]
    assert probabilities(features).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_gradient(numbers):
    teacher = numbers(5, 4)
    assert torch.autograd.gradcheck(lambda features: neighbours(features, teacher), numbers(5, 3).requires_grad_())


def test_dead_features_have_a_finite_gradient(numbers):
    dead = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    neighbours(dead, numbers(3, 2)).backward()
    assert torch.isfinite(dead.grad).all()
