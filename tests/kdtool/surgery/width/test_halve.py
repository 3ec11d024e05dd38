import copy
from functools import partial

import pytest
import torch
from torch import nn

from kdtool import Error
from kdtool.models.architecture import build
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.surgery import halve_widths
from kdtool.surgery.slicing.fixed_dims import fixed_dimensions
from kdtool.surgery.tracing.alignment import misaligned
from kdtool.surgery.width import halve
from kdtool.surgery.width.cut import Cut, _cut
from kdtool.utils.keywords import read_keywords

slow = partial(pytest.param, marks=pytest.mark.slow)
INITS = ("fresh", "inherit")


def network(spec, image_size=None, **own):
    own = {name: value for name, value in own.items() if value is not None}
    return create(spec, options=NetworkOptions(classes=10, image_size=image_size), data=None, own=own)


def parameters(net):
    return sum(parameter.numel() for parameter in net.module.parameters())


def kept_weights(net, **options):
    """Return by layer a mask of the weights that halving keeps, found by setting each weight to its own index."""
    strengths = halve._strengths(net)
    coded = copy.deepcopy(net)
    for layer in coded.module.modules():
        if isinstance(layer, CONV_LINEAR):
            weight = layer.weight.data
            weight.copy_(torch.arange(weight.numel()).view(weight.shape) * 2.0**-60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halve, "_strengths", lambda _: strengths)
        small = dict(halve_widths(coded, init="inherit", **options).module.named_modules())
    return {
        path: torch.isin(layer.weight.detach(), small[path].weight.detach())
        for path, layer in coded.module.named_modules()
        if isinstance(layer, CONV_LINEAR)
    }


@pytest.mark.parametrize(
    ("spec", "image_size"),
    [
        ("kdtool:lenet-5", 28),
        ("kdtool:lenet-300-100", 28),
        ("kdtool:conv4-fc2", 32),
        ("timm:test_resnet", 32),
        slow("torchvision:resnet18", 32),
        slow("torchvision:mobilenet_v3_small", 32),  # depthwise, squeeze-and-excitation
        slow("torchvision:regnet_x_400mf", 32),  # grouped
        ("torchvision:squeezenet1_1", 32),  # concatenations
        slow("torchvision:efficientnet_b0", 32),
        slow("torchvision:densenet121", 32),
        slow("torchvision:googlenet", 64),
        slow("timm:seresnet50", 32),
    ],
)
def test_inherited_weights_are_the_network_with_the_other_channels_silenced(spec, image_size, randomise):
    net = network(spec, image_size)
    randomise(net.module)
    small = halve_widths(net, init="inherit")
    silenced = copy.deepcopy(net.module)
    for path, mask in kept_weights(net).items():
        silenced.get_submodule(path).weight.data.mul_(mask)
    images = torch.rand(2, *net.architecture.input, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(small.module(images), silenced(images), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(small.module(images), net.module(images), rtol=1e-2)


@pytest.mark.parametrize(
    ("spec", "image_size", "times", "compression"),
    [
        ("kdtool:lenet-5", 28, 1, 3.92),
        slow("torchvision:resnet18", 32, 1, 3.99),
        ("torchvision:resnet18", 32, 4, 247.9),
        slow("kdtool:densenet-bc-100-12", 8, 2, 14.4),
        ("timm:test_vit", 160, 1, 3.335),
    ],
)
def test_halving_divides_the_parameters_by_nearly_four_each_time(spec, image_size, times, compression):
    net = network(spec, image_size)
    small = halve_widths(net, times=times)
    assert parameters(net) / parameters(small) == pytest.approx(compression, rel=2e-3)


@pytest.mark.parametrize(
    ("spec", "init"),
    [
        ("timm:test_vit", "inherit"),
        ("timm:test_resnet", "fresh"),
        *(slow(spec, init) for spec in ("timm:test_convnext", "kdtool:densenet-bc-100-12") for init in INITS),
        slow("timm:test_vit", "fresh"),
        slow("timm:test_resnet", "inherit"),
    ],
)
def test_a_narrow_network_is_rebuilt_to_the_last_bit(spec, init):
    net = network(spec, 32)
    small = halve_widths(halve_widths(net, init=init), init=init)
    rebuilt = build(small.architecture, small.module.state_dict())
    images = torch.rand(2, *net.architecture.input)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), small.module(images))


