import dataclasses

import psutil
import pytest
import torch

from kdtool import Architecture, Error
from kdtool.models.architecture import build, capture
from kdtool.models.modules import insert_select
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import halve_widths


def network(spec="torchvision:resnet18", image_size=32, stem=None):
    return create(spec, options=NetworkOptions(classes=10, image_size=image_size, stem=stem), data=None)


@pytest.fixture(scope="module")
def narrow():
    return halve_widths(network("kdtool:lenet-5", 28))


def outputs_equal(module, other, shape):
    images = torch.rand(2, *shape)
    with torch.no_grad():
        return torch.equal(module(images), other(images))


@pytest.mark.parametrize("stem", ["default", "small"])
def test_a_network_is_rebuilt_to_the_last_bit(stem):
    net = network(stem=stem)
    rebuilt = build(net.architecture, net.module.state_dict())
    assert not rebuilt.training
    assert outputs_equal(net.module, rebuilt, net.architecture.input)


def test_rebuilding_leaves_the_random_state_alone(narrow):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    build(narrow.architecture, narrow.module.state_dict())
    assert torch.equal(torch.rand(3), expected)


def test_without_weights_it_starts_from_the_seed():
    architecture = network("kdtool:lenet-5", 28).architecture
    first, second = ((torch.manual_seed(seed), build(architecture))[1] for seed in (1, 1))
    assert outputs_equal(first, second, architecture.input)


def test_without_weights_resized_layers_have_no_size(narrow):
    with pytest.raises(Error, match="without weights"):
        build(narrow.architecture)


def test_the_plain_data_comes_back(narrow):
    again = Architecture.from_data(narrow.architecture.as_data())
    assert again == narrow.architecture
    assert again.attributes


def test_a_selection_of_channels_is_remembered():
    net = network("kdtool:densenet-bc-100-12", 8)
    layer = "features.denseblock1.denselayer3"
    block = net.module.get_submodule(layer)
    index = [0, 5, 7]
    norm = torch.nn.BatchNorm2d(3).eval()
    block.norm1 = norm
    block.conv1.weight = torch.nn.Parameter(block.conv1.weight[:, index].detach().clone())
    block.conv1.in_channels = 3
    insert_select(net.module, f"{layer}.norm1", index)
    architecture = capture(net.architecture, net.module)
    assert architecture.selects == {f"{layer}.norm1": index}
    rebuilt = build(Architecture.from_data(architecture.as_data()), net.module.state_dict())
    assert outputs_equal(net.module, rebuilt, net.architecture.input)


def test_a_network_with_a_selection_can_be_halved(monkeypatch):
    # Evenly spaced channels, not the strongest, so that the indices are known.
    monkeypatch.setattr("kdtool.surgery.width.halve._strengths", lambda network: {})
    net = network("kdtool:densenet-bc-100-12", 8)
    layer = "features.denseblock1.denselayer3"
    block = net.module.get_submodule(layer)
    index = list(range(0, 48, 3))
    block.norm1 = torch.nn.BatchNorm2d(16).eval()
    block.conv1.weight = torch.nn.Parameter(block.conv1.weight[:, index].detach().clone())
    block.conv1.in_channels = 16
    insert_select(net.module, f"{layer}.norm1", index)
    net = dataclasses.replace(net, architecture=capture(net.architecture, net.module))
    small = halve_widths(net, init="inherit")
    # Of 0, 3, 6, ... the even ones stay, and stand at half their place.
    assert small.architecture.selects == {f"{layer}.norm1": [i // 2 for i in index if i % 2 == 0]}
    rebuilt = build(small.architecture, small.module.state_dict())
    assert outputs_equal(small.module, rebuilt, net.architecture.input)


def changed(narrow, **changes):
    return {**narrow.architecture.as_data(), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "unknown entries surprise"),
        ({"name": None}, "name is missing or malformed"),
        ({"options": []}, "options is missing or malformed"),
        ({"dropped": [1]}, "dropped is missing or malformed"),
        ({"attributes": {"conv": 3}}, "attributes is missing or malformed"),
        ({"buffers": {"x": [1.0]}}, "buffers is missing or malformed"),
        ({"selects": {"conv": [-1]}}, "selects is missing or malformed"),
        ({"source": "no-such-source"}, "no teacher source"),
    ],
)
def test_malformed_data_is_refused(narrow, changes, message):
    with pytest.raises(Error, match=message):
        Architecture.from_data(changed(narrow, **changes))


@pytest.mark.parametrize("data", [None, 3, [], {}])
def test_what_is_no_architecture_is_refused(data):
    with pytest.raises(Error, match="architecture"):
        Architecture.from_data(data)


