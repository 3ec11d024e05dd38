"""The equations, against numpy's least squares."""

import numpy as np
import pytest
import torch

from kdtool.surgery.repair.least_squares import RIDGES, correction, ridge_regressions


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everything(inputs, outputs):
    return torch.ones(1, inputs, outputs, dtype=torch.bool)


@pytest.mark.parametrize("rows", [40, 5])
def test_the_ridge_is_that_of_more_rows_in_numpy(rows):
    """|X D - Y|^2 + k |D|^2 is the plain error for the rows of X and sqrt(k) I; with fewer rows than inputs as well."""
    x, y = drawn(rows, 7), drawn(rows, 3, seed=1)
    k = 0.1 * float((x**2).sum()) / 7
    longer = np.vstack([x.numpy(), k**0.5 * np.eye(7)]), np.vstack([y.numpy(), np.zeros((7, 3))])
    expected = np.linalg.lstsq(*longer, rcond=None)[0]
    (solved,) = ridge_regressions(x[None], y[None], [0.1])
    np.testing.assert_allclose(solved[0].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_each_group_is_solved_by_itself():
    x, y = drawn(3, 20, 4), drawn(3, 20, 2, seed=1)
    (together,) = ridge_regressions(x, y, [1e-2])
    for group in range(3):
        (alone,) = ridge_regressions(x[group : group + 1], y[group : group + 1], [1e-2])
        torch.testing.assert_close(together[group], alone[0])


def test_inputs_that_are_always_zero_get_no_weight():
    x = torch.cat([drawn(1, 20, 2), torch.zeros(1, 20, 2, dtype=torch.float64)], dim=2)
    (solved,) = ridge_regressions(x, drawn(1, 20, 3, seed=1), [1e-6])
    assert solved[0, :2].abs().min() > 0
    assert not solved[0, 2:].any()
    (nothing,) = ridge_regressions(torch.zeros_like(x), drawn(1, 20, 3, seed=1), [1e-6])
    assert not nothing.any()


def test_a_bias_takes_the_mean_as_a_column_of_ones_does_in_numpy():
    x, missing = drawn(200, 4) + 3, drawn(200, 2, seed=1) * 0.1
    missing += x @ drawn(4, 2, seed=2) + 5
    fixed = correction(x[None], missing[None], biased=True, free=everything(4, 2))
    expected = np.linalg.lstsq(np.hstack([x.numpy(), np.ones((200, 1))]), missing.numpy(), rcond=None)[0]
    assert fixed.ridge < 1e-2
    np.testing.assert_allclose(fixed.weight[0].numpy(), expected[:4], atol=1e-3)
    np.testing.assert_allclose(fixed.bias[0, 0].numpy(), expected[4], atol=1e-2)


def test_images_that_are_held_out_choose_the_ridge():
    """Few noisy rows and many inputs: a small ridge fits the noise."""
    x = drawn(40, 60)
    missing = x @ drawn(60, 1, seed=2) + 4 * drawn(40, 1, seed=1)
    fixed = correction(x[None], missing[None], biased=False, free=everything(60, 1))
    errors = []
    for ridge in RIDGES:
        k = ridge * float((x[:30] ** 2).sum()) / 60
        weight = np.linalg.solve((x[:30].T @ x[:30]).numpy() + k * np.eye(60), (x[:30].T @ missing[:30]).numpy())
        errors.append(float(((missing[30:].numpy() - x[30:].numpy() @ weight) ** 2).mean()))
    assert fixed.ridge == RIDGES[int(np.argmin(errors))] > RIDGES[0]
    assert fixed.after == pytest.approx(min(errors))


def test_what_helps_no_image_that_is_held_out_is_left():
    x = drawn(1, 80, 3)
    missing = x @ drawn(1, 3, 2, seed=1)
    missing[:, 60:] *= -1
    assert correction(x, missing, biased=True, free=everything(3, 2)) is None
    assert correction(x[:, :1], missing[:, :1], biased=True, free=everything(3, 2)) is None


def test_weights_that_are_not_free_stay():
    x = drawn(1, 80, 3)
    free = torch.tensor([[[True, False], [True, True], [False, True]]])
    missing = x @ (drawn(1, 3, 2, seed=1) * free)
    fixed = correction(x, missing, biased=False, free=free)
    assert not fixed.weight[~free].any()
    assert fixed.weight[free].abs().min() > 0
