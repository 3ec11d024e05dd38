"""Weights in use, compared with equations written out here, and what is counted of them."""

import copy

import pytest
import torch
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from kdtool.models.architecture import Architecture, Network
from kdtool.models.used_weights import computed_weights, keep_used_weights, named, nonzero, used_weight


def standardised(weight, eps=1e-6):
    """Return (w - mean) / sqrt(var + eps) for each filter (Qiao et al., 2019, equation 2, with timm's eps)."""
    rows = weight.flatten(1).double()
    centred = rows - rows.mean(1, keepdim=True)
    return (centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()).view_as(weight).float()


def scaled(layer):
    fan_in = layer.weight[0].numel()
    return standardised(layer.weight) * layer.gain * fan_in**-0.5


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (StdConv2d(4, 6, 3, padding=1), lambda layer: standardised(layer.weight)),
        (StdConv2dSame(4, 6, 3, stride=2), lambda layer: standardised(layer.weight)),
        (ScaledStdConv2d(4, 6, 3, gain_init=0.7), scaled),
        (ScaledStdConv2dSame(4, 6, 3, gain_init=1.3), scaled),
    ],
)
def test_standardised_convolutions(layer, expected):
    torch.testing.assert_close(used_weight(layer), expected(layer), rtol=1e-4, atol=1e-5)


def test_weights_of_a_norm_and_a_direction():
    for wrap, size, direction in (
        (weight_norm, "weight_g", "weight_v"),
        (parametrizations.weight_norm, "parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        layer = wrap(nn.Linear(5, 3))
        layer.get_parameter(size).data.mul_(torch.tensor([[1.0], [2.0], [3.0]]))
        g, v = layer.get_parameter(size).detach(), layer.get_parameter(direction).detach()
        torch.testing.assert_close(used_weight(layer), g * v / v.norm(dim=1, keepdim=True))


def test_weights_over_their_largest_singular_value():
    for wrap in (spectral_norm, parametrizations.spectral_norm):
        layer = wrap(nn.Linear(5, 3)).train()
        for _ in range(50):  # each pass is a step of the power iteration
            layer(torch.zeros(1, 5))
        assert torch.linalg.matrix_norm(used_weight(layer), 2).item() == pytest.approx(1, abs=1e-3)


class Scaled(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, 2 * self.weight)


class Twice(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight) + nn.functional.linear(x, self.weight * self.weight)


def test_layers_of_other_kinds():
    scaled = Scaled(3, 2)
    torch.testing.assert_close(used_weight(scaled), 2 * scaled.weight.detach())
    assert used_weight(Twice(3, 2)) is None
    for layer in (
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", dilation=2),
        nn.ConvTranspose2d(3, 4, 3),
        nn.MultiheadAttention(8, 2).out_proj,
    ):
        assert used_weight(layer) is layer.weight
    hooked = nn.Linear(3, 2)
    hooked.register_forward_pre_hook(lambda layer, inputs: None)
    assert used_weight(hooked) is hooked.weight


def test_the_mode_of_a_layer_and_its_statistics_stay():
    layer = parametrizations.spectral_norm(nn.Linear(5, 3)).train()
    before = copy.deepcopy(layer.state_dict())
    used_weight(layer)
    assert layer.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_layers_are_named_with_the_reason():
    module = nn.Sequential(
        StdConv2d(1, 2, 1), weight_norm(nn.Linear(2, 2)), parametrizations.weight_norm(nn.Linear(2, 2))
    )
    assert named(module, computed_weights(module)) == "0 (StdConv2d), 1 (WeightNorm), 2 (WeightNorm)"


def test_a_layer_that_shares_its_parameter_with_a_computed_one_is_one_too():
    module = nn.Sequential(nn.Conv2d(2, 2, 1), StdConv2d(2, 2, 1))
    module[1].weight = module[0].weight
    assert set(computed_weights(module)) == {"0", "1"}


# What is counted


def test_zeros_that_the_standardisation_fills_do_not_count():
    module = nn.Sequential(StdConv2d(4, 4, 3), nn.Conv2d(4, 4, 1, bias=False))
    with torch.no_grad():
        module[0].weight[:, :2] = 0
        module[1].weight[0] = 0
    assert nonzero(module) == 4 * 4 * 9 + 4 * 4 - 4


def test_zeros_of_a_mask_count():
    module = nn.Sequential(nn.Linear(4, 4, bias=False))
    prune.l1_unstructured(module[0], "weight", amount=6)
    assert (module[0].weight_orig != 0).all()
    assert nonzero(module) == 10


def test_a_gain_of_zero_is_not_a_pruned_layer():
    layer = ScaledStdConv2d(4, 4, 3, gain_init=0.0, bias=False)
    assert nonzero(layer) == 4 * 4 * 9 + 4


def test_a_shared_parameter_counts_once():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    module[0].weight.data[0] = 0
    assert nonzero(module) == 6


def test_a_network_whose_hooks_keep_weights_can_be_copied():
    module = nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(4, 2)))
    module(torch.zeros(1, 1, 2, 2)).sum().backward()
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(module)
    network = Network(Architecture("test", "net", {"classes": 2, "in_channels": 1, "image_size": 2}), module)
    assert torch.equal(used_weight(copy.deepcopy(network).module[1]), used_weight(module[1]))


def test_weights_in_use_are_kept_with_their_gradients():
    layer = StdConv2d(2, 3, 1, bias=False)
    kept = []
    keep_used_weights(layer, kept)
    images = torch.rand(4, 2, 5, 5)
    layer(images).square().sum().backward()
    plain = standardised(layer.weight).detach().requires_grad_(True)
    nn.functional.conv2d(images, plain).square().sum().backward()
    assert len(kept) == 1
    torch.testing.assert_close(kept[0], plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kept[0].grad, plain.grad, rtol=1e-3, atol=1e-3)
