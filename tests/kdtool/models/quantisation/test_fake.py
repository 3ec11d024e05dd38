"""Networks that round like one of 8-bit integers, held against torch's own observers and fake quantisation."""

import copy

import pytest
import torch
from torch import nn
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

from kdtool import Error, Network
from kdtool.models.architecture import Architecture, build
from kdtool.models.quantisation.fake import (
    NAME,
    calibrate,
    float_weights,
    from_data,
    quantised,
    quantiser_of,
    scale_and_zero_point,
    weight_scales,
    without_quantiser,
)
from kdtool.models.quantisation.places import find_places


def network(name="lenet-300-100", source="kdtool", size=8, channels=1):
    options = {"classes": 10, "in_channels": channels, "image_size": size, "stem": "default"}
    architecture = Architecture(source=source, name=name, options=options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(architecture, build(architecture))


def images(count=16, size=8, channels=1, seed=0):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def rounding(of, skip=()):
    made = quantised(of, find_places(of, skip))
    channels, size, _ = of.architecture.input
    calibrate(made.module, [images(size=size, channels=channels)])
    return made


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-2.0, -0.5), (0.0, 0.0)])
def test_scale_and_zero_point_are_those_of_torch(low, high):
    observer = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine, quant_min=0, quant_max=255)
    observer(torch.tensor([low, high]))
    scale, zero_point = observer.calculate_qparams()
    own = scale_and_zero_point(torch.tensor(low), torch.tensor(high))
    assert own[0].item() == pytest.approx(scale.item(), rel=1e-6)
    assert own[1].item() == zero_point.item()


def test_scales_of_weights_are_those_of_torch():
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    observer = PerChannelMinMaxObserver(
        ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-127, quant_max=127
    )
    observer(weight)
    torch.testing.assert_close(weight_scales(weight), observer.calculate_qparams()[0])


def test_a_network_rounds_its_images_weights_and_activations():
    plain = network()
    made, x = rounding(plain), images()
    modules = [module for module in plain.module.modules() if isinstance(module, nn.Linear)]

    def rounded(tensor):
        observer = MinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=255)
        observer(tensor)
        scale, zero = observer.calculate_qparams()
        return torch.fake_quantize_per_tensor_affine(tensor, scale.item(), zero.item(), 0, 255)

    expected = rounded(x).flatten(1)
    for layer in modules:
        scales = layer.weight.detach().abs().amax(1) / 127
        weight = (layer.weight / scales[:, None]).round() * scales[:, None]
        expected = nn.functional.linear(expected, weight, layer.bias)
        if layer is not modules[-1]:
            # The range of a calibration is that of the rounded pass.
            expected = rounded(expected.relu())
    torch.testing.assert_close(made.module(x), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(made.module(x), plain.module(x))


def test_a_layer_that_is_skipped_keeps_its_weights():
    plain = network()
    first = quantiser_of(rounding(plain).module).places
    left = quantiser_of(rounding(plain, skip=[first.weights[0].partition(":")[0]]).module).places
    assert left.weights == first.weights[1:]
    assert "input" in first.activations
    assert "input" not in left.activations


def test_ranges_follow_the_batches_in_training_alone():
    made = rounding(network())
    quantiser = quantiser_of(made.module)
    before = quantiser.high.clone()
    made.module(10 * images(seed=1))
    assert torch.equal(quantiser.high, before)
    x = 10 * images(seed=1)
    made.module.train()(x)
    number = quantiser.index["input"]
    assert quantiser.high[number].item() == pytest.approx(0.9 * before[number].item() + 0.1 * x.max().item())


def test_the_gradient_passes_within_the_range_alone():
    made = rounding(network())
    quantiser = quantiser_of(made.module)
    quantiser.low.fill_(-1.0)
    quantiser.high.fill_(1.0)
    x = torch.tensor([0.3, -0.4, 5.0], requires_grad=True)
    quantiser.activation("input", x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0]


def test_bfloat16_rounds_in_float32():
    made, kinds = rounding(network("resnet20")), []
    quantiser = quantiser_of(made.module)
    original = quantiser.activation
    quantiser.activation = lambda name, x: kinds.append(original(name, x).dtype) or original(name, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = made.module(images())
    assert {*kinds} == {torch.float32}
    torch.testing.assert_close(logits.float(), made.module(images()), rtol=0.1, atol=0.1)


def test_copies_and_files_round_alike_and_the_float_network_comes_back():
    plain = network("resnet20")
    made, x = rounding(plain), images()
    expected = made.module(x)
    assert torch.equal(copy.deepcopy(made.module)(x), expected)
    assert torch.equal(from_data(plain, quantiser_of(made.module).as_data()).module(x), expected)
    back = without_quantiser(made)
    assert torch.equal(back.module(x), plain.module(x))
    assert type(back.module) is type(plain.module)
    assert NAME not in dict(back.module.named_children())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in back.module.modules())
    assert list(float_weights(made.module)) == list(plain.module.state_dict())
    assert without_quantiser(plain) is plain


def test_a_pass_that_is_stopped_does_not_disturb_the_next_one():
    made, x = rounding(network("resnet20")), images()
    expected = made.module(x)

    def stop(*_):
        raise RuntimeError

    handle = made.module.layer2[0].conv1.register_forward_hook(stop)
    with pytest.raises(RuntimeError):
        made.module(x)
    handle.remove()
    assert torch.equal(made.module(x), expected)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("ranges"),
        lambda data: data.update(precision="int4"),
        lambda data: data["ranges"].update(input=[0.0, float("nan")]),
        lambda data: data["ranges"].update(input=[0.0]),
        lambda data: data.update(weights=[1]),
        lambda data: data["ranges"].update({"nowhere:relu:0": [0.0, 1.0]}),
    ],
)
def test_damaged_ranges_are_refused(damage):
    plain = network()
    data = quantiser_of(rounding(plain).module).as_data()
    damage(data)
    with pytest.raises(Error, match="8-bit ranges"):
        from_data(plain, data)
