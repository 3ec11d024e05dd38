"""The norms compared with sums by hand, and the whole command on a small network."""

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import nn

import kdtool
from kdtool.models.architecture import Architecture, Network
from kdtool.surgery.channels.groups import groups
from kdtool.testing.checks import check_pruner
from kdtool_pruners.filter_l1 import FilterL1, filter_norms


class Added(nn.Module):
    """Two convolutions whose outputs are added."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head((self.first(x) + self.second(x)).mean((2, 3)))


def scores(module, channels=1):
    architecture = Architecture("test", "net", {"classes": 3, "in_channels": channels, "image_size": 4})
    return [filter_norms(group.graph) for group in groups(Network(architecture, module))]


def test_norms_are_relative_to_the_layer_and_averaged_over_layers_that_are_added():
    module = Added()
    module.first.weight.data.copy_(torch.tensor([1.0, -3.0]).view(2, 1, 1, 1))
    module.second.weight.data.copy_(torch.tensor([-6.0, 2.0]).view(2, 1, 1, 1))
    (norms,) = scores(module)
    # 1 and 3 have the mean 2, 6 and 2 the mean 4.
    torch.testing.assert_close(norms, torch.tensor([(0.5 + 1.5) / 2, (1.5 + 0.5) / 2]))


def test_a_filter_is_all_of_its_weights():
    module = nn.Sequential(nn.Conv2d(1, 2, (1, 2), bias=False), nn.Flatten(), nn.Linear(2 * 4 * 3, 3))
    module[0].weight.data.copy_(torch.tensor([[1.0, -1.0], [3.0, 3.0]]).view(2, 1, 1, 2))
    (norms,) = scores(module)
    torch.testing.assert_close(norms, torch.tensor([0.5, 1.5]))


def test_the_norms_are_those_of_the_weights_in_use():
    torch.manual_seed(0)
    conv = ScaledStdConv2d(2, 3, 3)
    conv.gain.data.copy_(torch.tensor([1.0, 3.0, 2.0]).view(3, 1, 1, 1))
    module = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    before = conv.weight.clone()
    (norms,) = scores(module, channels=2)
    rows = conv.weight.detach().flatten(1)
    used = (rows - rows.mean(1, keepdim=True)) / rows.std(1, correction=0, keepdim=True)
    l1 = used.abs().sum(1) * torch.tensor([1.0, 3.0, 2.0])
    torch.testing.assert_close(norms, l1 / l1.mean(), rtol=1e-3, atol=1e-4)
    assert torch.equal(conv.weight, before)


@pytest.mark.slow
def test_filter_l1_keeps_the_promises_of_a_pruner():
    check_pruner(FilterL1(round_to=1))


def test_the_history_says_what_was_reached(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "teacher.pt")
    pruned = kdtool.prune(teacher, "filter-l1", ratio=0.5, round_to=1, epochs=0, output=tmp_path / "small.pt")
    reached = pruned.history[-1]["reached"]
    assert reached["asked"] == 0.5
    assert reached["removed"] == pytest.approx(0.5, abs=0.005)
    size = [kdtool.inspect(path)["parameters"] for path in (tmp_path / "teacher.pt", tmp_path / "small.pt")]
    assert 1 - size[1] / size[0] == pytest.approx(reached["removed"], abs=1e-4)


@pytest.mark.slow
def test_many_steps_leave_each_layer_what_one_step_leaves_it(tmp_path):
    # A layer's mean rises when its smallest filters are removed. If each step used the new means, the first layer,
    # whose norms differ most, would lose nearly all of its filters.
    teacher = kdtool.teacher("kdtool:vgg8", classes=10, image_size=32, seed=0, output=tmp_path / "teacher.pt")
    module = teacher.network.module
    convolutions = [path for path, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]
    spread = torch.linspace(0.2, 1.8, 64).view(-1, 1, 1, 1)
    module.get_submodule(convolutions[0]).weight.data.mul_(spread)
    teacher.save(tmp_path / "spread.pt")
    widths = {}
    for steps in (1, 8):
        pruned = kdtool.prune(
            tmp_path / "spread.pt",
            "filter-l1",
            ratio=0.5,
            of="macs",
            round_to=1,
            steps=steps,
            epochs=0,
            output=tmp_path / f"{steps}.pt",
        )
        widths[steps] = [pruned.network.module.get_submodule(path).out_channels for path in convolutions]
    whole = [module.get_submodule(path).out_channels for path in convolutions]
    kept = [[now / before for now, before in zip(widths[steps], whole, strict=True)] for steps in (1, 8)]
    assert kept[1] == pytest.approx(kept[0], abs=0.06)
