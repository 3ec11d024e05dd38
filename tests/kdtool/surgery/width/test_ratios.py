"""Widths at other ratios, rounded, and only inside of blocks.

The result is smaller, runs, and can be rebuilt, or the network is refused. The tables say which are refused.
"""

import pytest
import torch
from torch import nn

from benchmarks.coverage.trying import stir
from kdtool import Error
from kdtool.models.checkpoint import Checkpoint, read
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import halve_widths

OPTIONS = {
    "wide": {"ratio": 0.75},
    "narrow": {"ratio": 0.25},
    "odd": {"ratio": 0.6},
    "often": {"ratio": 0.7, "times": 3},
    "by 8": {"round_to": 8},
    "by 16, inherited": {"ratio": 0.75, "round_to": 16, "init": "inherit"},
    "odd, inherited": {"ratio": 0.6, "init": "inherit"},
    "inner": {"scope": "inner"},
    "inner by 8, inherited": {"scope": "inner", "ratio": 0.6, "round_to": 8, "init": "inherit"},
}
INHERITED = {name for name, options in OPTIONS.items() if "init" in options}
INNER = {name for name, options in OPTIONS.items() if "scope" in options}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("spec", "image_size", "refused"),
    [
        slow("kdtool:resnet20", 32, {"by 16, inherited"}),  # its shortcuts pad 32 channels with zeros to 64
        slow("timm:test_vit", 32, set()),
        slow("torchvision:resnet18", 32, set()),
        slow("torchvision:densenet121", 32, set()),
        slow("torchvision:mobilenet_v3_small", 32, set()),
        slow("torchvision:regnet_y_400mf", 32, set()),
        slow("torchvision:resnext50_32x4d", 32, set()),
        slow("torchvision:shufflenet_v2_x1_0", 32, INHERITED | INNER),  # shuffled channels; no residual blocks
        slow("torchvision:efficientnet_b0", 32, set()),
        slow("torchvision:googlenet", 64, INNER),  # no residual blocks
        slow("kdtool:densenet-bc-100-12", 8, set()),
        slow("timm:cait_xxs24_224", 32, {"by 16, inherited", "odd, inherited"}),
        slow("timm:convnext_atto", 32, set()),
        slow("timm:edgenext_x_small", 64, {"by 8", "by 16, inherited", "odd, inherited"}),
        slow("timm:eva02_tiny_patch14_224", 28, {"odd"} | INHERITED),  # rotary embeddings rotate pairs of channels
        slow("timm:ghostnet_100", 32, {"odd, inherited"} | INNER),
        slow("timm:levit_128s", 64, set()),
        slow("timm:mixer_s32_224", 64, set()),
        slow("timm:mobilevit_xxs", 64, set()),
        slow("timm:mobilevitv2_075", 64, {"by 8", "by 16, inherited"} | INNER),  # splits off a single channel
        slow("timm:poolformer_s12", 64, set()),
        slow("timm:repvgg_a0", 32, INNER),
        slow("timm:res2net50_14w_8s", 32, {"by 16, inherited", "inner by 8, inherited"}),
        slow("timm:skresnet18", 32, INNER),
        slow("timm:swin_tiny_patch4_window7_224", 64, set()),
        slow("timm:test_nfnet", 64, INNER),
        slow("timm:vit_tiny_patch16_224", 64, set()),
    ],
)
def test_other_ratios(spec, image_size, refused, tmp_path):
    assert tried(spec, image_size, OPTIONS, tmp_path) == refused


def test_some_ratios_of_a_small_network(tmp_path):
    options = {name: OPTIONS[name] for name in ("often", "by 8", "inner by 8, inherited")}
    assert tried("kdtool:resnet20", 8, options, tmp_path) == set()


def tried(spec, image_size, options_by_name, tmp_path):
    """Return the names of the options that are refused; what the others give is checked."""
    network = create(spec, options=NetworkOptions(classes=10, image_size=image_size), data=None)
    refused = set()
    for name, options in options_by_name.items():
        try:
            small = halve_widths(network, **options)
        except Error:
            refused.add(name)
            continue
        assert parameters(small) < parameters(network), name
        assert not unrounded(network, small, options.get("round_to", 1)), name
        stir(small)
        expected = outputs(small)
        Checkpoint(small).save(tmp_path / "small.pt")
        assert torch.equal(outputs(read(tmp_path / "small.pt").network), expected), name
        assert not torch.equal(expected[0], expected[1]), name
    return refused


def parameters(network):
    return sum(parameter.numel() for parameter in network.module.parameters())


def outputs(network):
    images = torch.randn(2, *network.architecture.input, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.module(images)


def unrounded(network, small, round_to):
    """Return the layers that were narrowed to a width that is not a multiple of ``round_to``."""
    before = {path: layer.weight.shape[0] for path, layer in network.module.named_modules() if is_layer(layer)}
    after = {path: layer.weight.shape[0] for path, layer in small.module.named_modules() if is_layer(layer)}
    return [path for path, width in after.items() if width % round_to and width != before[path]]


def is_layer(part):
    return isinstance(part, nn.Conv2d | nn.Linear)
