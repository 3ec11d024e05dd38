"""The proximal operator and the accelerated step, against numbers worked out by hand."""

import pytest
import torch

from kdtool_distillers.proximal import ahead, closing_threshold, momentum, shrink


def test_the_proximal_operator_by_hand():
    z = torch.tensor([1.0, 0.3, 0.25, 0.2, -0.5])
    assert shrink(z, 0.25).tolist() == pytest.approx([0.75, 0.05, 0.0, 0.0, 0.0])
    assert shrink(z, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])).tolist() == pytest.approx([1.0, 0.2, 0.05, 0.0, 0.0])


def test_the_proximal_operator_is_where_its_definition_is_least():
    # prox(z) = argmin over g >= 0 of (g - z)^2 / 2 + t g.
    grid = torch.linspace(0, 2, 20001, dtype=torch.double)
    for z, t in ((1.3, 0.4), (0.2, 0.4), (-1.0, 0.1)):
        least = grid[((grid - z) ** 2 / 2 + t * grid).argmin()]
        assert shrink(torch.tensor(z, dtype=torch.double), t).item() == pytest.approx(least.item(), abs=1e-4)


def test_the_momentum_by_hand():
    assert [momentum(k) for k in (2, 3, 4, 5)] == [0, 1 / 4, 2 / 5, 1 / 2]


def test_the_point_ahead_by_hand():
    gates, before = torch.tensor([0.5, 0.25, 0.0]), torch.tensor([0.9, 0.25, 0.6])
    # k = 2: mu_3 = 1/4, y = x + (x - before) / 4, never below 0.
    assert ahead(gates, before, 2).tolist() == pytest.approx([0.4, 0.25, 0.0])
    # k = 1: mu_2 = 0.
    assert torch.equal(ahead(gates, before, 1), gates)


@pytest.mark.parametrize("steps", [50, 200, 1000])
def test_a_gate_that_nothing_holds_closes_in_so_many_steps(steps):
    threshold, before, point, k = closing_threshold(steps), torch.ones(()), torch.ones(()), 0
    while before > 0:
        k += 1
        gates = shrink(point, threshold)
        point, before = ahead(gates, before, k), gates
    assert k == pytest.approx(steps, rel=0.1)
