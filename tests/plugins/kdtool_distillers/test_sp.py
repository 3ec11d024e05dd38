"""SP against loops over pairs of images in numpy."""

import math

import numpy as np
import pytest
import torch

from kdtool_distillers.sp import SP, similarities


def by_hand(student, teacher):
    normed = []
    for maps in (student, teacher):
        rows = maps.numpy().reshape(len(maps), -1)
        products = np.array([[float((x * y).sum()) for y in rows] for x in rows])
        normed.append([row / math.sqrt((row**2).sum()) for row in products])
    return ((np.array(normed[0]) - np.array(normed[1])) ** 2).sum() / len(student) ** 2


def test_the_loss(numbers, step_of):
    maps = numbers(4, 3, 2, 2), numbers(4, 5, 3, 3)
    assert SP().loss(step_of([maps])).item() == pytest.approx(math.log(3) + 3000 * by_hand(*maps), rel=1e-10)


def test_pairs_of_layers_are_added(numbers, step_of):
    maps = [(numbers(4, 3, 2, 2), numbers(4, 5, 3, 3)), (numbers(4, 2, 1, 1), numbers(4, 4, 1, 1))]
    expected = math.log(3) + 3000 * sum(by_hand(*pair) for pair in maps)
    assert SP().loss(step_of(maps)).item() == pytest.approx(expected, rel=1e-10)


def test_two_images_by_hand():
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0]]).view(2, 2, 1, 1)
    # Products 1, 3 and 3, 25.
    norms = math.sqrt(10), math.sqrt(634)
    expected = [1 / norms[0], 3 / norms[0], 3 / norms[1], 25 / norms[1]]
    assert similarities(rows).flatten().tolist() == pytest.approx(expected)


def test_gradient(numbers):
    assert torch.autograd.gradcheck(similarities, numbers(3, 2, 2, 2).requires_grad_())


def test_dead_maps_have_a_finite_gradient():
    maps = torch.zeros(3, 2, 2, 2, requires_grad=True)
    (similarities(maps) - 0.3).square().sum().backward()
    assert torch.isfinite(maps.grad).all()
