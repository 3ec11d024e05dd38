"""Networks without channels, compared with the originals with these channels silenced, and with counted sizes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from kdtool import Error
from kdtool.models.architecture import Network, build, capture
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.modules import insert_select
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.plugins.method_code import MethodError
from kdtool.surgery import drop_blocks, halve_widths
from kdtool.surgery.channels.graph import Limits
from kdtool.surgery.channels.remove import remove_channels


def network(spec, size=32, **own):
    return create(spec, options=NetworkOptions(classes=10, image_size=size), data=None, own=own)


def first_filters(group):
    """Return as importance the fractional part of each filter's index times the golden ratio."""
    return torch.arange(len(group[0].idxs)) * 0.618 % 1


def remove(net, ratio=0.3, round_to=1, **options):
    return remove_channels(net, ratio=ratio, importance=first_filters, round_to=round_to, **options)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda size: torch.ones(3), r"gave a tensor \[3\] for the \d+ channels of \w+"),
        (lambda size: [1.0] * size, r"gave list for the \d+ channels"),
        (
            lambda size: torch.full((size,), float("nan")),
            r"gave scores for the \d+ channels of \w+ that are not finite",
        ),
    ],
)
def test_scores_without_a_meaning_are_told_and_not_the_network_blamed(scores, message):
    with pytest.raises(MethodError, match=f"^importance {message}"):
        remove_channels(
            network("kdtool:lenet-5", 28), ratio=0.3, importance=lambda group: scores(len(group[0].idxs)), round_to=1
        )


def silenced(net):
    """Return the original with zeros for the weights that are removed.

    Which weights these are is read from the removal of channels from a copy in which each weight holds its own index.
    """
    coded = copy.deepcopy(net)
    for layer in coded.module.modules():
        if isinstance(layer, CONV_LINEAR):
            weight = layer.weight.data
            # The indices are the bits of floats, starting at the smallest normal float: all are distinct and tiny.
            indices = torch.arange(weight.numel(), dtype=torch.int32) + 2**23
            weight.copy_(indices.view(torch.float32).view(weight.shape))
    small = dict(remove(coded).network.module.named_modules())
    module = copy.deepcopy(net.module)
    for path, layer in coded.module.named_modules():
        if isinstance(layer, CONV_LINEAR):
            mask = torch.isin(layer.weight.detach(), small[path].weight.detach())
            module.get_submodule(path).weight.data.mul_(mask)
    return module