def test_the_given_network_is_left_as_it_is():
    net = network("kdtool:resnet8x4", 32)
    before = {name: tensor.clone() for name, tensor in net.module.state_dict().items()}
    net.module.train()
    halve_widths(net, init="inherit")
    assert net.module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.module.state_dict().items())
    assert net.architecture.attributes == {}


def test_fresh_weights_follow_the_seed_and_inherited_ones_do_not():
    net = network("kdtool:lenet-5", 28)

    def first(seed, init):
        torch.manual_seed(seed)
        return next(halve_widths(net, init=init).module.parameters()).detach()

    assert torch.equal(first(1, "fresh"), first(1, "fresh"))
    assert not torch.equal(first(1, "fresh"), first(2, "fresh"))
    assert torch.equal(first(1, "inherit"), first(2, "inherit"))


def test_inheriting_leaves_the_random_state_alone():
    net = network("kdtool:lenet-5", 28)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    halve_widths(net, init="inherit")
    assert torch.equal(torch.rand(3), expected)


def test_fresh_weights_have_the_variance_their_fan_in_is_due():
    net = network("kdtool:resnet8x4", 32)
    narrow = halve_widths(net, times=2).module
    wide, small = net.module.layer3[0].conv2.weight, narrow.layer3[0].conv2.weight
    assert small.shape == (64, 64, 3, 3)
    assert float((small.std() / wide.std()).detach()) == pytest.approx(2, rel=0.02)


def test_what_images_and_classes_demand_stays():
    net = network("kdtool:resnet8x4", 32)
    small = halve_widths(net).module
    assert small.conv1.weight.shape == (16, 3, 3, 3)
    assert small.fc.weight.shape == (10, 128)


def test_a_flattened_feature_map_keeps_whole_channels(monkeypatch):
    monkeypatch.setattr(halve, "_strengths", lambda _: {})  # without strengths, every second channel is kept
    net = network("kdtool:conv4-fc2", 32, width=8)
    original, kept_part = (
        next(layer.weight for layer in model.module.modules() if isinstance(layer, nn.Linear))
        for model in (net, halve_widths(net, init="inherit"))
    )
    block = original.shape[1] // 16
    kept = torch.cat([torch.arange(start, start + block) for start in range(0, original.shape[1], 2 * block)])
    assert torch.equal(kept_part, original[::2][:, kept])


def test_widths_follow_the_ratio_and_are_rounded_up():
    net = network("kdtool:resnet8x4", 32)
    assert halve_widths(net, ratio=0.75).module.conv1.out_channels == 24
    assert halve_widths(net, ratio=0.3, round_to=16).module.fc.in_features == 80  # 256 * 0.3 is 76.8


def test_attention_keeps_its_heads_and_narrows_them():
    net = network("timm:test_vit", 160)
    old, new = net.module.blocks[0].attn, halve_widths(net).module.blocks[0].attn
    assert (new.num_heads, new.head_dim * 2) == (old.num_heads, old.head_dim)
    assert new.scale == pytest.approx(new.head_dim**-0.5)


@pytest.mark.parametrize("option", ["ratio=0.0", "ratio=1.0", "ratio=2.0", "times=0", "round_to=0", "init='typo'"])
def test_an_invalid_option_is_refused(option):
    with pytest.raises(Error, match=option.partition("=")[0]):
        halve_widths(network("kdtool:lenet-5", 28), **read_keywords(option))


def test_a_network_that_does_not_run_afterwards_is_refused_by_name(monkeypatch):
    net = network("kdtool:lenet-5", 28)
    run, built = type(net.module).forward, parameters(net)

    def only_as_built(self, x):
        if sum(parameter.numel() for parameter in self.parameters()) != built:
            raise RuntimeError("not as it was built")
        return run(self, x)

    monkeypatch.setattr(type(net.module), "forward", only_as_built)
    with pytest.raises(Error, match=r"kdtool:lenet-5: widths x 0.5: it does not run afterwards"):
        halve_widths(net)


@pytest.mark.slow
def test_channels_that_cannot_be_followed_are_not_inherited():
    net = network("torchvision:shufflenet_v2_x0_5", 32)
    with pytest.raises(Error, match="shufflenet"):
        halve_widths(net, init="inherit")
    small = halve_widths(net)
    assert parameters(net) / parameters(small) > 3


