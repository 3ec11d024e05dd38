"""Stochastic depth on networks of timm and torchvision."""

import pytest
import timm
import torch
import torchvision
from timm.layers import DropPath

from kdtool import UsageError
from kdtool.training.optimization.drop_path import dropping_paths


def rates_of(module):
    """Return the probabilities with which branches are dropped, in order; some networks leave out those of 0."""
    return [part.drop_prob for part in module.modules() if isinstance(part, DropPath) and part.drop_prob]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_timm_drops_as_if_it_was_built_so(name):
    plain = timm.create_model(name, num_classes=3).train()
    built = timm.create_model(name, num_classes=3, drop_path_rate=0.4).train()
    for parameter in plain.parameters():  # some begin with branches of 0
        torch.nn.init.normal_(parameter, std=0.1)
    structure = str(plain)
    images = torch.rand(8, 3, 32, 32)
    with dropping_paths([plain], 0.4):
        assert rates_of(plain) == pytest.approx(rates_of(built))
        assert rates_of(plain)[-1] == pytest.approx(0.4)
        torch.manual_seed(0)
        first = plain(images)
        assert not torch.equal(plain(images), first)
        built.load_state_dict(plain.state_dict())
        assert torch.equal(plain.eval()(images), built.eval()(images))
    assert str(plain) == structure


def test_torchvision():
    module = torchvision.models.convnext_tiny(num_classes=3)
    before = [part.p for part in module.modules() if isinstance(part, torchvision.ops.StochasticDepth)]
    with dropping_paths([module], 0.3):
        now = [part.p for part in module.modules() if isinstance(part, torchvision.ops.StochasticDepth)]
        assert (now[0], now[-1]) == (0.0, pytest.approx(0.3))
    assert before == [part.p for part in module.modules() if isinstance(part, torchvision.ops.StochasticDepth)]


def test_other_networks_are_refused():
    with pytest.raises(UsageError, match="--drop-path"), dropping_paths([torchvision.models.resnet18()], 0.1):
        pass
    with dropping_paths([torchvision.models.resnet18()], 0.0):
        pass


class Together(torch.nn.Module):
    """What learns with a student: a network, networks in a list, and an adapter."""

    def __init__(self, one, *others):
        super().__init__()
        self.teacher, self.members, self.adapter = one, torch.nn.ModuleList(others), torch.nn.Conv2d(3, 3, 1)


def test_each_network_that_learns_has_its_own_rise():
    student, teacher, *peers = (timm.create_model("test_vit", num_classes=3).train() for _ in range(4))
    without = torchvision.models.resnet18(num_classes=3)
    others = Together(teacher, *peers, without)
    before = str(others)
    with dropping_paths([student, others], 0.4):
        expected = rates_of(student)
        assert expected[-1] == pytest.approx(0.4)
        assert [rates_of(network) for network in (teacher, *peers)] == [expected] * 3
    assert str(others) == before
    with pytest.raises(UsageError, match="--drop-path"), dropping_paths([without, others], 0.4):
        pass
    assert str(others) == before
