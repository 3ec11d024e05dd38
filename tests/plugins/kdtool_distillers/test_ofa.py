"""OFA: the enhanced cross-entropy against numpy, and the branches by their layers."""

import numpy as np
import pytest
import torch

from kdtool import UsageError
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_distillers.branches import Branches
from kdtool_distillers.ofa import OFA, OFALoss, enhanced, last_width


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def authors(student, teacher, target, gamma, temperature):
    """The loss of the authors' repository for one output."""
    mask = np.eye(student.shape[1])[target]
    product = (softmax(teacher / temperature) + mask) ** gamma
    return (-(product - mask) * np.log(softmax(student / temperature))).sum(axis=1).mean()


@pytest.mark.parametrize("options", [{}, {"gamma": 1.5, "temperature": 2.0, "logit_weight": 0.5, "branch_weight": 3.0}])
def test_the_loss_is_the_authors(options, numbers, step_of):
    outputs, teacher, target = [numbers(4, 5) for _ in range(3)], 3 * numbers(4, 5), torch.tensor([0, 4, 2, 2])
    step = step_of(student=outputs[0], teacher=teacher, target=target, auxiliary=outputs[1:])
    gamma, temperature = options.get("gamma", 1.0), options.get("temperature", 1.0)
    own, *branches = (authors(one.numpy(), teacher.numpy(), target.numpy(), gamma, temperature) for one in outputs)
    expected = step.cross_entropy().item() + options.get("logit_weight", 1) * own
    expected += options.get("branch_weight", 1) * sum(branches)
    assert OFALoss(OFA(**options)).loss(step).item() == pytest.approx(expected, rel=1e-12)


def test_two_classes_by_hand():
    # p = (3/4, 1/4), q = (1/2, 1/2), gamma = 2, the first class is right: (49/16 - 1) log 2 + 1/16 log 2.
    teacher = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    loss = enhanced(torch.zeros(1, 2, dtype=torch.float64), teacher, torch.tensor([0]), 2.0, 1.0)
    assert loss.item() == pytest.approx((33 / 16 + 1 / 16) * np.log(2))


def test_gradient(numbers):
    teacher, target = numbers(3, 4), torch.tensor([0, 1, 3])
    student = numbers(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: enhanced(logits, teacher, target, 1.4, 2.0), student)


def network(spec, size=32):
    return create(spec, options=NetworkOptions(classes=7, in_channels=3, image_size=size), data=None)


def test_a_branch_halves_the_map_once_for_each_later_stage():
    student, teacher = network("kdtool:resnet20"), network("timm:test_vit")
    taps = OFA()._taps(student)
    assert [tap.path for tap in taps] == ["layer1", "layer2", "layer3"]
    width = last_width(student, teacher)
    assert width == max(64, teacher.module.num_features)
    branches = Branches(taps, width=width, classes=7)
    maps = [torch.randn(2, *tap.shape) for tap in taps]
    assert [tuple(logits.shape) for logits in branches(torch.zeros(2, 3, 32, 32), maps)] == [(2, 7)] * 3
    first, second, last = branches.branches
    convolutions = [
        [(layer.in_channels, layer.out_channels, layer.groups, layer.stride[0]) for layer in branch.modules()
         if isinstance(layer, torch.nn.Conv2d)]
        for branch in (first, second, last)
    ]  # fmt: skip
    assert convolutions[2] == [(64, width, 1, 1)]
    assert convolutions[1] == [(32, 32, 32, 2), (32, 32, 1, 1), (32, 32, 32, 1), (32, width, 1, 1)]
    assert convolutions[0] == [
        *[(16, 16, 16, 2), (16, 16, 1, 1), (16, 16, 16, 1), (16, 32, 1, 1)],
        *[(32, 32, 32, 2), (32, 32, 1, 1), (32, 32, 32, 1), (32, width, 1, 1)],
    ]


def test_a_teacher_without_maps_can_teach():
    student, teacher = network("kdtool:resnet20"), network("kdtool:lenet-300-100")
    assert last_width(student, teacher) == 64


def test_branches_stand_behind_the_layers_that_are_named():
    student = network("kdtool:resnet20")
    assert [tap.path for tap in OFA(stages=("layer2",))._taps(student)] == ["layer2"]
    with pytest.raises(UsageError, match="has no layer 'layer9'"):
        OFA(stages=("layer9",))._taps(student)