def test_size_counts_fewer_multiplications():
    net = network("kdtool:resnet8x4", 32)
    assert measure(net)["macs"] / measure(halve_widths(net))["macs"] > 3.5


@pytest.mark.slow
def test_vgg_19_compresses_as_the_paper_of_iterative_distillation_counts():
    net = network("torchvision:vgg19", 32)
    compressions = [parameters(net) / parameters(halve_widths(net, times=times)) for times in (1, 2, 3, 4)]
    assert [round(compression) for compression in compressions] == [4, 16, 64, 254]


def test_rotary_embeddings_are_not_inherited():
    net = network("timm:eva02_tiny_patch14_224", image_size=28)
    with pytest.raises(Error, match="eva02_tiny_patch14_224: its rotary position embeddings pair channels"):
        halve_widths(net, init="inherit")
    assert parameters(halve_widths(net)) < parameters(net) / 3


def test_several_times_is_the_ratio_to_that_power_of_the_original():
    net = network("kdtool:resnet8x4", 32)
    once = halve_widths(net, ratio=0.75, times=3).module
    assert once.conv1.out_channels == 14  # 32 * 0.75**3 is 13.5
    assert once.fc.in_features == 108
    assert halve_widths(net, times=2).module.fc.in_features == 64


@pytest.mark.slow
def test_sizes_that_do_not_fit_together_are_rounded_up_until_they_do():
    net = network("torchvision:shufflenet_v2_x0_5", 32)
    small = halve_widths(net, times=4)
    rebuilt = build(small.architecture, small.module.state_dict())
    images = torch.rand(2, *net.architecture.input)
    assert torch.equal(rebuilt(images), small.module(images))
    # Halves of 48, 96 and 192 channels: 24 / 16 is 1.5, so 2 of 24 stay, and 4 of 48 and 8 of 96.
    assert small.module.stage4[0].branch2[0].out_channels == 8


@pytest.mark.slow
def test_inner_weights_that_are_inherited_are_the_network_with_the_others_silenced(randomise):
    net = network("torchvision:resnet18", 32)
    randomise(net.module)
    small = halve_widths(net, init="inherit", scope="inner").module
    silenced = copy.deepcopy(net.module)
    for path, mask in kept_weights(net, scope="inner").items():
        silenced.get_submodule(path).weight.data.mul_(mask)
    images = torch.rand(2, *net.architecture.input)
    with torch.no_grad():
        torch.testing.assert_close(small(images), silenced(images), rtol=1e-4, atol=1e-5)


def test_a_network_without_blocks_has_nothing_inside():
    with pytest.raises(Error, match="lenet-5: has no residual blocks"):
        halve_widths(network("kdtool:lenet-5", 28), scope="inner")


def test_the_strongest_channels_are_inherited():
    net = network("kdtool:lenet-5", 28)
    conv = next(layer for layer in net.module.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        conv.weight[1::2] *= 100
    small = halve_widths(net, init="inherit").module
    kept = next(layer for layer in small.modules() if isinstance(layer, nn.Conv2d))
    assert torch.equal(kept.weight, conv.weight[1::2])


def test_an_embedding_that_was_cut_otherwise_is_noticed():
    net = network("timm:test_vit", 160)
    shape = net.architecture.input
    module = copy.deepcopy(net.module)
    flow = _cut(module, shape, Cut(0.5, fixed=fixed_dimensions(net.architecture, net.module)))
    assert misaligned(module, shape, flow) == []
    original, dims = flow.cuts["pos_embed"]
    flow.cuts["pos_embed"] = original, {2: dims[2] + 1}
    assert misaligned(module, shape, flow)


def test_a_network_of_which_nothing_would_be_left_is_refused():
    net = network("kdtool:resnet8x4", 32)
    # Times 1/256, the layers of 32, 64 and 128 channels would be less than 1 wide.
    with pytest.raises(Error, match=r"widths x 0.5, 8 times: 8 of its 11 layers would fall below a width of 1"):
        halve_widths(net, times=8)
    assert halve_widths(net, times=5).module.layer3[0].conv2.out_channels == 8
