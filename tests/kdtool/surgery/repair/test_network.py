"""Networks without channels, repaired: against least squares by numpy, and against what can be worked out by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from kdtool import Error
from kdtool.models.architecture import Architecture, Network
from kdtool.surgery.repair import network as repairing
from kdtool.surgery.repair.network import repair_network
from kdtool.surgery.slicing.inherited import InheritedNetwork

ARCHITECTURE = Architecture("test", "net", {"classes": 3, "in_channels": 2, "image_size": 6})


def images(count=200, shape=(2, 6, 6)):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(3))


def network(*layers):
    return Network(ARCHITECTURE, nn.Sequential(*layers))


def without(net, first, second, kept):
    """Return a copy that keeps some outputs of the layer ``first``, which ``second`` reads."""
    module = copy.deepcopy(net.module)
    kept = torch.tensor(kept)
    for tensor in ("weight", "bias"):
        if getattr(module[first], tensor) is not None:
            setattr(module[first], tensor, nn.Parameter(getattr(module[first], tensor).detach()[kept]))
    module[second].weight = nn.Parameter(module[second].weight.detach()[:, kept])
    for layer, name in ((module[first], "out"), (module[second], "in")):
        setattr(layer, f"{name}_{'features' if isinstance(layer, nn.Linear) else 'channels'}", len(kept))
    return InheritedNetwork(ARCHITECTURE, module, {str(first): kept})


def outputs(net, x):
    with torch.no_grad():
        return net.module(x)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# Least squares


def solved(x, weight, bias, target):
    """Return weight [inputs, outputs] and bias of a layer that reads rows ``x``, by numpy.

    The rows of sqrt(k) I stand for the ridge. The ridge is that with the least error on the last quarter of the rows.
    """

    def change(rows, ridge):
        means = x[rows].mean(0), missing[rows].mean(0)
        k = ridge * ((x[rows] - means[0]) ** 2).sum() / x.shape[1]
        longer = np.vstack([x[rows] - means[0], k**0.5 * np.eye(x.shape[1])])
        right = np.vstack([missing[rows] - means[1], np.zeros((x.shape[1], missing.shape[1]))])
        change = np.linalg.lstsq(longer, right, rcond=None)[0]
        return change, means[1] - means[0] @ change

    missing = target - x @ weight - bias
    split = len(x) - len(x) // 4

    def error(ridge):
        weights, biases = change(slice(split), ridge)
        return ((missing[split:] - x[split:] @ weights - biases) ** 2).mean()

    weights, biases = change(slice(None), min((1e-6, 1e-4, 1e-2, 1.0), key=error))
    return weight + weights, bias + biases


def parameters(layer):
    """Return the weight of a layer as [inputs, outputs], and its bias."""
    return layer.weight.detach().double().flatten(1).T.numpy(), layer.bias.detach().double().numpy()


def test_two_layers_are_those_of_numpy():
    net = network(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.Flatten(), nn.Linear(12, 3))
    small = without(net, 0, 2, [0, 2, 3, 4, 5, 7])
    x = images(800)
    done = repair_network(small, net, x, "least-squares")
    hidden = outputs(Network(ARCHITECTURE, small.module[:2]), x).double()
    rows = nn.functional.unfold(hidden, 3).transpose(1, 2).reshape(-1, 6 * 9).numpy()
    target = outputs(Network(ARCHITECTURE, net.module[:3]), x).double().movedim(1, -1).reshape(-1, 3).numpy()
    expected = solved(rows, *parameters(small.module[2]), target)
    for ours, theirs in zip(parameters(done.network.module[2]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # The last layer reads what the corrected one returns.
    between = (rows @ expected[0] + expected[1]).reshape(800, 4, 3).transpose(0, 2, 1).reshape(800, 12)
    expected = solved(between, *parameters(small.module[4]), outputs(net, x).double().numpy())
    for ours, theirs in zip(parameters(done.network.module[4]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert done.layers == ["2", "4"]
    assert done.errors[1] < done.errors[0]


@pytest.mark.parametrize("bias", [True, False])
def test_channels_that_others_repeat_are_no_loss(bias):
    first = nn.Conv2d(2, 6, 3, padding=1, bias=bias)
    with torch.no_grad():
        first.weight[4:] = first.weight[:2]
        if bias:
            first.bias[4:] = first.bias[:2]
    net = network(first, nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, bias=bias), nn.Flatten(), nn.Linear(144, 3))
    small = without(net, 0, 2, [0, 1, 2, 3])
    x = images()
    done = repair_network(small, net, x[:150], "least-squares")
    assert (outputs(small, x) - outputs(net, x)).abs().max() > 1e-2
    torch.testing.assert_close(outputs(done.network, x), outputs(net, x), rtol=1e-4, atol=1e-4)
    assert (done.layers, done.left) == (["2"], {})


def test_grouped_convolutions_are_repaired_group_by_group():
    net = network(
        *(nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8)),
        *(nn.Flatten(), nn.Linear(32, 3)),
    )
    module = copy.deepcopy(net.module)
    with torch.no_grad():
        for layer in (net.module[0], module[0]):  # channels 1 and 5 repeat channels 0 and 4
            layer.weight[[1, 5]], layer.bias[[1, 5]] = layer.weight[[0, 4]], layer.bias[[0, 4]]
        module[1].weight[:, 1] = 0.5 * module[1].weight[:, 0]
    done = repair_network(InheritedNetwork(ARCHITECTURE, module), net, images(), "least-squares")
    torch.testing.assert_close(outputs(done.network, images()), outputs(net, images()), rtol=1e-4, atol=1e-4)
    assert done.layers == ["1"]


def test_weights_that_are_zero_stay_zero():
    net = network(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.Flatten(), nn.Linear(12, 3))
    zero = torch.rand(3, 8, 3, 3) < 0.7
    with torch.no_grad():
        net.module[2].weight[zero] = 0
    done = repair_network(without(net, 0, 2, [0, 1, 4]), net, images(), "least-squares")
    assert "2" in done.layers
    assert not done.network.module[2].weight[zero[:, [0, 1, 4]]].any()
    assert done.network.module[2].weight[~zero[:, [0, 1, 4]]].all()


def test_more_layers_than_memory_take_several_runs(monkeypatch):
    net = network(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.Flatten(), nn.Linear(12, 9), nn.Linear(9, 3))
    small = without(net, 0, 2, [0, 1, 2, 3, 5, 6])
    whole = repair_network(small, net, images(), "least-squares")
    monkeypatch.setattr(repairing, "HELD", 1)
    parts = repair_network(small, net, images(), "least-squares")
    assert whole.layers == parts.layers
    assert len(whole.layers) > 1
    for one, other in zip(whole.network.module.parameters(), parts.network.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_same_images_give_the_same_bits():
    net = network(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    small = halved_weight(net, net.module[0])
    one, other = (repair_network(small, net, images(), "least-squares") for _ in range(2))
    assert all(
        torch.equal(tensor, other.network.module.state_dict()[name])
        for name, tensor in one.network.module.state_dict().items()
    )


def halved_weight(net, layer):
    """Return a copy in which a layer has smaller weights, so that it returns something else."""
    module = copy.deepcopy(net.module)
    number = list(net.module).index(layer)
    with torch.no_grad():
        for parameter in module[number].parameters():
            parameter.mul_(0.5)
    return InheritedNetwork(ARCHITECTURE, module)


# Mean and variance


def test_the_mean_of_a_channel_moves_into_the_bias():
    """Channels that are constant are no loss: b' = b + W[:, gone] c, summed over the kernel."""
    net = network(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 2), nn.Flatten(), nn.Linear(75, 3))
    constant = torch.tensor([0.7, -1.2])
    with torch.no_grad():
        net.module[0].weight[[1, 3]] = 0
        net.module[0].bias[[1, 3]] = constant
    done = repair_network(without(net, 0, 1, [0, 2]), net, images(), "statistics")
    before = net.module[1]
    expected = before.bias + (before.weight[:, [1, 3]] * constant[:, None, None]).sum((1, 2, 3))
    torch.testing.assert_close(done.network.module[1].bias, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs(done.network, images()), outputs(net, images()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(done.network.module[1].weight, before.weight[:, [0, 2]], rtol=1e-4, atol=1e-5)


def test_outputs_get_the_mean_and_the_deviation_that_they_had():
    net = network(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.Flatten(), nn.Linear(12, 3))
    small = without(net, 0, 2, [0, 2, 5])
    done = repair_network(small, net, images(), "statistics").network
    for end, dims in ((3, (0, 2, 3)), (5, 0)):
        now, before = (one.module[:end](images()).detach() for one in (done, net))
        torch.testing.assert_close(now.mean(dims), before.mean(dims), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(now.std(dims), before.std(dims), rtol=1e-3, atol=1e-4)


def test_outputs_that_do_not_vary_are_not_scaled():
    net = network(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(108, 3))
    with torch.no_grad():
        net.module[0].weight[0] = 0
    done = repair_network(without(net, 0, 2, [0]), net, images(), "statistics")
    assert torch.equal(done.network.module[2].weight, net.module[2].weight[:, [0]])
    outputs_ = done.network.module[:3](images()).detach().mean((0, 2, 3))
    torch.testing.assert_close(outputs_, net.module[:3](images()).detach().mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_batch_norms_get_the_statistics_of_the_images_where_something_changed():
    net = network(
        *(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 3)),
    )
    module = without(net, 0, 3, [0, 1, 3]).module
    module[1] = nn.BatchNorm2d(3).eval()
    small = InheritedNetwork(ARCHITECTURE, module, {"0": torch.tensor([0, 1, 3])})
    done = repair_network(small, net, images(), "statistics").network.module
    assert not done[1].running_mean.any()  # what it receives is what it received before
    inputs = module[:4](images()).detach().movedim(1, 0).flatten(1).double()
    torch.testing.assert_close(done[4].running_mean.double(), inputs.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(done[4].running_var.double(), inputs.var(1), rtol=1e-4, atol=1e-5)


# What cannot be repaired


def left(net, small, method="least-squares"):
    return repair_network(small, net, images(), method).left


def test_layers_that_compute_their_weight_are_named():
    normed = parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    net = network(nn.Conv2d(2, 2, 1), normed, nn.Flatten(), nn.Linear(48, 3))
    assert left(net, halved_weight(net, normed)) == {"1": "computes its weight (WeightNorm)"}


def test_layers_that_run_several_times_or_share_their_weight_are_named():
    again = nn.Conv2d(2, 2, 3, padding=1)
    net = network(again, again, nn.Flatten(), nn.Linear(72, 3))
    assert left(net, halved_weight(net, again))["0"] == "is called several times"
    shared = nn.Conv2d(2, 2, 3, padding=1)
    shared.weight = again.weight
    net = network(again, shared, nn.Flatten(), nn.Linear(72, 3))
    assert left(net, halved_weight(net, again))["0"] == "shares its weight with another layer"


def test_a_layer_that_multiplies_in_its_own_way_is_named():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    last = Doubled(72, 3)
    net = network(nn.Flatten(), last)
    for method in ("statistics", "least-squares"):
        assert left(net, halved_weight(net, last), method) == {"1": "multiplies in its own way (Doubled)"}


def test_a_mean_without_a_bias_is_named():
    net = network(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3, bias=False), nn.Flatten(), nn.Linear(12, 3))
    assert left(net, without(net, 0, 2, [0, 1, 2]), "statistics") == {"2": "has no bias, and no batch-norm follows"}


def test_a_layer_whose_channels_are_not_known_is_named():
    net = network(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.Flatten(), nn.Linear(12, 3))
    small = without(net, 0, 2, [0, 1, 2])
    unknown = InheritedNetwork(ARCHITECTURE, small.module, {})
    assert left(net, unknown) == {"0": "kept outputs that are not known"}


def test_a_network_that_does_not_say_what_it_kept_is_refused():
    net = network(nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(Error, match="test:net: cannot be repaired, .* leave out --repair"):
        repair_network(Network(ARCHITECTURE, copy.deepcopy(net.module)), net, images(), "statistics")
