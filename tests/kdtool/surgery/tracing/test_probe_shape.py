"""Small images must show the same as large ones."""

import pytest
import torch

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery.channels import remove
from kdtool.surgery.tracing.probe_shape import least_shape
from kdtool_pruners.filter_l1 import filter_norms


def network(spec, size):
    return create(spec, options=NetworkOptions(classes=10, image_size=size), data=None)


@pytest.mark.parametrize(
    ("spec", "size", "probe_size"),
    [
        ("torchvision:resnet18", 224, 64),
        ("timm:mobilenetv3_small_100", 160, 64),
        ("torchvision:resnet18", 48, 48),
        # Embeds its positions; normalises over the channels of each position; its classifier reads the whole map.
        ("timm:vit_tiny_patch16_224", 224, 224),
        ("timm:convnext_atto", 128, 128),
        ("kdtool:lenet-300-100", 72, 72),
    ],
)
def test_small_images_for_networks_of_convolutions_alone(spec, size, probe_size):
    net = network(spec, size)
    channels = net.architecture.input[0]
    assert least_shape(net.module, net.architecture.input) == (channels, probe_size, probe_size)
    assert not any(part._forward_pre_hooks for part in net.module.modules())


@pytest.mark.parametrize(
    "spec",
    [
        "timm:test_resnet",
        pytest.param("torchvision:resnet18", marks=pytest.mark.slow),
        pytest.param("timm:mobilenetv3_small_100", marks=pytest.mark.slow),
        pytest.param("timm:efficientnet_b0", marks=pytest.mark.slow),
        pytest.param("torchvision:densenet121", marks=pytest.mark.slow),
    ],
)
def test_the_same_channels_go(spec, monkeypatch):
    net = network(spec, 128)

    def removed():
        return remove.remove_channels(net, ratio=0.4, importance=filter_norms, round_to=4)

    small = removed()
    monkeypatch.setattr(remove, "least_shape", lambda module, shape: shape)
    large = removed()
    assert (small.removed, small.reason) == (large.removed, large.reason)
    small_weights, large_weights = small.network.module.state_dict(), large.network.module.state_dict()
    assert small_weights.keys() == large_weights.keys()
    assert all(torch.equal(small_weights[name], large_weights[name]) for name in small_weights)
