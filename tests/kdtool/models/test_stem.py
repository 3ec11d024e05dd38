import pytest
import timm
import torch
import torchvision
from torch import nn

from kdtool import Error
from kdtool.models.stem import small_stem


def build(name):
    source, _, network = name.partition(":")
    if source == "timm":
        return timm.create_model(network, num_classes=10).eval()
    return torchvision.models.get_model(network, num_classes=10).eval()


def sides(module, image_size):
    """Return the side of what every convolution takes and gives, in the order of their use."""
    seen = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].shape[-1], output.shape[-1])))
    with torch.no_grad():
        output = module(torch.zeros(1, 3, image_size, image_size))
    assert output.shape == (1, 10)
    return seen


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:resnet18",
        "torchvision:densenet121",
        "torchvision:squeezenet1_1",
        "torchvision:shufflenet_v2_x0_5",
        "timm:resnet18",
        "timm:resnet18d",  # a deep stem of three convolutions
        "timm:test_resnet",
        "timm:resnetv2_18",
        "timm:resnetv2_50x1_bit",  # weight-standardised, pads by itself, a padding before the pool
        "timm:resnetaa34d",  # an average pool
        "timm:resnetblur18",  # a blur strides in the stead of the max-pool
        "timm:legacy_seresnet18",
        pytest.param("timm:cspresnet50", marks=pytest.mark.slow),
        pytest.param("timm:densenet121", marks=pytest.mark.slow),
    ],
)
def test_the_stem_keeps_the_size_of_the_image(name):
    with torch.device("meta"):
        module = small_stem(build(name))
        seen = sides(module, 32)
    assert seen[0] == (32, 32)
    # A deep stem has three convolutions; what an SE block sees is one pixel.
    assert max(size for size, _ in seen[3:]) == 32


def test_only_the_stem_changes():
    before, after = build("torchvision:resnet18"), small_stem(build("torchvision:resnet18"))
    shapes = {name: tensor.shape for name, tensor in before.state_dict().items()}
    changed = {name: tensor.shape for name, tensor in after.state_dict().items() if tensor.shape != shapes[name]}
    assert changed == {"conv1.weight": (64, 3, 3, 3)}
    assert set(after.state_dict()) == set(shapes)
    assert isinstance(after.maxpool, nn.Identity)
    # Kaiming's variance for 64 maps of 3x3 that go on to a ReLU.
    assert float(after.conv1.weight.detach().var()) == pytest.approx(2 / (64 * 9), rel=0.15)


def test_a_convolution_of_3x3_keeps_its_weights():
    module = build("torchvision:squeezenet1_1")
    weight = module.features[0].weight
    assert small_stem(module).features[0].weight is weight


def test_subclasses_of_convolution_stay_what_they_are():
    with torch.device("meta"):
        module = build("timm:resnetv2_50x1_bit")
        kind = type(module.stem.conv)
        conv = small_stem(module).stem.conv
    assert kind is not nn.Conv2d
    assert (type(conv), conv.kernel_size, conv.stride) == (kind, (3, 3), (1, 1))


def test_weights_go_from_one_to_another_that_was_changed_likewise():
    first, second = (small_stem(build("timm:test_resnet")) for _ in range(2))
    second.load_state_dict(first.state_dict())
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(first(images), second(images))


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:vgg11",
        "torchvision:alexnet",
        "torchvision:mobilenet_v2",
        pytest.param("timm:inception_v3", marks=pytest.mark.slow),
        "torchvision:convnext_tiny",
        "torchvision:vit_b_16",
        "timm:regnetx_002",
        "timm:volo_d1_224",  # strided convolutions, but of patches
        "timm:efficientnet_b0",
        "timm:nf_regnet_b0",  # the pool that comes first is in a shortcut
    ],
)
def test_networks_without_such_a_stem_are_named_and_left_alone(name):
    with torch.device("cpu" if "regnetx" in name else "meta"):  # timm before 1.0.30 computes a RegNet's widths there
        module = build(name)
    text = repr(module)
    with pytest.raises(Error, match=f"^{type(module).__name__}: has no ResNet-like stem") as raised:
        small_stem(module)
    assert "\n" not in str(raised.value)
    assert repr(module) == text


def test_a_network_without_convolutions():
    with pytest.raises(Error, match="Sequential: has no ResNet-like stem"):
        small_stem(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_twice_is_refused():
    module = small_stem(build("torchvision:resnet18"))
    with pytest.raises(Error):
        small_stem(module)
