import pytest
import torch

from kdtool import Error, UsageError
from kdtool.models.architecture import Network, build, capture
from kdtool.models.modules import insert_select
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import drop_blocks, halve_widths
from kdtool.surgery.depth.drop import left_out, spread
from kdtool.surgery.depth.stages import Stage, stages_of


def network(spec, image_size=32):
    return create(spec, options=NetworkOptions(classes=10, image_size=image_size), data=None)


def parameters(net):
    return sum(parameter.numel() for parameter in net.module.parameters())


def counts(net):
    return [len(stage.blocks) for stage in stages_of(net)]


RESNET34 = [
    Stage(name, tuple(f"{name}.{i}" for i in range(count)), (size,) * count)
    for name, count, size in [
        ("layer1", 3, 73_984),
        ("layer2", 4, 295_424),
        ("layer3", 6, 1_180_672),
        ("layer4", 3, 4_720_640),
    ]
]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [(16, [3, 4, 6, 3]), (12, [3, 3, 3, 3]), (9, [2, 2, 3, 2]), (6, [1, 1, 2, 2]), (4, [1, 1, 1, 1])],
)
def test_blocks_are_spread_as_in_table_1_of_the_stagewise_paper(blocks, expected):
    assert spread(RESNET34, blocks) == expected


@pytest.mark.parametrize(("count", "expected"), [(6, []), (1, [1, 2, 3, 4, 5]), (3, [2, 4, 5]), (2, [2, 3, 4, 5])])
def test_the_head_stays_and_the_others_are_spread(count, expected):
    assert left_out(RESNET34[2], count) == [f"layer3.{i}" for i in expected]


def test_keep_says_how_many_blocks_each_stage_has():
    net = network("kdtool:resnet32")
    student = drop_blocks(net, keep=(1, 2, 4))
    assert counts(student) == [1, 2, 4]
    # Of its blocks of 16, 32 and 64 channels four, three and one are gone.
    gone = 4 * 4_672 + 3 * 18_560 + 1 * 73_984
    assert parameters(net) - parameters(student) == gone


def test_halving_the_blocks_rounds_down_and_leaves_the_heads():
    half = drop_blocks(drop_blocks(network("kdtool:resnet32"), keep=(3, 4, 5)))
    assert counts(half) == [1, 2, 2]
    assert counts(drop_blocks(half)) == [1, 1, 1]


@pytest.mark.slow
def test_halving_twice_at_once_is_halving_again():
    net = network("torchvision:regnet_y_400mf")
    assert counts(drop_blocks(drop_blocks(net))) == counts(drop_blocks(net, times=2)) == [1, 1, 1]


@pytest.mark.parametrize(
    ("spec", "image_size", "expected"),
    [
        pytest.param("torchvision:resnet34", 32, [1, 2, 3, 1], marks=pytest.mark.slow),
        pytest.param("kdtool:densenet-bc-100-12", 8, [8, 8, 8], marks=pytest.mark.slow),
        pytest.param("torchvision:mobilenet_v2", 32, [1, 1, 2, 1, 1], marks=pytest.mark.slow),
        ("timm:test_vit2", 64, [4]),
    ],
)
def test_inherited_blocks_are_rebuilt_to_the_last_bit(spec, image_size, expected):
    student = drop_blocks(network(spec, image_size), init="inherit")
    assert counts(student) == expected
    assert rebuilt(student)


@pytest.mark.parametrize(
    ("spec", "image_size"),
    [
        pytest.param("torchvision:resnet34", 32, marks=pytest.mark.slow),
        pytest.param("torchvision:regnet_y_400mf", 32, marks=pytest.mark.slow),
        pytest.param("torchvision:efficientnet_b0", 32, marks=pytest.mark.slow),
        ("timm:convnext_atto", 32),
        ("timm:regnetx_002", 32),  # its stages call their blocks by name
        pytest.param("timm:dla34", 32, marks=pytest.mark.slow),  # its trees call their blocks by name
        ("timm:test_vit2", 64),
        pytest.param("timm:swin_tiny_patch4_window7_224", 64, marks=pytest.mark.slow),
        ("timm:mvitv2_tiny", 32),  # its blocks receive and return more than a tensor
    ],
)
def test_a_block_that_goes_is_one_that_returns_what_it_is_given(spec, image_size):
    net = network(spec, image_size)
    with torch.no_grad():
        for name, tensor in net.module.named_parameters():
            # Gains, scales and heads that start at zero would hide differences in the layers before them.
            if (tensor.dim() == 1 and not name.endswith("bias")) or tensor.abs().max() < 1e-3:
                tensor.uniform_(0.4, 1)
    student = drop_blocks(net, init="inherit")
    images = torch.rand(2, *net.architecture.input)
    with torch.no_grad():
        whole, outputs = net.module(images), student.module(images)
        for path in student.architecture.dropped:
            block = net.module.get_submodule(path)
            block.forward = lambda x, *more, block=block: (x, *more) if type(block).__name__ in TUPLES else x
        expected = net.module(images)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert (outputs - whole).abs().max() > 1e-3 * whole.abs().max()


