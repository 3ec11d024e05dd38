"""torchvision's networks for other inputs, and their pretrained weights."""

import copy
import urllib.error
import warnings

import pytest
import torch
import torchvision
from torch import nn

from kdtool import Error, UsageError, make
from kdtool_teachers.torchvision_adapt import adapt_channels

SOURCE = make("teachers", "torchvision")


def build(name, classes=10, in_channels=3, image_size=64, pretrained=False):
    return SOURCE.build(name, classes=classes, in_channels=in_channels, image_size=image_size, pretrained=pretrained)


def test_the_list_has_classifiers_alone():
    names = SOURCE.networks()
    assert {"resnet34", "vgg11_bn", "vit_b_16", "densenet121"} <= set(names)
    assert not [name for name in names if "rcnn" in name or "deeplab" in name or "r3d" in name or "raft" in name]


def test_defaults():
    assert SOURCE.defaults("resnet18") == {
        "classes": 1000,
        "in_channels": 3,
        "image_size": 224,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop": 224 / 256,
        "interpolation": "bilinear",
    }
    assert SOURCE.defaults("inception_v3")["image_size"] == 299


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("resnet18", 32), ("squeezenet1_1", 64), ("mobilenet_v3_small", 32), ("googlenet", 64)],
)
@pytest.mark.parametrize("in_channels", [1, 5])
def test_builds_for_other_channels_and_classes(name, image_size, in_channels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = build(name, 7, in_channels, image_size)
    assert not module.training
    with torch.no_grad():
        assert module(torch.randn(2, in_channels, image_size, image_size)).shape == (2, 7)
    assert isinstance(module.train()(torch.randn(2, in_channels, image_size, image_size)), torch.Tensor)


def test_the_first_convolution_answers_as_strongly_with_other_channels():
    three = build("resnet18").conv1
    assert (three.kernel_size, three.bias) == ((7, 7), None)
    for channels in (1, 12):
        conv = build("resnet18", in_channels=channels).conv1
        assert conv.weight.requires_grad
        assert conv.weight.shape == (64, channels, 7, 7)
        assert isinstance(conv.weight, nn.Parameter)
        assert float(conv.weight.detach().var()) * channels == pytest.approx(
            float(three.weight.detach().var()) * 3, rel=0.1
        )


@pytest.mark.parametrize(
    ("name", "image_size", "error", "message"),
    [
        ("resnet35", 64, UsageError, "did you mean resnet"),
        ("fasterrcnn_resnet50_fpn", 64, UsageError, "it is a network for detection"),
        ("vit_b_16", 50, Error, "--image-size 50"),
        ("maxvit_t", 64, Error, "--image-size 64"),
    ],
)
def test_refusals(name, image_size, error, message):
    with pytest.raises(error, match=message) as raised:
        build(name, image_size=image_size)
    assert "\n" not in str(raised.value)


def test_a_failed_download_is_one_line(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(Error, match=r"cannot be downloaded .*--weights") as raised:
        build("squeezenet1_1", pretrained=True)
    assert "\n" not in str(raised.value)


@pytest.fixture
def published(monkeypatch):
    """Return a function that makes torchvision load a state_dict instead of a download."""

    def publish(state):
        monkeypatch.setattr(
            "torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: copy.copy(state)
        )

    return publish


@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5"])
def test_pretrained_weights_give_their_outputs(published, name):
    original = torchvision.models.get_model(name).eval()
    published(original.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(build(name, 1000, pretrained=True)(images), original(images))


def test_pretrained_weights_without_their_head(published):
    state = torchvision.models.get_model("squeezenet1_1").state_dict()
    published(state)
    module = build("squeezenet1_1", 7, 1, pretrained=True)
    assert torch.equal(module.features[0].weight, state["features.0.weight"].sum(1, keepdim=True))
    assert torch.equal(module.features[3].squeeze.weight, state["features.3.squeeze.weight"])
    assert module.classifier[1].weight.shape[0] == 7


def test_pretrained_weights_of_old_densenets(published):
    # Their files call the parts of a dense layer `norm.1` instead of `norm1`.
    state = torchvision.models.get_model("densenet121").state_dict()
    old = type(state)(
        (name.replace(".conv1.", ".conv.1.").replace(".norm2.", ".norm.2."), state[name]) for name in state
    )
    published(old)
    module = build("densenet121", 7, pretrained=True)
    name = "features.denseblock1.denselayer1.conv1.weight"
    assert name not in old
    assert torch.equal(module.state_dict()[name], state[name])


def test_weights_of_another_network_are_refused(published):
    state = torchvision.models.get_model("squeezenet1_1").state_dict()
    del state["features.3.squeeze.bias"]
    published(state)
    with pytest.raises(Error, match="do not fit the network of this torchvision"):
        build("squeezenet1_1", pretrained=True)


def test_adapted_channels_answer_a_grey_image_alike():
    weight = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    grey = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    expected = nn.functional.conv2d(grey.expand(1, 3, 9, 9), weight)
    for channels in (1, 3, 6):
        adapted = adapt_channels(weight, channels)
        assert adapted.shape == (4, channels, 5, 5)
        assert torch.allclose(nn.functional.conv2d(grey.expand(1, channels, 9, 9), adapted), expected)
