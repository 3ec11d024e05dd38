"""VID against numpy."""

import math

import numpy as np
import pytest
import torch

from kdtool.features.pairs import Pair
from kdtool.features.taps import Tap
from kdtool_distillers.regressors import Normal
from kdtool_distillers.vid import VID, unlikelihood


def pair(side, other):
    return Pair(Tap("a", (3, side, side), "nchw"), Tap("b", (4, other, other), "nchw"), as_map=True)


def halved(maps):
    return maps.reshape(*maps.shape[:2], maps.shape[2] // 2, 2, maps.shape[3] // 2, 2).mean(axis=(3, 5))


def authors(regressor, scale, student, teacher):
    """The loss of the authors' repository for one stage; ``regressor`` are the weights of the three convolutions."""
    if student.shape[2] > teacher.shape[2]:
        student = halved(student)
    elif student.shape[2] < teacher.shape[2]:
        teacher = halved(teacher)
    x = student
    for number, weight in enumerate(regressor):
        x = np.einsum("bchw,oc->bohw", x if number == 0 else np.maximum(x, 0), weight)
    variance = (np.log(1 + np.exp(scale)) + 1e-5).reshape(1, -1, 1, 1)
    return (0.5 * ((x - teacher) ** 2 / variance + np.log(variance))).mean()


@pytest.mark.parametrize(("side", "other"), [(4, 4), (4, 2), (2, 4)])
def test_the_loss_is_the_authors(side, other, numbers, step_of):
    torch.manual_seed(0)
    stages = [pair(side, other), pair(2, 2)]
    adapters = VID().adapters(stages).double()
    students, teachers, expected = [], [], 0.0
    for adapter, stage in zip(adapters, stages, strict=True):
        torch.nn.init.normal_(adapter.scale)
        student, teacher = (numbers(2, *tap.shape) for tap in (stage.student, stage.teacher))
        weights = [layer.weight[:, :, 0, 0].detach().numpy() for layer in adapter.mean if hasattr(layer, "weight")]
        # The variances are computed in float32.
        scale = adapter.scale.detach().float().double().numpy()
        expected += authors(weights, scale, student.numpy(), teacher.numpy())
        students.append(student)
        teachers.append(teacher)
    maps = list(zip(adapters(students), teachers, strict=True))
    assert VID(weight=3.0).loss(step_of(maps)).item() == pytest.approx(math.log(3) + 3 * expected, rel=1e-6)


@pytest.mark.parametrize("variance", [0.01, 5.0, 500.0])
def test_the_first_variance(variance):
    adapter = Normal(pair(2, 2), variance)
    _, found = adapter(torch.zeros(1, 3, 2, 2)).chunk(2, dim=1)
    assert found.flatten().tolist() == pytest.approx([variance] * 16, rel=1e-4)
    if variance == 5.0:
        # The authors' log(exp(5 - 1e-5) - 1).
        assert adapter.scale.tolist() == pytest.approx([math.log(math.exp(5 - 1e-5) - 1)] * 4, rel=1e-6)


def test_by_hand():
    # Means 1 and 3, variances 2 and 4, the teacher's numbers 0 and 3.
    predicted = torch.tensor([1.0, 3.0, 2.0, 4.0], dtype=torch.float64).view(1, 4, 1, 1)
    teacher = torch.tensor([0.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1)
    expected = (1 / 2 + math.log(2) + math.log(4)) / 4
    assert unlikelihood(predicted, teacher).item() == pytest.approx(expected)


def test_means_and_variances_learn():
    adapter = Normal(pair(4, 4), 5.0)
    unlikelihood(adapter(torch.randn(2, 3, 4, 4)), torch.randn(2, 4, 4, 4)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())
    assert len(list(adapter.parameters())) == 4


def test_gradient(numbers):
    teacher = numbers(1, 2, 2, 2)
    predicted = torch.cat([numbers(1, 2, 2, 2), 1 + numbers(1, 2, 2, 2).abs()], dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: unlikelihood(maps, teacher), predicted)
