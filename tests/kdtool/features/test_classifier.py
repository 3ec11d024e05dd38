"""The weights of a network's linear classifier."""

import pytest
import torch

from kdtool.features import classifier_weight
from kdtool.models.conversion import Convention, Conversion, converted
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create


def network(spec, classes=5):
    return create(spec, options=NetworkOptions(classes=classes, in_channels=3, image_size=32), data=None)


@pytest.mark.parametrize(
    ("spec", "path"), [("kdtool:resnet20", "fc"), ("timm:test_vit", "head"), ("kdtool:lenet-300-100", None)]
)
def test_the_last_linear_layer_is_found(spec, path):
    some = network(spec)
    layers = {name: layer for name, layer in some.module.named_modules() if isinstance(layer, torch.nn.Linear)}
    layer = layers[path] if path else list(layers.values())[-1]
    assert torch.equal(classifier_weight(some), layer.weight)
    assert not classifier_weight(some).requires_grad


def test_rows_are_in_the_order_of_the_runs_classes():
    some = network("kdtool:resnet20", 3)
    numbers = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    conversion = Conversion(Convention(*numbers, ("a", "b", "c")), Convention(*numbers, ("c", "a", "b")))
    assert torch.equal(classifier_weight(converted(some, conversion)), some.module.fc.weight[[2, 0, 1]])


def test_a_convolution_is_no_linear_layer():
    assert classifier_weight(network("torchvision:squeezenet1_1")) is None


def test_a_layer_of_as_many_outputs_is_not_taken_for_the_classifier():
    some = network("kdtool:resnet20")
    some.module.fc = torch.nn.Sequential(torch.nn.Linear(64, 5), torch.nn.ReLU(), torch.nn.Linear(5, 5))
    assert torch.equal(classifier_weight(some), some.module.fc[2].weight)