SLOW = [
    pytest.param(spec, size, marks=pytest.mark.slow)
    for spec, size in (
        ("torchvision:resnet18", 32),
        ("torchvision:resnet50", 32),
        ("torchvision:mobilenet_v2", 32),
        ("torchvision:mobilenet_v3_small", 32),
        ("torchvision:densenet121", 32),
        ("torchvision:googlenet", 32),
        ("torchvision:vgg11_bn", 32),
        ("torchvision:shufflenet_v2_x0_5", 32),
        ("timm:res2net50_26w_4s", 32),
    )
]


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("kdtool:lenet-5", 28),
        ("timm:test_resnet", 32),
        ("timm:test_efficientnet", 32),  # depthwise, squeeze-and-excitation
        ("torchvision:squeezenet1_1", 32),  # concatenations
        *SLOW,
    ],
)
def test_what_is_left_is_the_network_with_the_other_channels_silenced(spec, size, randomise):
    net = network(spec, size)
    randomise(net.module)
    removal = remove(net)
    expected = silenced(net)
    images = torch.rand(2, *net.architecture.input, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(removal.network.module(images), expected(images), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(removal.network.module(images), net.module(images), rtol=1e-2)


@pytest.mark.parametrize(
    ("of", "key", "ratio"),
    [
        ("params", "parameters", 0.3),
        ("macs", "macs", 0.8),
        pytest.param("params", "parameters", 0.8, marks=pytest.mark.slow),
        pytest.param("macs", "macs", 0.3, marks=pytest.mark.slow),
    ],
)
def test_the_ratio_is_reached(of, key, ratio):
    net = network("kdtool:resnet8x4")
    removal = remove(net, ratio, of=of)
    reached = 1 - measure(removal.network)[key] / measure(net)[key]
    assert reached == pytest.approx(ratio, abs=0.005)
    assert removal.removed == pytest.approx(reached, abs=1e-6)
    assert not removal.capped


def test_a_ratio_of_channels_counts_outputs():
    net = network("kdtool:lenet-5", 28)
    removal = remove(net, 0.5, of="channels", scope="layer")
    widths = [layer.weight.shape[0] for layer in removal.network.module.modules() if isinstance(layer, CONV_LINEAR)]
    # 6 + 16 + 120 + 84 + 10 = 236 outputs, of which the last 10 are the classes.
    assert sum(widths) == pytest.approx(118, abs=1)
    assert widths[-1] == 10


def test_every_layer_keeps_a_multiple():
    net = network("torchvision:resnet18")
    removal = remove(net, round_to=16)
    widths = {layer.out_channels for layer in removal.network.module.modules() if isinstance(layer, nn.Conv2d)}
    assert all(width % 16 == 0 for width in widths)
    assert removal.removed == pytest.approx(0.3, abs=0.005)


def test_with_the_scope_of_layers_each_loses_the_same_part():
    net = network("kdtool:resnet8x4")
    small = dict(remove(net, scope="layer").network.module.named_modules())
    parts = {
        small[path].out_channels / layer.out_channels
        for path, layer in net.module.named_modules()
        if isinstance(layer, nn.Conv2d)
    }
    assert max(parts) - min(parts) < 0.03


def test_the_least_important_channels_go():
    net = network("kdtool:lenet-300-100", 28)
    small = remove_channels(
        net, ratio=0.3, importance=lambda group: torch.arange(len(group[0].idxs)) % 3 + 1.0, round_to=1, scope="layer"
    ).network
    first, kept = (
        next(layer.weight for layer in each.module.modules() if isinstance(layer, nn.Linear)) for each in (net, small)
    )
    places = [int((first == row).all(1).nonzero()) for row in kept]
    gone = sorted(set(range(300)) - set(places))
    assert places == sorted(places)
    assert all(place % 3 == 0 for place in gone)


def test_the_means_are_those_of_the_channels_that_are_left():
    net = network("kdtool:lenet-5", 28)
    removal = remove_channels(
        net, ratio=0.5, of="channels", importance=lambda group: torch.arange(len(group[0].idxs)) + 1.0, round_to=1
    )
    assert len(removal.means) == 4
    for path, mean in removal.means.items():
        before, left = (len(one.module.get_submodule(path).weight) for one in (net, removal.network))
        # The scores are 1 to n, and the highest ones stay.
        assert mean == pytest.approx(before - (left - 1) / 2)


def test_a_ratio_that_would_empty_layers_is_capped():
    removal = remove(network("kdtool:lenet-5", 28), 0.9, round_to=48)
    widths = [layer.weight.shape[0] for layer in removal.network.module.modules() if isinstance(layer, CONV_LINEAR)]
    assert widths == [6, 16, 48, 48, 10]
    assert removal.removed == pytest.approx(1 - (156 + 2416 + 16 * 25 * 48 + 48 + 48 * 48 + 48 + 490) / 61706, abs=1e-6)
    assert removal.capped
    assert (
        removal.as_data()["capped"] == "all layers that may shrink have their least width, see --floor and --round-to"
    )


def test_a_ratio_between_two_steps_is_missed_for_the_multiple():
    removal = remove(network("kdtool:lenet-5", 28), 0.27, round_to=48)
    # From 120 to 96 channels and then from 84 to 48; the one step left, from 96 to 48, would remove far too much.
    assert removal.removed == pytest.approx((24 * (400 + 1 + 84) + 36 * (96 + 1 + 10)) / 61706, abs=1e-6)
    assert removal.as_data()["capped"] == "layers keep multiples of 48 channels"


def test_what_was_frozen_and_the_given_network_stay_as_they_are():
    net = network("kdtool:resnet8x4")
    net.module.conv1.weight.requires_grad_(False)
    net.module.layer1.train()
    before = {name: tensor.clone() for name, tensor in net.module.state_dict().items()}
    small = remove(net).network.module
    assert [name for name, weight in small.named_parameters() if not weight.requires_grad] == ["conv1.weight"]
    assert not any(part.training for part in small.modules())
    assert net.module.layer1.training
    assert not net.module.layer2.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.module.state_dict().items())


@pytest.mark.slow
def test_it_can_follow_other_edits_and_itself():
    net = network("torchvision:resnet34")
    for _ in range(2):
        net = remove(net, 0.2, round_to=4).network
        net = halve_widths(net, ratio=0.75, init="inherit")
        net = drop_blocks(net, times=1)
    rebuilt = build(net.architecture, net.module.state_dict())
    images = torch.rand(2, *net.architecture.input)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), net.module(images))


