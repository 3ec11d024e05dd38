"""RKD against loops over pairs and triples in numpy."""

import itertools
import math

import numpy as np
import pytest
import torch

from kdtool_distillers.rkd import RKD, angles, distances


def huber(x, y):
    gap = abs(x - y)
    return gap**2 / 2 if gap < 1 else gap - 1 / 2


def by_hand(student, teacher):
    """The means over all pairs and all triples, those of an image with itself among them, which are 0."""
    networks = [features.numpy() for features in (student, teacher)]
    count = len(student)
    raw = [np.array([[math.dist(x, y) for y in features] for x in features]) for features in networks]
    scaled = [distances / (distances.sum() / (count * (count - 1))) for distances in raw]
    distance = sum(huber(scaled[0][i][j], scaled[1][i][j]) for i, j in itertools.product(range(count), repeat=2))
    angle = 0.0
    for i, j, k in itertools.product(range(count), repeat=3):
        if i not in (j, k):
            legs = [(features[j] - features[i], features[k] - features[i]) for features in networks]
            angle += huber(*((x @ y) / math.sqrt((x @ x) * (y @ y)) for x, y in legs))
    return distance / count**2, angle / count**3


def pooled(features):
    return features[:, :, None, None].expand(-1, -1, 2, 2)


def test_pairs_and_triples(numbers, step_of):
    student, teacher = 3 * numbers(5, 3), numbers(5, 4)
    distance, angle = by_hand(student, teacher)
    maps = [(pooled(student), pooled(teacher))]
    assert RKD().loss(step_of(maps)).item() == pytest.approx(math.log(3) + 25 * distance + 50 * angle, rel=1e-10)
    assert RKD(angle=0).loss(step_of(maps)).item() == pytest.approx(math.log(3) + 25 * distance, rel=1e-10)
    assert RKD(distance=0).loss(step_of(maps)).item() == pytest.approx(math.log(3) + 50 * angle, rel=1e-10)


def test_a_right_triangle():
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    sides = distances(corners) * 4  # sides 3, 4 and 5 have a mean of 4
    assert sides.flatten().tolist() == pytest.approx([0, 3, 4, 3, 0, 5, 4, 5, 0])
    cosines = angles(corners)
    assert cosines[0, 1, 2].item() == pytest.approx(0, abs=1e-15)
    assert cosines[1, 0, 2].item() == pytest.approx(3 / 5)
    assert cosines[2, 0, 1].item() == pytest.approx(4 / 5)


@pytest.mark.parametrize("function", [distances, angles])
def test_gradient(numbers, function):
    assert torch.autograd.gradcheck(function, numbers(4, 3).requires_grad_())


@pytest.mark.parametrize("function", [distances, angles])
def test_equal_images_have_a_finite_gradient(function):
    features = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    (function(features) - 0.3).square().sum().backward()
    assert torch.isfinite(features.grad).all()
    dead = torch.zeros(3, 2, requires_grad=True)
    (function(dead) - 0.3).square().sum().backward()
    assert torch.isfinite(dead.grad).all()


def test_images_that_are_nearly_alike_keep_their_distance():
    # Matrix products would give 0 in float32.
    features = torch.full((30, 8), 100.0)
    features[1] += 1e-3
    assert distances(features)[0, 1] > 0


def test_beside_the_authors_code(numbers):
    # It takes squared distances from inner products, at least 1e-12, and directions from one division by the norm.
    features, scaled, cosines = [3 * numbers(6, 4), numbers(6, 5)], [], []
    for rows in (one.numpy() for one in features):
        products = rows @ rows.T
        squares = np.diag(products)
        apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 1e-12)) * (1 - np.eye(len(rows)))
        scaled.append(apart / apart[apart > 0].mean())
        legs = rows[None] - rows[:, None]
        legs = legs / np.maximum(np.sqrt((legs**2).sum(axis=2, keepdims=True)), 1e-12)
        cosines.append(legs @ legs.transpose(0, 2, 1))
    for function, expected in ((distances, scaled), (angles, cosines)):
        for rows, numbers_expected in zip(features, expected, strict=True):
            np.testing.assert_allclose(function(rows).numpy(), numbers_expected, rtol=1e-11, atol=1e-14)
