"""The masks against torch.nn.utils.prune, a second library."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from kdtool_pruners.magnitude import apply_masks, prunable, smallest


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8, 0.95])
def test_masks_equal_global_unstructured(ratio):
    module = network()
    masks = smallest(prunable(module), ratio)
    other = copy.deepcopy(module)
    layers = [(other[0], "weight"), (other[4], "weight")]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=ratio)
    torch.testing.assert_close(masks["0.weight"].float(), other[0].weight_mask)
    torch.testing.assert_close(masks["4.weight"].float(), other[4].weight_mask)


def test_biases_and_norms_are_left_alone():
    assert set(prunable(network())) == {"0.weight", "4.weight"}


def test_existing_zeros_count_as_removed():
    module = network()
    apply_masks(module, smallest(prunable(module), 0.5))
    apply_masks(module, smallest(prunable(module), 0.6))
    weights = torch.cat([weight.flatten() for weight in prunable(module).values()])
    assert (weights == 0).sum() == round(0.6 * len(weights))


def test_ties_are_cut_at_the_exact_count():
    masks = smallest({"w": torch.ones(10)}, 0.3)
    assert masks["w"].sum() == 7