TUPLES = {"MultiScaleBlock"}
"""Blocks that return as many values as they receive."""


@pytest.mark.parametrize(
    ("spec", "image_size", "expected"),
    [
        ("kdtool:resnet32", 32, [[5, 5, 5], [2, 2, 2], [1, 1, 1]]),
        pytest.param("torchvision:resnet34", 32, [[3, 4, 6, 3], [1, 2, 3, 1], [1, 1, 1, 1]], marks=pytest.mark.slow),
        pytest.param("timm:regnetx_002", 32, [[4, 7], [2, 3], [1, 1]], marks=pytest.mark.slow),
        pytest.param("timm:test_vit2", 64, [[8], [4], [2], [1]], marks=pytest.mark.slow),
        pytest.param(
            "kdtool:densenet-bc-100-12",
            8,
            [[16, 16, 16], [8, 8, 8], [4, 4, 4], [2, 2, 2], [1, 1, 1]],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_again_and_again_until_one_block_is_left(spec, image_size, expected):
    net = network(spec, image_size)
    sequence = [counts(net)]
    while sequence[-1] != expected[-1]:
        net = drop_blocks(net, init="inherit")
        sequence.append(counts(net))
        assert rebuilt(net)
    assert sequence == expected
    with pytest.raises(Error, match=r"none would be left out; use a refiner that narrows layers instead"):
        drop_blocks(net)


@pytest.mark.parametrize(
    ("spec", "image_size"),
    [
        pytest.param("kdtool:resnet20", 32, marks=pytest.mark.slow),
        pytest.param("torchvision:resnet18", 32, marks=pytest.mark.slow),
        pytest.param("kdtool:densenet-bc-100-12", 8, marks=pytest.mark.slow),
        ("timm:test_vit", 32),
    ],
)
def test_blocks_can_be_dropped_before_and_after_halving_widths(spec, image_size):
    net = halve_widths(drop_blocks(halve_widths(network(spec, image_size)), init="inherit"), init="inherit")
    assert rebuilt(net)
    assert counts(net) == counts(drop_blocks(network(spec, image_size)))


def test_a_stage_whose_blocks_the_network_counts_stays_whole():
    # Its first ten blocks run without the class token, which the network adds at the eleventh block, by its index.
    net = network("timm:convit_tiny", 32)
    assert [stage.blocks for stage in stages_of(net)] == [("blocks.10", "blocks.11")]


def rebuilt(net):
    images = torch.rand(2, *net.architecture.input)
    with torch.no_grad():
        return torch.equal(build(net.architecture, net.module.state_dict())(images), net.module(images))


def test_inherited_blocks_keep_their_weights_under_their_new_numbers():
    net = network("kdtool:resnet32")
    student = drop_blocks(net, keep=(5, 5, 3), init="inherit")
    assert student.architecture.dropped == ("layer3.2", "layer3.4")
    assert list(dict(student.module.layer3.named_children())) == ["0", "1", "2"]
    assert torch.equal(student.module.layer3[2].conv1.weight, net.module.layer3[3].conv1.weight)


def test_dropping_again_names_blocks_as_the_base_network_does():
    first = drop_blocks(network("kdtool:resnet32"), keep=(5, 5, 3), init="inherit")
    second = drop_blocks(first, keep=(5, 5, 2), init="inherit")
    assert second.architecture.dropped == ("layer3.2", "layer3.4", "layer3.3")
    assert torch.equal(
        build(second.architecture, second.module.state_dict()).layer3[1].conv1.weight,
        first.module.layer3[1].conv1.weight,
    )


def narrow(net):
    """Make every layer of the first stage, except the head, read only every second channel."""
    for path in stages_of(net)[0].blocks[1:]:
        layer = net.module.get_submodule(path)
        index = list(range(0, layer.norm1.num_features, 2))
        layer.norm1 = torch.nn.BatchNorm2d(len(index))
        insert_select(layer, "norm1", index)
        layer.conv1.weight = torch.nn.Parameter(layer.conv1.weight.detach()[:, index])
        layer.conv1.in_channels = len(index)
    return Network(capture(net.architecture, net.module.eval()), net.module)


@pytest.mark.parametrize(
    "prepare",
    [pytest.param(lambda net: net, id="whole", marks=pytest.mark.slow), pytest.param(narrow, id="with selections")],
)
def test_what_is_left_of_a_densenet_is_what_it_was_without_the_dropped_maps(prepare):
    net = prepare(network("kdtool:densenet-bc-100-12", 8))
    student = drop_blocks(net, keep=(11, 16, 16), init="inherit")
    assert rebuilt(student)
    dropped = student.architecture.dropped
    assert len(dropped) == 5
    # A layer whose last convolution is zero concatenates maps of zeros, which the norms behind it receive.
    silenced = build(net.architecture, net.module.state_dict())
    for path in dropped:
        silenced.get_submodule(path).conv2.weight.data.zero_()
    for name, layer in silenced.named_modules():
        # Norms turn zeros into a constant, which the layer behind would read, unless bias and mean are zero.
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.bias.data.zero_()
            layer.running_mean.zero_()
            if name in dict(student.module.named_modules()):
                twin = student.module.get_submodule(name)
                twin.bias.data.zero_()
                twin.running_mean.zero_()
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(student.module(images), silenced(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_densenet_of_half_the_layers_has_the_known_size():
    net = network("torchvision:densenet121")
    student = drop_blocks(net)
    assert counts(student) == [3, 6, 12, 8]
    assert parameters(net) / parameters(student) == pytest.approx(2.28, abs=0.005)


@pytest.mark.slow
def test_halving_the_blocks_of_resnet_152_compresses_as_counted():
    net = network("torchvision:resnet152")
    factors = [parameters(net) / parameters(drop_blocks(net, times=times)) for times in (1, 2, 3, 4)]
    assert factors == pytest.approx([2.1, 3.4, 5.1, 6.4], abs=0.05)


@pytest.mark.parametrize("spec", ["kdtool:conv4-fc2", "kdtool:lenet-5", "torchvision:squeezenet1_1"])
def test_a_network_without_stages_is_refused_with_another_way(spec):
    with pytest.raises(Error, match=r"has no stages.*; use a refiner that narrows layers instead"):
        drop_blocks(network(spec))


def test_a_wrong_number_of_stages_names_those_that_were_found():
    with pytest.raises(UsageError, match=r"2 stages.*\[5, 5, 5\].*layer1, layer2, layer3"):
        drop_blocks(network("kdtool:resnet32"), keep=(1, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"keep": (1, 1, 6)},
        {"keep": (0, 1, 1)},
        {"blocks": 2},
        {"blocks": 16},
        {"keep": (1, 1, 1), "blocks": 3},
        {"keep": (1, 1, 1), "times": 2},
        {"blocks": 3, "times": 2},
    ],
)
def test_counts_that_do_not_fit_are_refused(options):
    with pytest.raises(UsageError, match="blocks"):
        drop_blocks(network("kdtool:resnet32"), **options)


@pytest.mark.parametrize("options", [{"init": "typo"}, {"times": 0}, {"times": -1}])
def test_invalid_options_are_refused(options):
    with pytest.raises(Error, match="unknown init 'typo'; choose|leaves out none; give 1 or more"):
        drop_blocks(network("kdtool:resnet20"), **options)


def test_nothing_left_to_drop_is_refused():
    student = drop_blocks(network("kdtool:resnet20"))
    with pytest.raises(Error, match="none would be left out"):
        drop_blocks(student)


def test_fresh_weights_follow_the_seed():
    net = network("kdtool:resnet20")

    def first(seed):
        torch.manual_seed(seed)
        return next(drop_blocks(net).module.parameters()).detach()

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
