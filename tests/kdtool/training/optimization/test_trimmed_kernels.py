"""Kernels without the weights that meet padding alone: the same outputs and gradients as torch's."""

import copy

import pytest
import torch
from torch import nn

from kdtool.training.optimization import trimmed_kernels as module_under_test
from kdtool.training.optimization.trimmed_kernels import part_that_meets, trimmable, trimmed_kernels


@pytest.mark.parametrize(
    ("size", "kernel", "padding", "stride", "dilation", "part"),
    [
        (1, 3, 1, 1, 1, (slice(1, 2), 0)),  # the middle of three
        (2, 3, 1, 2, 1, (slice(1, 3), 0)),  # one output, which begins in the padding
        (2, 3, 1, 1, 1, None),  # the first output meets the last two, the second one the first two
        (2, 5, 2, 1, 1, (slice(1, 4), 1)),
        (1, 7, 3, 2, 1, (slice(3, 4), 0)),
        (2, 3, 2, 1, 2, (slice(1, 2), 0)),  # with gaps of one, the outer two fall outside of two pixels
        (8, 3, 1, 1, 1, None),
        (4, 1, 2, 1, 1, None),  # one weight, which meets padding in some outputs and the image in others
    ],
)
def test_the_part_that_meets_the_image_by_hand(size, kernel, padding, stride, dilation, part):
    assert part_that_meets(size, kernel, padding, stride, dilation) == part


@pytest.mark.parametrize("height", range(1, 6))
@pytest.mark.parametrize("settings", [(3, 1, 1, 1), (3, 1, 2, 1), (5, 2, 1, 1), (3, 2, 1, 2), ((7, 3), (3, 1), 2, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_same_outputs_and_gradients_as_torch(height, settings, layout, monkeypatch):
    monkeypatch.setattr(module_under_test, "SMALLEST", 1)
    kernel, padding, stride, dilation = settings
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups=2).double().to(memory_format=layout)
    trimmed = copy.deepcopy(plain)
    results = []
    for layer, layers in ((plain, []), (trimmed, trimmable(trimmed))):
        images = torch.randn(3, 4, height, 2, dtype=torch.double, generator=torch.Generator().manual_seed(1))
        images.requires_grad_()
        with trimmed_kernels(layers):
            output = layer(images)
        output.square().sum().backward()
        results.append((output, images.grad, layer.weight.grad, layer.bias.grad))
    for theirs, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_fewer_products_are_computed_and_the_layer_is_left_as_it_was():
    layer = nn.Conv2d(128, 128, 3, padding=1)
    seen = []
    with trimmed_kernels(trimmable(layer)), pytest.MonkeyPatch.context() as patch:
        conv2d = module_under_test.F.conv2d
        patch.setattr(
            module_under_test.F,
            "conv2d",
            lambda x, weight, *rest: seen.append(weight.shape) or conv2d(x, weight, *rest),
        )
        copied = copy.deepcopy(layer)
        layer(torch.randn(2, 128, 1, 1))
    assert seen == [(128, 128, 1, 1)]
    assert "_conv_forward" not in vars(layer)
    assert torch.equal(copied(torch.ones(1, 128, 4, 4)), layer(torch.ones(1, 128, 4, 4)))


def test_layers_of_their_own_kind_stay_as_they_are():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    layers = nn.Sequential(
        Doubled(128, 128, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(128, 128, 3, padding="same"),
        nn.Conv2d(256, 256, 1),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1),
    )
    assert trimmable(layers) == [layers[5]]