def test_selections_are_followed():
    net = drop_blocks(network("kdtool:densenet-bc-100-12", 8), keep=(4, 3, 3))
    path = [path for path, _ in net.module.named_modules() if path.endswith(".norm1")][2]
    norm = net.module.get_submodule(path)
    kept = list(range(1, norm.num_features, 2))
    insert_select(net.module, path, kept)
    layer = net.module.get_submodule(path.removesuffix(".norm1"))
    layer.norm1.norm = _norm_of(norm, kept)
    layer.conv1.weight = nn.Parameter(layer.conv1.weight.detach()[:, kept])
    layer.conv1.in_channels = len(kept)
    selecting = Network(capture(net.architecture, net.module), net.module)
    removal = remove(selecting)
    assert removal.removed == pytest.approx(0.3, abs=0.005)
    index = removal.network.module.get_submodule(path).select.index
    assert len(index) < len(kept)
    assert removal.network.module.get_submodule(path).norm.num_features == len(index)


def _norm_of(norm, kept):
    small = nn.BatchNorm2d(len(kept))
    for name, tensor in norm.state_dict().items():
        if tensor.dim():
            getattr(small, name).data.copy_(tensor[kept])
    return small.eval()


def test_the_inside_of_attention_stays_where_it_is_not_understood():
    net = drop_blocks(network("timm:test_vit", 32), keep=(2,))
    removal = remove(net)
    old, new = net.module.blocks[0].attn, removal.network.module.blocks[0].attn
    assert (new.num_heads, new.head_dim, new.scale) == (old.num_heads, old.head_dim, old.scale)
    assert removal.removed == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
def test_a_ratio_that_makes_nothing_smaller_is_refused(ratio):
    with pytest.raises(Error, match="kdtool:lenet-5: a ratio of"):
        remove(network("kdtool:lenet-5", 28), ratio)


def test_unknown_sizes_and_scopes_are_refused():
    net = network("kdtool:lenet-5", 28)
    with pytest.raises(Error, match="params, macs, channels"):
        remove(net, of="latency")
    with pytest.raises(Error, match="global, layer"):
        remove(net, scope="block")


def test_layers_that_are_all_too_narrow_are_refused_by_name():
    with pytest.raises(Error, match="kdtool:lenet-5: .*no layer may be narrower with --round-to 512 and --floor 0$"):
        remove(network("kdtool:lenet-5", 28), round_to=512)
    with pytest.raises(Error, match=r"the least that --round-to 16 can remove is more than 0.10% of the params$"):
        remove(network("kdtool:resnet20"), 0.001, round_to=16)


def test_the_error_of_a_limit_names_the_network():
    with pytest.raises(Error, match="kdtool:resnet20: .*takes more than 0 seconds"):
        remove(network("kdtool:resnet20"), limits=Limits(seconds=0))


def test_a_layer_that_computes_its_weight_is_no_reason_for_a_refiner():
    net = network("kdtool:lenet-5", 28)
    weight_norm(net.module.conv2)
    with pytest.raises(Error, match=r"conv2: its weight is computed by .* first \(torch.*remove_parametrizations\)$"):
        remove(net)
