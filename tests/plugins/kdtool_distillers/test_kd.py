"""The losses against numbers worked out with numpy, in float64."""

import numpy as np
import pytest
import torch

from kdtool import Step
from kdtool_distillers.kd import KD, hinton, ikd_paper

STUDENT = [[1.0, -0.5, 2.0], [0.3, 0.1, -1.2]]
TEACHER = [[2.0, 0.0, 1.0], [-1.0, 0.5, 0.2]]
TARGET = [2, 1]
LOGITS = torch.tensor(STUDENT, dtype=torch.float64), torch.tensor(TEACHER, dtype=torch.float64)


def softmax(logits, temperature=1.0):
    powers = np.exp(np.array(logits) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(axis=1).mean()


def step(**changes):
    values = {
        "student": torch.tensor(STUDENT, dtype=torch.float64, requires_grad=True),
        "teacher": torch.tensor(TEACHER, dtype=torch.float64),
        "target": torch.tensor(TARGET),
        "images": torch.zeros(2, 1, 4, 4),
    }
    return Step(**{**values, **changes})


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_hinton_is_t_squared_kl_of_teacher_and_student(temperature):
    expected = temperature**2 * kl(softmax(TEACHER, temperature), softmax(STUDENT, temperature))
    value = hinton(*LOGITS, temperature)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_ikd_paper_is_two_t_squared_kl_of_student_and_teacher():
    expected = 2 * 20**2 * kl(softmax(STUDENT, 20), softmax(TEACHER, 20))
    value = ikd_paper(*LOGITS, 20)
    assert value.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_loss_weighs_labels_and_teacher(alpha):
    hard = -np.log(softmax(STUDENT)[np.arange(2), TARGET]).mean()
    soft = 4**2 * kl(softmax(TEACHER, 4), softmax(STUDENT, 4))
    value = KD(temperature=4.0, alpha=alpha).loss(step())
    assert value.item() == pytest.approx((1 - alpha) * hard + alpha * soft, rel=1e-12)


def test_gradient_of_the_soft_term():
    # d/ds of T^2 KL(p_t || p_s) is T (p_s - p_t), over the batch's size.
    batch = step()
    KD(temperature=4.0, alpha=1.0).loss(batch).backward()
    expected = 4 * (softmax(STUDENT, 4) - softmax(TEACHER, 4)) / 2
    np.testing.assert_allclose(batch.student.grad.numpy(), expected, rtol=1e-10)


def test_label_smoothing_changes_the_hard_term_alone():
    smoothed = KD(alpha=0.0).loss(step(label_smoothing=0.1)).item()
    log_p = np.log(softmax(STUDENT))
    mixed = np.full((2, 3), 0.1 / 3)
    mixed[np.arange(2), TARGET] += 0.9
    assert smoothed == pytest.approx(-(mixed * log_p).sum(axis=1).mean(), rel=1e-12)
