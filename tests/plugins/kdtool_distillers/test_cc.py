"""CC against the Gaussian kernel and its series in numpy."""

import math

import numpy as np
import pytest
import torch

from kdtool_distillers.cc import CC, correlations


def by_hand(features, gamma, order):
    rows = features.numpy()
    rows = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
    kernel = np.zeros((len(rows), len(rows)))
    for i, j in np.ndindex(*kernel.shape):
        for p in range(order + 1):
            kernel[i, j] += math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * (rows[i] @ rows[j]) ** p
    return kernel


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_series(numbers, order):
    features = numbers(4, 3)
    np.testing.assert_allclose(correlations(features, 0.4, order), by_hand(features, 0.4, order), rtol=1e-12)


def test_a_long_series_is_the_gaussian_kernel(numbers):
    features = numbers(4, 3)
    rows = features / features.norm(dim=1, keepdim=True)
    kernel = torch.exp(-0.4 * torch.cdist(rows, rows) ** 2)
    torch.testing.assert_close(correlations(features, 0.4, 20), kernel)


def test_the_loss(numbers, step_of):
    maps = numbers(4, 3, 2, 2), numbers(4, 5, 3, 3)
    student, teacher = (by_hand(outputs.mean(dim=(2, 3)), 0.4, 2) for outputs in maps)
    expected = math.log(3) + 100 * ((student - teacher) ** 2).mean()
    assert CC().loss(step_of([maps])).item() == pytest.approx(expected, rel=1e-10)


def test_gradient(numbers):
    assert torch.autograd.gradcheck(lambda features: correlations(features, 0.4, 2), numbers(3, 4).requires_grad_())
