"""MLKD against the authors' loss of two views, in numpy."""

import numpy as np
import pytest
import torch

from kdtool_distillers.mlkd import MLKD, levels


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kd(student, teacher, temperature):
    p, q = softmax(student / temperature), softmax(teacher / temperature)
    return (q * np.log(q / p)).sum(axis=1).mean() * temperature**2


def between(student, teacher, temperature, *, classes):
    p, q = (softmax(logits / temperature) for logits in (student, teacher))
    p, q = (p.T, q.T) if classes else (p, q)
    return ((p @ p.T - q @ q.T) ** 2).sum() / len(p)


def authors(student, teacher, target, *, labels, weight):
    """The loss of the authors' repository; ``student`` and ``teacher`` hold the logits of the weak and strong view."""
    weak, strong = zip(student, teacher, strict=True)
    certain = softmax(weak[1])
    images = certain.max(axis=1) <= np.percentile(certain.max(axis=1), 50)
    classes = certain.sum(axis=0) <= np.percentile(certain.sum(axis=0), 50)
    rows = np.arange(len(target))
    total = sum(-labels * np.log(softmax(view)[rows, target]).mean() for view in student)
    for temperature in (4, 3, 5, 2, 6):
        total += weight * (kd(*weak, temperature) * images).mean()
        total += weight * kd(*(weak if temperature in (2, 6) else strong), temperature)
        total += weight * (between(*weak, temperature, classes=True) * classes).mean()
        total += weight * (between(*weak, temperature, classes=False) * images).mean()
    return total


@pytest.mark.parametrize(("shape", "seed"), [((8, 6), 0), ((4, 10), 1)])
def test_the_defaults_are_the_authors_loss_of_two_equal_views(shape, seed, step_of):
    chance = np.random.default_rng(seed)
    student, teacher = 3 * chance.normal(size=shape), 5 * chance.normal(size=shape)
    target = chance.integers(0, shape[1], shape[0])
    step = step_of(
        student=torch.from_numpy(student), teacher=torch.from_numpy(teacher), target=torch.from_numpy(target)
    )
    expected = authors([student] * 2, [teacher] * 2, target, labels=0.1, weight=0.9)
    assert MLKD(class_weight=0.45).loss(step).item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("images", "classes", "weight"), [(64, 100, 0.45), (32, 50, 0.45), (128, 10, 0.45 / 400), (64, 10, 0.0045)]
)
def test_the_weight_between_classes_is_the_authors_for_their_batches_and_classes(images, classes, weight, step_of):
    chance = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(chance.normal(size=(images, classes))) for _ in range(2))
    step = step_of(student=student, teacher=teacher, target=torch.zeros(images, dtype=torch.long))
    assert MLKD().loss(step).item() == pytest.approx(MLKD(class_weight=weight).loss(step).item(), rel=1e-12)


def test_each_weight_is_of_its_term(numbers, step_of):
    student, teacher = 3 * numbers(5, 3), 3 * numbers(5, 3)
    arrays = student.numpy(), teacher.numpy()
    terms = [kd(*arrays, 3), between(*arrays, 3, classes=False), between(*arrays, 3, classes=True)]
    assert [term.item() for term in levels(student, teacher, 3.0)] == pytest.approx(terms, rel=1e-11)
    weights = {"instance_weight": 0.5, "batch_weight": 2.0, "class_weight": 3.0, "labels": 0.25}
    step = step_of(student=student, teacher=teacher)
    expected = 0.25 * step.cross_entropy().item() + 0.5 * terms[0] + 2 * terms[1] + 3 * terms[2]
    assert MLKD(temperatures=(3.0,), **weights).loss(step).item() == pytest.approx(expected, rel=1e-11)


def test_gradient(numbers):
    teacher = numbers(4, 3)
    assert torch.autograd.gradcheck(lambda logits: levels(logits, teacher, 2.0), numbers(4, 3).requires_grad_())
