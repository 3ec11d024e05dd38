"""Convolutions as training runs them: the same outputs and gradients as torch's, by faster ways where these pay."""

import copy
import pickle

import pytest
import torch
from torch import nn

from kdtool.training.optimization import fast_convolutions as module_under_test, small_maps
from kdtool.training.optimization.fast_convolutions import convolutions, fast_convolutions


def both_ways(plain, images, layout):
    """Return what a layer and a copy that computes small maps fast put out, with all gradients."""
    fast = copy.deepcopy(plain)
    results = []
    for layer, layers in ((plain, []), (fast, convolutions(fast))):
        own = images.clone(memory_format=layout).requires_grad_()
        with fast_convolutions(layers):
            output = layer(own)
        output.square().sum().backward()
        results.append((output, own.grad, *(parameter.grad for parameter in layer.parameters())))
    return results


def products(monkeypatch):
    """Return the shapes of the matrices of weights that are going to be multiplied."""
    seen, linear = [], module_under_test.F.linear
    monkeypatch.setattr(
        module_under_test.F, "linear", lambda x, weight, *rest: seen.append(weight.shape) or linear(x, weight, *rest)
    )
    return seen


SETTINGS = [(3, 1, 1, 1), (3, 1, 2, 1), (5, 2, 1, 1), (3, 2, 1, 2), ((7, 3), (3, 1), 2, 1), (1, 0, 1, 1), (1, 0, 2, 1)]


