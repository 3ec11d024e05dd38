"""Which networks can run on maps whose channels come last in memory."""

import copy

import pytest
import torch
from torch import nn

from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.memory_format import takes_channels_last
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import evaluate
from kdtool.training.options import Training


class View(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1)


@pytest.fixture
def plain():
    return create("kdtool:conv4-fc2", options=NetworkOptions(classes=10, in_channels=3, image_size=16), data=None)


@pytest.fixture
def viewing(plain):
    found = copy.deepcopy(plain)
    flatten = next(name for name, part in found.module.named_modules() if isinstance(part, nn.Flatten))
    found.module.set_submodule(flatten, View())
    return found


def test_a_network_that_views_a_map_does_not_take_it(plain, viewing):
    assert takes_channels_last(plain)
    assert not takes_channels_last(viewing)
    # The trial leaves the network as it was.
    assert all(part.weight.is_contiguous() for part in plain.module.modules() if isinstance(part, nn.Conv2d))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_runs_all_the_same(plain, viewing, precision):
    training = Training(device="cpu", precision=precision)
    data = open_data(DataOptions(data="digits"), image_size=16, in_channels=3)
    losses = []
    for networks, takes in (([plain], True), ([viewing], False), ([plain, viewing], False)):
        engine = engine_for(training, 64, *networks)
        assert engine.channels_last == takes
        module = engine.place(copy.deepcopy(networks[0].module))
        losses.append(evaluate(module, data.val, engine=engine)["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5 if precision == "fp32" else 1e-2)


def test_convolutions_get_what_is_fast(plain):
    seen = []
    engine = engine_for(Training(device="cpu", precision="fp32"), 64, plain)
    module = engine.place(plain.module)
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    data = open_data(DataOptions(data="digits"), image_size=16, in_channels=3)
    evaluate(module, data.val, engine=engine)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in seen)
    assert seen


def test_what_holds_for_all_networks_of_a_structure_is_found_once(plain, monkeypatch):
    class Flatten(nn.Flatten):
        def forward(self, x):
            return x.view(len(x), -1)

    tried = []

    def takes(network):
        tried.append(network)
        return takes_channels_last(network)

    monkeypatch.setattr("kdtool.training.engine.takes_channels_last", takes)
    again, other = copy.deepcopy(plain), copy.deepcopy(plain)
    training = Training(device="cpu", precision="fp32")
    assert engine_for(training, 64, plain).channels_last
    assert engine_for(training, 32, again).channels_last
    assert tried == [plain]
    # It looks the same, but has other code.
    flatten = next(name for name, part in other.module.named_modules() if isinstance(part, nn.Flatten))
    other.module.set_submodule(flatten, Flatten())
    assert repr(other.module) == repr(plain.module)
    assert not engine_for(training, 64, other).channels_last
