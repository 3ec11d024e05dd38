"""Logit standardization against numpy, in the form of the authors' code (ddof 1, 1e-7) and in that of the paper."""

import numpy as np
import pytest
import torch

from kdtool import Error, Network
from kdtool.models.architecture import Architecture
from kdtool_distillers.logit_std import LogitStd, standardized


def z_scores(logits, ddof):
    rows = logits.numpy()
    return (rows - rows.mean(axis=1, keepdims=True)) / (1e-7 + rows.std(axis=1, keepdims=True, ddof=ddof))


def by_hand(student, teacher, target, ddof):
    """0.1 CE + 9 T^2 KL at T = 2."""
    scores = [z_scores(z, ddof) / 2 for z in (teacher, student)]
    p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in scores)
    hard = -student.log_softmax(dim=1)[torch.arange(len(target)), target].mean().item()
    return 0.1 * hard + 9 * 4 * (p * np.log(p / q)).sum(axis=1).mean()


def test_by_hand():
    # Mean 2, squared distances 4, 0, 4: the deviation is the root of 8/2, in the paper's form of 8/3.
    logits = torch.tensor([[0.0, 2.0, 4.0]], dtype=torch.float64)
    assert standardized(logits).tolist()[0] == pytest.approx([-1.0, 0.0, 1.0])
    assert standardized(logits, unbiased=False).tolist()[0] == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])


@pytest.mark.parametrize(("options", "ddof"), [({}, 1), ({"deviation": "biased"}, 0)])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_loss(numbers, step_of, options, ddof, classes):
    student, teacher, target = 5 * numbers(4, classes), 2 * numbers(4, classes) + 7, torch.tensor([0, 1, 1, 0])
    value = LogitStd(**options).loss(step_of(student=student, teacher=teacher, target=target))
    assert value.item() == pytest.approx(by_hand(student, teacher, target, ddof), rel=1e-12)


@pytest.mark.parametrize("classes", [3, 100])
def test_the_forms_convert_as_the_help_says(numbers, step_of, classes):
    ratio = classes / (classes - 1)
    step = step_of(student=5 * numbers(4, classes), teacher=2 * numbers(4, classes))
    code = LogitStd(temperature=2.0, weight=9.0).loss(step)
    paper = LogitStd(temperature=2.0 * ratio**0.5, weight=9.0 / ratio, deviation="biased").loss(step)
    assert code.item() == pytest.approx(paper.item(), rel=1e-6)


def test_one_class_is_refused():
    network = Network(Architecture("kdtool", "lenet-5", {"classes": 1}), torch.nn.Linear(1, 1))
    with pytest.raises(Error, match="1 class has none"):
        LogitStd().check(network, network)


def test_a_shift_and_a_scale_of_the_logits_cost_nothing(numbers, step_of):
    teacher = numbers(4, 3)
    value = LogitStd(labels=0).loss(step_of(student=0.1 * teacher - 3, teacher=teacher))
    # The small number beside the deviation is larger for smaller logits.
    assert value.item() == pytest.approx(0, abs=1e-10)


def test_gradient(numbers):
    assert torch.autograd.gradcheck(standardized, numbers(3, 4).requires_grad_())


def test_equal_logits_have_a_finite_gradient():
    logits = torch.ones(2, 3, requires_grad=True)
    (standardized(logits) * torch.tensor([1.0, 0.0, 2.0])).sum().backward()
    assert torch.isfinite(logits.grad).all()