@pytest.mark.parametrize("height", range(1, 6))
@pytest.mark.parametrize("settings", [*SETTINGS, (1, (2, 1), 1, 1), ((1, 2), 0, (2, 1), 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_same_outputs_and_gradients_as_torch(height, settings, layout, groups, monkeypatch):
    monkeypatch.setattr(module_under_test, "SMALLEST", 1)
    monkeypatch.setattr(small_maps, "PIXELS_PER_CHANNEL", 20)
    multiplied = products(monkeypatch)
    kernel, padding, stride, dilation = settings
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups).double().to(memory_format=layout)
    theirs, mine = both_ways(plain, torch.randn(3, 4, height, 2, dtype=torch.double), layout)
    for expected, found in zip(theirs, mine, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert bool(multiplied) == (groups == 1 and layout == torch.channels_last)
    assert mine[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("channels", "out", "size", "kernel", "images", "matrix"),
    [
        (16, 120, 5, 5, 64, (120, 400)),  # the last convolution of LeNet-5: as many pixels as images
        (32, 64, 2, 3, 64, (64, 288)),  # 256 pixels for 64 channels
        (32, 64, 2, 3, 65, None),  # four more
        (16, 64, 8, 3, 1, (64, 144)),  # a larger map of 64 pixels
        (16, 64, 8, 3, 2, None),
        (8, 4, 8, 1, 64, (4, 8)),  # one tap: 4,096 pixels
        (8, 4, 8, 1, 65, None),
    ],
)
def test_a_product_is_taken_where_it_pays(channels, out, size, kernel, images, matrix, monkeypatch):
    multiplied = products(monkeypatch)
    layer = nn.Conv2d(channels, out, kernel, padding=0 if kernel == size else kernel // 2)
    layer = layer.to(memory_format=torch.channels_last)
    pixels = torch.randn(images, channels, size, size)
    theirs, mine = both_ways(layer, pixels, torch.channels_last)
    assert multiplied == ([] if matrix is None else [matrix])
    for expected, found in zip(theirs, mine, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_in_half_precision_for_twice_as_many_pixels(monkeypatch):
    multiplied = products(monkeypatch)
    layer = nn.Conv2d(32, 64, 3, padding=1).bfloat16().to(memory_format=torch.channels_last)
    for images in (128, 129):
        pixels = torch.randn(images, 32, 2, 2).bfloat16().contiguous(memory_format=torch.channels_last)
        with fast_convolutions([layer]):
            layer(pixels)
    assert len(multiplied) == 1


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "size"), [(1, 3, 1, 8), (16, 32, 3, 2), (16, 32, 3, 1), (1, 8, 3, 2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_same_order_in_memory_as_torchs(channels, out, kernel, size, layout, monkeypatch):
    # Maps of one channel or one pixel are in both orders, and a network may view what comes out as it lies there.
    multiplied = products(monkeypatch)
    layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2).to(memory_format=layout)
    theirs, mine = both_ways(layer, torch.randn(8, channels, size, size), layout)
    assert bool(multiplied) == (layout == torch.channels_last or channels == 1 or size == 1)
    assert mine[0].is_contiguous() == theirs[0].is_contiguous()
    assert mine[0].is_contiguous(memory_format=torch.channels_last) == theirs[0].is_contiguous(
        memory_format=torch.channels_last
    )


def test_a_pass_in_inference_mode_comes_first():
    layer = nn.Conv2d(8, 16, 3, padding=1).to(memory_format=torch.channels_last)
    pixels = torch.randn(2, 8, 2, 2).contiguous(memory_format=torch.channels_last)
    small_maps.windows.cache_clear()
    with fast_convolutions([layer]):
        with torch.inference_mode():
            layer(pixels)
        layer(pixels.requires_grad_()).sum().backward()
    assert pixels.grad is not None


def test_blocks_in_blocks_and_copies_that_are_pickled():
    layer = nn.Conv2d(128, 128, 3, padding=1)
    with fast_convolutions([layer]):
        with fast_convolutions([layer]):
            pass
        assert "_conv_forward" in vars(layer)
        copied = copy.deepcopy(layer)
        assert copied._conv_forward.__func__ is nn.Conv2d._conv_forward  # it may be exported, or compared with another
        assert pickle.loads(pickle.dumps(layer))._conv_forward.__func__ is nn.Conv2d._conv_forward
    loaded = pickle.loads(pickle.dumps(copied))
    images = torch.randn(2, 128, 4, 4)
    assert torch.equal(loaded(images), layer(images))
    assert "_conv_forward" not in vars(layer)


def test_the_same_bits_each_time_on_two_threads():
    layer = nn.Conv2d(128, 256, 3, padding=1).to(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = (
            both_ways(copy.deepcopy(layer), torch.randn(64, 128, 2, 2, generator=generator), torch.channels_last)[1]
            for generator in (torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))
        )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_mixed_precision_is_as_exact_as_torchs():
    torch.manual_seed(0)
    layer = nn.Conv2d(128, 256, 3, padding=1).to(memory_format=torch.channels_last)
    pixels = torch.randn(64, 128, 2, 2)
    exact = both_ways(layer, pixels, torch.channels_last)[0]
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs, mine = both_ways(layer, pixels, torch.channels_last)
    assert mine[0].dtype == torch.bfloat16
    for reference, expected, found in zip(exact, theirs, mine, strict=True):
        errors = [(value.float() - reference).norm() / reference.norm() for value in (expected, found)]
        assert errors[1] < 1.5 * errors[0] < 0.02


def test_weights_that_meet_padding_alone_are_cut_and_the_layer_is_left_as_it_was(monkeypatch):
    layer = nn.Conv2d(128, 128, 3, padding=1)
    seen = products(monkeypatch)
    with fast_convolutions(convolutions(layer)):
        copied = copy.deepcopy(layer)
        layer(torch.randn(2, 128, 1, 1))
    assert seen == [(128, 128)]
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
    assert convolutions(layers) == list(layers[3:])


@pytest.mark.parametrize("autocast", [True, False])
def test_depthwise_convolutions_stay_in_float32(autocast):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, padding=1, groups=8), nn.Conv2d(16, 8, 1, groups=2))
    layers = layers.to(memory_format=torch.channels_last)
    given, kinds = [], []
    for layer in layers:
        layer.register_forward_hook(lambda _, inputs, output: kinds.append((inputs[0].dtype, output.dtype)))
    layers[1].register_forward_hook(lambda _, inputs, output: given.append((inputs[0], output)))
    pixels = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), fast_convolutions(convolutions(layers)):
        layers(pixels).float().square().sum().backward()
    half, whole = torch.bfloat16 if autocast else torch.float32, torch.float32
    assert kinds == [(whole, half), (half, whole), (whole, half)]
    (x, output), (weight, bias) = given[0], layers[1].parameters()
    exact = nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1, groups=8)
    assert torch.allclose(output.double(), exact, rtol=1e-5, atol=1e-6)
    assert weight.grad.dtype == torch.float32
    assert weight.grad.abs().min() > 0
