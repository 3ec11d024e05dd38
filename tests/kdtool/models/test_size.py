import torch
from torch import nn

from kdtool.models.options import NetworkOptions
from kdtool.models.size import macs, macs_of_parts, measure
from kdtool.models.sources import create


def test_a_convolution_counts_its_products():
    module = nn.Conv2d(3, 8, 3, padding=1)
    assert macs(module, (3, 10, 10)) == 3 * 8 * 9 * 100


def test_a_part_counts_what_is_in_it():
    inner = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), inner, inner)
    # The inner one runs twice.
    twice = 2 * 8 * 8 * 100
    assert macs_of_parts(module, (3, 10, 10)) == {"0": 3 * 8 * 9 * 100, "1": twice, "1.0": twice}


def test_the_published_sizes():
    densenet = create("kdtool:densenet-bc-100-12", options=NetworkOptions(), data=None)
    size = measure(densenet)
    assert size["parameters"] == 769_162
    # The paper's 296 M also count norms and pools.
    assert round(size["macs"] / 1e6) == 288


def test_attention_counts_as_well():
    net = create("timm:test_vit", options=NetworkOptions(classes=10), data=None)
    linear = sum(
        layer.weight.numel() * (1 if name == "head" else 101)
        for name, layer in net.module.named_modules()
        if isinstance(layer, nn.Linear)
    )
    patches = net.module.patch_embed.proj.weight.numel() * 100
    assert measure(net)["macs"] > linear + patches


def test_zeros_are_not_counted_as_nonzero():
    net = create("kdtool:lenet-300-100", options=NetworkOptions(), data=None)
    size = measure(net)
    assert size["parameters"] == 266_610
    with torch.no_grad():
        net.module.get_parameter(next(name for name, p in net.module.named_parameters() if p.dim() == 2)).zero_()
    assert measure(net)["nonzero"] == size["nonzero"] - 784 * 300


def test_measuring_keeps_the_mode_of_every_part():
    net = create("torchvision:resnet18", options=NetworkOptions(classes=10, image_size=32), data=None)
    net.module.train()
    net.module.bn1.eval()
    measure(net)
    assert net.module.training
    assert not net.module.bn1.training


class Token(nn.Module):
    """A network that gives a parameter of its own to one of its layers."""

    def __init__(self):
        super().__init__()
        self.token, self.first = nn.Parameter(torch.zeros(1, 12)), nn.Linear(12, 10)

    def forward(self, x):
        return self.first(self.token) + self.first(x.flatten(1))


def test_a_parameter_that_a_layer_is_given():
    token = Token()
    assert macs(token, (3, 2, 2)) == 2 * 12 * 10
    assert token.token.requires_grad
