"""The rows that are multiplied with a weight, against the layer's own outputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdtool.surgery.repair.products import Product, inputs_at, rows_of


class Padded(nn.Conv2d):
    """Pads more on one side than on the other, as TensorFlow does."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


LAYERS = {
    "plain": (nn.Conv2d(4, 6, 3), (2, 4, 7, 9)),
    "padded, strided": (nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(1, 2)), (2, 4, 7, 9)),
    "dilated, no bias": (nn.Conv2d(4, 6, (3, 2), dilation=(2, 3), padding=2, bias=False), (2, 4, 9, 9)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 5, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (2, 4, 5, 6)),
    "same": (nn.Conv2d(4, 6, (4, 3), padding="same"), (2, 4, 5, 6)),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 5, 6)),
    "reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 5, 6)),
    "by itself": (Padded(4, 6, 3, stride=2), (2, 4, 8, 8)),
    "one dimension": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "three dimensions": (nn.Conv3d(4, 6, 2, padding=1), (2, 4, 3, 4, 5)),
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear of tokens": (nn.Linear(5, 3, bias=False), (4, 7, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_they_give_the_outputs(name):
    layer, shape = LAYERS[name]
    with torch.no_grad(), Product(layer.weight) as product:
        y = rows_of(layer(torch.randn(shape)), layer)
    positions = torch.randperm(len(y))[: len(y) // 2].sort().values
    (seen,) = product.seen
    x = inputs_at(seen, positions)
    assert x.dtype == torch.float64
    groups = len(x)
    weight = layer.weight.detach().flatten(1).unflatten(0, (groups, -1))
    computed = torch.einsum("gri,goi->rgo", x.float(), weight).flatten(1) + (
        0 if layer.bias is None else layer.bias.detach()
    )
    torch.testing.assert_close(computed, y[positions], rtol=1e-4, atol=1e-5)


def test_products_with_other_weights_are_not_seen():
    layer, other = nn.Linear(5, 3), nn.Linear(5, 3)
    with Product(layer.weight) as product:
        other(torch.randn(2, 5))
        layer(torch.randn(2, 5)) @ layer.weight
    assert len(product.seen) == 1
