"""DIST against Pearson's correlation as numpy has it."""

import numpy as np
import pytest
import torch

from kdtool_distillers.dist import DIST, uncorrelated


def by_hand(student, teacher, temperature):
    p, q = (np.exp(z / temperature) / np.exp(z / temperature).sum(axis=1, keepdims=True) for z in (student, teacher))
    rows = np.mean([1 - np.corrcoef(p[i], q[i])[0, 1] for i in range(p.shape[0])])
    columns = np.mean([1 - np.corrcoef(p[:, j], q[:, j])[0, 1] for j in range(p.shape[1])])
    return temperature**2 * rows, temperature**2 * columns


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_two_terms(numbers, temperature):
    student, teacher = 2 * numbers(6, 4), 2 * numbers(6, 4)
    expected = by_hand(student.numpy(), teacher.numpy(), temperature)
    assert [term.item() for term in uncorrelated(student, teacher, temperature)] == pytest.approx(expected, rel=1e-10)


def test_a_shift_and_a_scale_of_the_probabilities_cost_nothing():
    teacher = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)
    student = 0.4 * teacher + 0.2  # rows still sum to 1
    rows, columns = uncorrelated(student.log(), teacher.log(), 1.0)
    assert rows.item() == pytest.approx(0, abs=1e-12)
    assert columns.item() == pytest.approx(0, abs=1e-12)


def test_the_loss_has_the_authors_weights(numbers, step_of):
    student, teacher = numbers(5, 3), numbers(5, 3)
    rows, columns = by_hand(student.numpy(), teacher.numpy(), 4.0)
    hard = -student.log_softmax(dim=1)[:, 0].mean().item()
    value = DIST().loss(step_of(student=student, teacher=teacher))
    assert value.item() == pytest.approx(hard + 2 * rows + 2 * columns, rel=1e-10)


def test_gradient(numbers):
    student, teacher = numbers(4, 3).requires_grad_(), numbers(4, 3)
    assert torch.autograd.gradcheck(lambda s: uncorrelated(s, teacher, 4.0), student)


def test_equal_logits_stay_finite():
    student = torch.zeros(3, 4, requires_grad=True)
    sum(uncorrelated(student, torch.zeros(3, 4), 4.0)).backward()
    assert torch.isfinite(student.grad).all()


def test_beside_the_authors_code(numbers):
    # It adds 1e-8 to the product of the norms; here the product is at least 1e-8, or each norm. The rest is alike.
    student, teacher = 5 * numbers(64, 10), 5 * numbers(64, 10)
    p, q = ((logits / 4).softmax(dim=1).numpy() for logits in (student, teacher))
    terms = []
    for a, b in ((p, q), (p.T, q.T)):
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
        norms = np.sqrt((a**2).sum(axis=1)) * np.sqrt((b**2).sum(axis=1))
        terms.append(16 * (1 - ((a * b).sum(axis=1) / (norms + 1e-8)).mean()))
    assert [term.item() for term in uncorrelated(student, teacher, 4.0)] == pytest.approx(terms, rel=1e-6)
