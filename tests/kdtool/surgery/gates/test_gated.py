"""Gated networks compared with the networks after removal, in float64, and costs compared with measured sizes."""

import copy
import dataclasses
import functools

import pytest
import torch
from torch import nn

from kdtool import Error
from kdtool.models.architecture import Network, build
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.surgery import drop_blocks
from kdtool.surgery.channels.verify import randomised
from kdtool.surgery.gates.budget import largest
from kdtool.surgery.gates.costs import GateCosts
from kdtool.surgery.gates.gated import Gated, gate_channels
from kdtool.surgery.gates.remove import remove_closed, with_fresh_weights


def network(spec, size=32, keep=None):
    net = create(spec, options=NetworkOptions(classes=10, image_size=size), data=None)
    net = drop_blocks(net, keep=keep) if keep else net
    return Network(net.architecture, randomised(net.module))


DENSE = ("kdtool:densenet-bc-100-12", 8, (3, 2, 2))


@pytest.fixture(scope="module")
def gated_network():
    """Return a function that makes a network with gates, each once; `closed` copies it."""
    return functools.cache(lambda *about: gate_channels(network(*about)))


@pytest.fixture(scope="module")
def dense(gated_network):
    return gated_network(*DENSE)


def closed(gated, seed=0):
    """Close about half of the gates; the open ones are powers of two, so that products with weights are exact."""
    places, generator = gated.module.places, torch.Generator().manual_seed(seed)
    draws = torch.rand(places.count, generator=generator)
    left = draws < 0.5
    for numbers, names in ((places.sets, places.set_names), (places.groups, places.group_names)):
        left |= largest(-draws, numbers, len(names))
    values = 2.0 ** torch.randint(-2, 2, left.shape, generator=generator)
    copied = Network(gated.architecture, copy.deepcopy(gated.module))
    copied.module.gates.data.copy_(torch.where(left, values, 0))
    return copied, left


LENET = ("kdtool:lenet-5", 28, None)
QUICK = (DENSE, LENET, ("kdtool:resnet20", 32, None))
MOBILE = ("torchvision:mobilenet_v3_small", 32, None)
SLOW = [
    pytest.param(spec, size, keep, round_to, marks=pytest.mark.slow)
    for round_to in (1, 4)
    for spec, size, keep in (
        *(QUICK if round_to == 1 else ()),
        MOBILE,
        ("kdtool:densenet-bc-100-12", 32, None),
        ("timm:resnet18", 32, None),
        ("torchvision:resnet50", 32, None),
        ("timm:mobilenetv2_100", 32, None),
        ("timm:mobilenetv3_small_100", 32, None),
        ("timm:densenet121", 32, None),
        ("timm:resnext50_32x4d", 32, None),
        ("timm:vit_tiny_patch16_224", 224, None),
        ("kdtool:wrn-16-2", 32, None),
    )
]


@pytest.mark.parametrize(
    ("spec", "size", "keep", "round_to"), [(*LENET, 1), *((*network, 4) for network in QUICK), *SLOW]
)
def test_what_is_left_gives_the_gated_networks_outputs(spec, size, keep, round_to, gated_network):
    gated, left = closed(gated_network(spec, size, keep))
    images = torch.rand(3, *gated.architecture.input, dtype=torch.double)
    counts = {
        count: GateCosts(gated.module, gated.architecture.input, count, round_to) for count in ("macs", "parameters")
    }
    small = remove_closed(gated, counts["macs"].kept(left))

    sizes = measure(small)
    for count, costs in counts.items():
        assert costs.of(left) == pytest.approx(sizes[count], abs=0.01), count
        assert costs.total == measure(Network(gated.architecture, gated.module.network))[count]
    rebuilt = build(small.architecture, small.module.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt(images.float()), small.module(images.float()))
        expected = gated.module.double()(images)
        torch.testing.assert_close(small.module.double()(images), expected, rtol=1e-12, atol=1e-12)


def test_open_gates_change_nothing():
    net = network("kdtool:resnet20")
    gated = gate_channels(net)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(gated.module(images), net.module(images), rtol=1e-5, atol=0)


