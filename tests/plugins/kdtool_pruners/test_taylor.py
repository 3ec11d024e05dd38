"""The first-order change of the loss, compared with derivatives by gates that multiply the filters' outputs."""

import dataclasses

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn
from torch.nn import functional as F

import kdtool
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.architecture import Architecture, Network
from kdtool.surgery.channels.groups import groups
from kdtool.training.options import Training
from kdtool_pruners.taylor import changes, squared, train_batches


class Gated(nn.Module):
    """Two convolutions whose sum is multiplied by one gate per channel."""

    def __init__(self, kind=nn.Conv2d):
        super().__init__()
        self.first, self.second = kind(1, 3, 3, bias=True), kind(1, 3, 3, bias=True)
        self.head = nn.Linear(3, 2)
        self.gates = torch.ones(3, requires_grad=True)

    def forward(self, x):
        maps = self.first(x) + self.second(x)
        return self.head(F.relu(maps * self.gates.view(-1, 1, 1)).mean((2, 3)))


def batches(count):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 1, 6, 6, generator=generator), torch.tensor([0, 1, 0, 1])) for _ in range(count)]


@pytest.mark.parametrize("kind", [nn.Conv2d, StdConv2d])
def test_scores_are_the_squared_derivatives_by_gates(kind):
    torch.manual_seed(0)
    module = Gated(kind).eval()
    expected = torch.zeros(3)
    for images, labels in batches(2):
        (derivative,) = torch.autograd.grad(F.cross_entropy(module(images), labels), module.gates)
        expected += derivative.square() / 2
    architecture = Architecture("test", "net", {"classes": 2, "in_channels": 1, "image_size": 6})
    graphs = [group.graph for group in groups(Network(architecture, module))]
    scores = squared(graphs[0], changes(module, batches(2)))
    torch.testing.assert_close(scores, expected)


def test_the_network_is_left_without_gradients():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2)).eval()
    by_layer = changes(module, batches(3))
    assert {path: rows.shape for path, rows in by_layer.items()} == {"0": (3, 2), "2": (3, 2)}
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("kind", [nn.Conv2d, StdConv2d])
def test_a_layer_that_is_never_called_changes_nothing(kind):
    module = Gated(kind).eval()
    expected = changes(module, batches(2))
    module.idle, module.unread = kind(1, 3, 3), nn.Linear(3, 4)
    by_layer = changes(module, batches(2))
    assert not by_layer.pop("idle").any()
    assert torch.equal(by_layer.pop("unread"), torch.zeros(2, 4))
    assert all(torch.equal(rows, expected[path]) for path, rows in by_layer.items())


def test_it_wants_data(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "teacher.pt")
    with pytest.raises(kdtool.UsageError, match="--data"):
        kdtool.prune(teacher, "taylor", epochs=0, output=tmp_path / "small.pt")


def test_images_without_a_label_take_no_part(tmp_path):
    options = DataOptions(data="digits", subset=0.05, augment="none")
    training, entry = Training(batch_size=16), None
    drawn = []
    for unlabelled in (None, "digits"):
        data = open_data(dataclasses.replace(options, unlabelled=unlabelled))
        run = kdtool.Run(tmp_path, data=data, training=training, parent=None, entry=entry)
        drawn.append(list(train_batches(run, 3)))
    for (images, labels), (same, others) in zip(*drawn, strict=True):
        assert torch.equal(labels, others)
        torch.testing.assert_close(images, same)


def test_several_steps_reach_the_ratio_of_the_parameters(tmp_path):
    options = {"data": "digits", "augment": "none", "subset": 0.3}
    teacher = kdtool.teacher("kdtool:lenet-5", epochs=1, output=tmp_path / "teacher.pt", **options)
    pruned = kdtool.prune(
        teacher, "taylor", ratio=0.6, steps=2, round_to=1, batches=2, epochs=1, output=tmp_path / "small.pt"
    )
    sizes = [sum(tensor.numel() for tensor in model.module.parameters()) for model in (teacher, pruned)]
    assert 1 - sizes[1] / sizes[0] == pytest.approx(0.6, abs=0.005)
    assert pruned.history[-1]["reached"]["removed"] == pytest.approx(0.6, abs=0.005)
    assert pruned.history[-1]["reached"]["asked"] == 0.6


@pytest.mark.parametrize("kind", [nn.Conv2d, StdConv2d])
def test_an_activation_that_overwrites_its_input_changes_no_score(kind):
    torch.manual_seed(0)
    plain, in_place = (
        nn.Sequential(kind(1, 3, 3), nn.SiLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
        for inplace in (False, True)
    )
    in_place.load_state_dict(plain.state_dict())
    expected, found = changes(plain, batches(2)), changes(in_place, batches(2))
    torch.testing.assert_close(found["0"], expected["0"])


def test_changes_are_those_of_each_batch_with_running_statistics_and_biases():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
    nn.init.uniform_(conv.bias, 1, 2)
    module = nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    found = changes(module, batches(2))["0"]
    for row, (images, labels) in zip(found, batches(2), strict=True):
        weight, bias = torch.autograd.grad(F.cross_entropy(module(images), labels), [conv.weight, conv.bias])
        expected = (weight * conv.weight).flatten(1).sum(1) + bias * conv.bias
        torch.testing.assert_close(row, expected.detach())


def test_another_seed_draws_other_batches(tmp_path):
    data = open_data(DataOptions(data="digits", subset=0.1, augment="none"))
    drawn = []
    for seed in (0, 1):
        run = kdtool.Run(tmp_path, data=data, training=Training(batch_size=16, seed=seed), parent=None, entry=None)
        drawn.append(torch.cat([labels for _, labels in train_batches(run, 3)]))
    assert not torch.equal(*drawn)
