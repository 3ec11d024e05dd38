import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal
from torchvision.models import ViT_B_32_Weights, vit_b_32
from torchvision.ops import DeformConv2d

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


class Product(nn.Module):
    """Computes a product from an image of [3, 8, 8]."""

    def __init__(self, product):
        super().__init__()
        self.product, self.layer = product, nn.Bilinear(8, 8, 4)

    def forward(self, x):
        return self.product(self, x[0])


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        (lambda net, x: net.layer(x, x), 24 * 4 * 8 * 8),
        (lambda _, x: x @ x[0, 0], 24 * 8),
        (lambda _, x: torch.dot(x.flatten(), x.flatten()), 192),
        (lambda _, x: torch.addmv(x[0, 0], x[0], x[0, 0]), 8 * 8),
        (lambda _, x: torch.addbmm(x[0], x, x), 3 * 8 * 8 * 8),
    ],
)
def test_products_with_vectors_count(product, expected):
    assert macs(Product(product), (3, 8, 8)) == expected


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


# Operators that PyTorch runs as one, which its counter does not know.


class Sequences(nn.Module):
    """A network that gives the rows of an image, as a sequence, to a layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(0, 1))


def of_attention(positions, width):
    """Return the products of self-attention: queries, keys and values, scores, their products, the output."""
    return positions * width * 3 * width + 2 * positions**2 * width + positions * width**2


def test_the_attention_of_pytorch_counts():
    with torch.device("meta"):
        module = vit_b_32()
    published = ViT_B_32_Weights.DEFAULT.meta["_ops"]
    assert macs(module.to_empty(device="cpu"), (3, 224, 224)) / 1e9 == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_transformer_layers_of_pytorch_count(batch_first):
    layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=batch_first)
    module = Sequences(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    # A layer with the batch second sees as many images as the image has rows.
    positions, images = (7, 1) if batch_first else (1, 7)
    one = images * of_attention(positions, 24) + 7 * 2 * 24 * 48
    assert macs(module, (1, 7, 24)) == 2 * one
    parts = macs_of_parts(module, (1, 7, 24))
    assert parts["layer.layers.0.self_attn"] == images * of_attention(positions, 24)
    assert parts["layer.layers.1.linear2"] == 7 * 24 * 48
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_every_recurrent_layer_counts(kind, gates):
    once, deep = kind(24, 32, batch_first=True), kind(24, 32, num_layers=2, bidirectional=True)
    assert macs(Sequences(once), (1, 7, 24)) == 7 * gates * (24 + 32) * 32
    assert macs(Sequences(deep), (1, 7, 24)) == 2 * 7 * gates * ((24 + 32) + (2 * 32 + 32)) * 32


def test_recurrent_layers_on_a_gpu_count():
    weights = [torch.empty(shape, device="meta") for shape in ((128, 24), (128, 32), (128,), (128,))]
    state, lstm = torch.empty(1, 1, 32, device="meta"), 2

    class Fused(nn.Module):
        def forward(self, x):
            told = (4, None, state, state, lstm, 32, 0, 1, True, 0.0, False, False, [], None)
            return torch.ops.aten._cudnn_rnn(x.flatten(0, 1).to("meta"), weights, *told)

    assert macs(Fused(), (1, 7, 24)) == 7 * 4 * (24 + 32) * 32


def test_a_deformable_convolution_counts():
    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.offsets, self.layer = nn.Conv2d(4, 18, 1), DeformConv2d(4, 8, 3, padding=1, groups=2)

        def forward(self, x):
            return self.layer(x, self.offsets(x))

    assert macs_of_parts(Deformed(), (4, 5, 5)) == {"offsets": 4 * 18 * 25, "layer": 8 * 2 * 9 * 25}


def test_products_that_compute_a_weight_do_not_count():
    module = nn.Sequential(orthogonal(nn.Conv2d(3, 8, 3)), nn.Flatten(), orthogonal(nn.Linear(32, 5)))
    assert macs(module, (3, 4, 4)) == 3 * 8 * 9 * 4 + 32 * 5