def test_a_layer_drops_a_channel_that_another_keeps(dense):
    readers = {reader.path: reader for reader in dense.module.places.connections}
    block = "features.denseblock1."
    # The stem has 24 channels, a layer 12: the second layer reads the stem and the first.
    assert len(readers[block + "denselayer2.conv1"].gates) == 24 + 12
    assert readers[block + "denselayer2.conv1"].norm == block + "denselayer2.norm1"
    gated = Network(dense.architecture, copy.deepcopy(dense.module))
    gates = gated.module.gates.data
    gates[readers[block + "denselayer2.conv1"].gates[24:30]] = 0
    gates[readers[block + "denselayer9.conv1"].gates[[0, 40]]] = 0
    small = remove_closed(gated, gates > 0)
    assert {path: len(index) for path, index in small.architecture.selects.items()} == {
        block + "denselayer2.norm1": 30,
        block + "denselayer9.norm1": 46,
    }
    assert small.architecture.selects[block + "denselayer2.norm1"] == [*range(24), *range(30, 36)]
    assert small.module.get_submodule(block + "denselayer1.conv2").out_channels == 12


def test_a_channel_that_nobody_reads_any_more_is_not_made(dense):
    places = dense.module.places
    group = places.group_names.index("features.denseblock1.denselayer1.conv2")
    unit = places.units[places.groups == group].min()
    gated = Network(dense.architecture, copy.deepcopy(dense.module))
    gated.module.gates.data[places.units == unit] = 0
    small = remove_closed(gated, gated.module.gates > 0)
    assert small.module.get_submodule("features.denseblock1.denselayer1.conv2").out_channels == 11
    # A layer that reads all remaining channels needs no selection.
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(small.module(images), gated.module(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_search_can_follow_a_search(dense):
    first, left = closed(dense)
    once = remove_closed(first, left)
    second, left = closed(gate_channels(once), seed=1)
    twice = remove_closed(second, left)
    images = torch.rand(2, 3, 8, 8, dtype=torch.double)
    with torch.no_grad():
        expected = second.module.double()(images)
        torch.testing.assert_close(twice.module.double()(images), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", ["macs", "parameters"])
def test_what_a_gate_saves_is_the_difference_of_two_costs(dense, count):
    _, left = closed(dense)
    costs = GateCosts(dense.module, dense.architecture.input, count)
    saved = costs.saved(left)
    for gate in range(0, costs.gates, 37):
        with_it, without_it = left.clone(), left.clone()
        with_it[gate], without_it[gate] = True, False
        assert saved[gate].item() == pytest.approx(costs.of(with_it) - costs.of(without_it), abs=0.01), gate


def test_costs_by_hand():
    gated = gate_channels(network("kdtool:lenet-5", 28))
    costs = GateCosts(gated.module, (1, 28, 28))
    # 5x5 kernels: 1 -> 6 maps of 28x28, 6 -> 16 maps of 10x10, 16 -> 120 maps of 1x1; then 120 -> 84 -> 10.
    assert costs.total == 28 * 28 * 25 * 6 + 10 * 10 * 25 * 6 * 16 + 25 * 16 * 120 + 120 * 84 + 84 * 10
    saved = costs.saved(torch.ones(costs.gates, dtype=torch.bool))
    expected = {
        "conv1": 28 * 28 * 25 + 10 * 10 * 25 * 16,
        "conv2": 10 * 10 * 25 * 6 + 25 * 120,
        "conv3": 25 * 16 + 84,
        "fc1": 120 + 10,
    }
    by_set = {name: saved[costs.sets == number] for number, (name, _) in enumerate(gated.module.places.set_names)}
    assert {name: set(values.tolist()) for name, values in by_set.items()} == {
        name: {float(value)} for name, value in expected.items()
    }


def test_sets_keep_multiples(dense):
    costs = GateCosts(dense.module, dense.architecture.input, round_to=8)
    _, left = closed(dense)
    kept = costs.kept(left)
    assert (kept | ~left).all()
    for number in range(costs.set_count):
        members = costs.sets == number
        count, size = int(kept[members].sum()), int(members.sum())
        assert count % 8 == 0 or count == size
        assert count - int(left[members].sum()) < 8


def test_a_gate_of_several_channels_counts_them():
    torch.manual_seed(0)
    grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), grouped, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    lenet = create("kdtool:lenet-5", options=NetworkOptions(classes=10, image_size=28), data=None)
    gated = gate_channels(Network(lenet.architecture, nn.Sequential(*layers, nn.Linear(32, 10)).eval()))
    costs = GateCosts(gated.module, (1, 28, 28), round_to=8)
    # A gate closes a channel of each of the four groups of the convolution.
    assert costs.set_sizes.tolist() == [8, 8]
    kept = costs.kept(torch.arange(8).repeat(2) < 3)
    assert [int(kept[costs.sets == number].sum()) for number in range(2)] == [4, 4]  # 16 channels, a multiple of 8


def test_a_norm_over_channels_has_no_gates():
    gated = gate_channels(network("timm:test_convnext", 32, (1, 1, 1)))
    # Only the channels between the two layers of an MLP are not normalised over.
    assert all("mlp.fc1" in name for name, _ in gated.module.places.set_names)


def test_no_place_for_a_gate():
    lenet = create("kdtool:lenet-5", options=NetworkOptions(classes=10, image_size=28), data=None)
    linear = Network(lenet.architecture, nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    with pytest.raises(Error, match=r"kdtool:lenet-5: there is no place for a gate: .*; use another method"):
        gate_channels(linear)


def test_a_weight_in_two_places_has_no_gate():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    module.append(nn.ReLU()).append(nn.Linear(8, 8)).append(nn.ReLU()).append(nn.Linear(8, 10))
    module[5].weight = module[3].weight
    lenet = create("kdtool:lenet-5", options=NetworkOptions(classes=10, image_size=28), data=None)
    gated = gate_channels(Network(lenet.architecture, module.eval()))
    # Of the channels that 7 reads, 5 could not lose any, unless 3 lost them too.
    assert {reader.path for reader in gated.module.places.readers} == {"9"}


class Sum(nn.Module):
    """Two linear layers of one weight whose outputs are added; the first has another path that comes before its own."""

    def __init__(self):
        super().__init__()
        self.other, self.head = nn.Linear(784, 8), nn.Linear(8, 10)
        self.first = nn.Linear(784, 8)
        self.body = nn.Sequential(nn.Flatten(), self.first)
        self.other.weight = self.first.weight

    def forward(self, x):
        return self.head((self.body(x) + self.other(2 * x.flatten(1))).relu())


def test_shared_weights_cost_once_and_layers_of_two_paths_are_counted():
    torch.manual_seed(0)
    lenet = create("kdtool:lenet-5", options=NetworkOptions(classes=10, image_size=28), data=None)
    gated = gate_channels(Network(lenet.architecture, Sum().eval()))
    left = torch.arange(8) < 3
    of_macs, of_parameters = (GateCosts(gated.module, (1, 28, 28), count) for count in ("macs", "parameters"))
    assert of_macs.of(left) == pytest.approx(2 * 784 * 3 + 3 * 10)
    assert of_parameters.of(left) == pytest.approx(784 * 3 + 2 * 3 + 3 * 10 + 10)


def test_groups_that_share_a_norm_do_not_both_have_gates():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU())
    module.extend([nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10)])
    module[5].weight, module[5].bias = module[2].weight, module[2].bias
    lenet = create("kdtool:lenet-5", options=NetworkOptions(classes=10, image_size=28), data=None)
    names = {name for name, _ in gate_channels(Network(lenet.architecture, module.eval())).module.places.set_names}
    # The search closes other channels of 1 than of 4, and one tensor cannot lose both.
    assert names == {"7"}


def test_gates_learn_with_the_weights():
    gated = gate_channels(network("kdtool:lenet-5", 28)).module
    assert isinstance(gated, Gated)
    gated.gates.data.uniform_(0.5, 1.5)
    images = torch.rand(2, 1, 28, 28)
    gated(images).square().mean().backward()
    # g times the derivative of f(g w) by g is the sum, over the weights that g multiplies, of w times that by w.
    reader = next(reader for reader in gated.places.readers if reader.path == "conv2")
    weight = gated.network.get_parameter("conv2.weight")
    expected = (weight.grad * weight).sum((0, 2, 3))
    torch.testing.assert_close((gated.gates.grad * gated.gates)[reader.gates], expected)


def test_fresh_weights_depend_on_the_seed(gated_network):
    gated, left = closed(gated_network(*LENET))
    small = remove_closed(gated, left)
    first, again, other = (with_fresh_weights(small, seed) for seed in (0, 0, 1))
    for name, weight in first.module.state_dict().items():
        assert weight.shape == small.module.state_dict()[name].shape
        assert torch.equal(weight, again.module.state_dict()[name])
    name = "conv2.weight"
    assert not torch.equal(first.module.get_parameter(name), other.module.get_parameter(name))
    assert dataclasses.asdict(first.architecture) == dataclasses.asdict(small.architecture)
