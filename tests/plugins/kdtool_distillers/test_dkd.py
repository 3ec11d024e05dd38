"""DKD against the paper's equations, class by class in numpy."""

import math

import numpy as np
import pytest
import torch

from kdtool import Error, Network, UsageError, make
from kdtool.models.architecture import Architecture
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan
from kdtool_distillers.dkd import DKD, decoupled


def by_hand(student, teacher, target, temperature):
    right, others = 0.0, 0.0
    for s, t, y in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        p, q = (np.exp(z / temperature) / np.exp(z / temperature).sum() for z in (t, s))
        right += p[y] * math.log(p[y] / q[y]) + (1 - p[y]) * math.log((1 - p[y]) / (1 - q[y]))
        for k in range(len(s)):
            if k != y:
                a, b = p[k] / (1 - p[y]), q[k] / (1 - q[y])
                others += a * math.log(a / b)
    return temperature**2 * right / len(student), temperature**2 * others / len(student)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_two_terms(numbers, temperature):
    student, teacher, target = 3 * numbers(5, 4), 3 * numbers(5, 4), torch.tensor([0, 3, 1, 2, 3])
    terms = decoupled(student, teacher, target, temperature)
    assert [term.item() for term in terms] == pytest.approx(by_hand(student, teacher, target, temperature), rel=1e-12)


def test_together_they_are_kd(numbers):
    # KL(p || q) = KL(b || b') + (1 - p_y) KL of the others (the paper's Eq. 5), for one image.
    student, teacher, target = numbers(1, 5), numbers(1, 5), torch.tensor([2])
    right, others = decoupled(student, teacher, target, 1.0)
    p, q = teacher.softmax(dim=1), student.softmax(dim=1)
    whole = (p * (p / q).log()).sum()
    assert (right + (1 - p[0, 2]) * others).item() == pytest.approx(whole.item(), rel=1e-12)


def test_gradient(numbers):
    student, teacher, target = numbers(3, 4).requires_grad_(), numbers(3, 4), torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda s: decoupled(s, teacher, target, 4.0), student)


def test_a_sure_teacher_stays_finite():
    student = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    loss = sum(decoupled(student, torch.tensor([[-300.0, 0.0, 300.0]]), torch.tensor([0]), 1.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    ("epoch", "warmup", "share"), [(0, 20, 0.05), (9, 20, 0.5), (30, 20, 1.0), (0, 0, 1.0), (0, None, 0.05)]
)
def test_the_loss_grows_in_the_warm_up(numbers, step_of, epoch, warmup, share):
    student, teacher, target = numbers(4, 3), numbers(4, 3), torch.tensor([0, 1, 2, 1])
    right, others = by_hand(student, teacher, target, 4.0)
    hard = -student.log_softmax(dim=1)[torch.arange(4), target].mean().item()
    step = step_of(student=student, teacher=teacher, target=target, epoch=epoch, epochs=240)
    value = DKD(teacher_warmup=warmup).loss(step)
    assert value.item() == pytest.approx(hard + share * (right + 8 * others), rel=1e-10)


def test_two_classes_are_refused_before_training():
    architecture = Architecture("kdtool", "lenet-5", {"classes": 2, "in_channels": 1, "image_size": 28})
    network = Network(architecture, torch.nn.Linear(1, 2))
    with pytest.raises(Error, match="dkd compares the wrong classes with each other, and of 2 classes .*--method kd"):
        FitPlan("dkd", network, network, DKD(), None, None, Training())


@pytest.mark.parametrize("method", ["kd", "dkd", "dist", "logit-std"])
def test_a_temperature_of_0_is_refused(method):
    with pytest.raises(UsageError, match=r"--temperature: 0.0 is out of range"):
        make("distillers", method, temperature=0)


def test_beside_the_authors_code(numbers):
    # It masks the right class with -1000 and sums the probabilities of the others.
    student, teacher, target = 3 * numbers(5, 10), 3 * numbers(5, 10), torch.tensor([0, 3, 1, 9, 3])
    chosen = np.eye(10)[target.numpy()]
    p, q = ((logits / 4).softmax(dim=1).numpy() for logits in (teacher, student))
    b, c = (np.stack([(x * chosen).sum(axis=1), (x * (1 - chosen)).sum(axis=1)], axis=1) for x in (p, q))
    masked = [
        (logits / 4 - 1000 * torch.from_numpy(chosen)).log_softmax(dim=1).numpy() for logits in (teacher, student)
    ]
    right = 16 * (b * np.log(b / c)).sum() / 5
    others = 16 * (np.exp(masked[0]) * (masked[0] - masked[1])).sum() / 5
    assert [term.item() for term in decoupled(student, teacher, target, 4.0)] == pytest.approx(
        [right, others], rel=1e-12
    )