@pytest.mark.parametrize(
    "option",
    [
        {"classes": 0},
        {"classes": 10**12},
        {"classes": True},
        {"classes": 10.0},
        {"image_size": 10**6},
        {"in_channels": 4096, "image_size": 4096},
        {"stem": "huge"},
        {"checkpoint_path": "/any/x"},
        {"pretrained": True},
    ],
)
def test_options_out_of_bounds_are_refused(narrow, option):
    options = {**narrow.architecture.options, **option}
    with pytest.raises(Error):
        Architecture.from_data(changed(narrow, options=options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropped": ["nowhere"]}, "do not fit"),
        ({"attributes": {"nowhere": {"x": 1}}}, "no module 'nowhere'"),
        ({"attributes": {"": {"forward": 1}}}, "no plain public attribute 'forward'"),
        ({"attributes": {"": {"_modules": 1}}}, "no plain public attribute '_modules'"),
        ({"buffers": {"nowhere": torch.zeros(1)}}, "no such non-persistent buffer"),
        ({"selects": {"nowhere": [0]}}, "do not fit"),
    ],
)
def test_edits_that_do_not_fit_are_refused(narrow, changes, message):
    architecture = Architecture.from_data(changed(narrow, **changes))
    with pytest.raises(Error, match=message):
        build(architecture, narrow.module.state_dict())


def test_an_attribute_of_another_type_is_refused(narrow):
    path, values = next(iter(narrow.architecture.attributes.items()))
    attributes = {path: {name: str(value) for name, value in values.items()}}
    with pytest.raises(Error, match="not of the type"):
        build(dataclasses.replace(narrow.architecture, attributes=attributes), narrow.module.state_dict())


def test_weights_that_do_not_fit_name_their_keys(narrow):
    weights = dict(narrow.module.state_dict())
    gone = next(iter(weights))
    weights.pop(gone)
    with pytest.raises(Error, match=f"do not fit.*{gone}"):
        build(narrow.architecture, weights)


def test_a_weight_of_other_dimensions_is_refused(narrow):
    weights = dict(narrow.module.state_dict())
    name = next(iter(weights))
    weights[name] = weights[name].flatten()
    with pytest.raises(Error, match=f"{name}: a tensor of"):
        build(narrow.architecture, weights)


def test_shapes_that_do_not_fit_each_other_are_refused(narrow):
    weights = dict(narrow.module.state_dict())
    name = next(name for name, tensor in weights.items() if tensor.dim() == 4)
    weights[name] = weights[name][:-1]
    with pytest.raises(Error, match="the weights do not fit each other"):
        build(narrow.architecture, weights)


@pytest.mark.parametrize(
    "attributes",
    [
        {"conv1": {"padding": (5000, 5000)}},
        {"layer1.0.conv1": {"padding": (30000, 30000), "stride": (1, 1)}},
        {"maxpool": {"padding": 10**9, "kernel_size": 3 * 10**9}},
        {"avgpool": {"output_size": (10**5, 10**5)}},
    ],
)
def test_edits_that_would_fill_the_memory_are_refused_before_they_run(attributes):
    net = network()
    architecture = dataclasses.replace(net.architecture, attributes=attributes)
    before = psutil.Process().memory_info().rss
    with pytest.raises(Error, match="do not fit each other: it does not run"):
        build(architecture, net.module.state_dict())
    assert psutil.Process().memory_info().rss - before < 500 << 20


@pytest.mark.parametrize(
    "spec",
    [
        *("kdtool:resnet20", "kdtool:lenet-5", "timm:test_vit2", "timm:test_byobnet", "torchvision:mnasnet0_5"),
        *(
            pytest.param(spec, marks=pytest.mark.slow)
            for spec in (
                "timm:swin_tiny_patch4_window7_224",
                "torchvision:regnet_y_400mf",
                "timm:beit_base_patch16_224",
            )
        ),
    ],
)
def test_what_is_built_without_memory_is_what_is_built_with_it(spec):
    made = create(spec, options=NetworkOptions(classes=10), data=None)
    weights = {name: tensor.clone() for name, tensor in made.module.state_dict().items()}
    rebuilt = build(made.architecture, weights)
    assert outputs_equal(made.module, rebuilt, made.architecture.input)
    for (name, ours), (same, theirs) in zip(rebuilt.named_buffers(), made.module.named_buffers(), strict=True):
        assert name == same
        assert torch.equal(ours, theirs)
    assert not any(tensor.is_meta for tensor in (*rebuilt.parameters(), *rebuilt.buffers()))
    assert not {tensor.data_ptr() for tensor in weights.values()} & {one.data_ptr() for one in rebuilt.parameters()}


def giant(name, **options):
    shape = {"classes": 10, "in_channels": 3, "image_size": 224, "stem": "default"}
    return Architecture("timm", name, {**shape, **options})


@pytest.mark.parametrize("architecture", [giant("beit_base_patch16_224", image_size=2048)])
def test_what_a_network_computes_when_it_is_built_is_bounded(architecture):
    """Its relative positions, of which there are as many as pairs of patches, would take 16 GB."""
    before = psutil.Process().memory_info().rss
    with pytest.raises(Error, match="building the network takes more than"):
        build(architecture, {})
    assert psutil.Process().memory_info().rss - before < 600 << 20
