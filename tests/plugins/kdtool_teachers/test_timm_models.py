"""timm's networks for other inputs, and the names and inputs that are refused."""

import socket

import pytest
import timm
import torch

from kdtool import Error, UsageError, make

SOURCE = make("teachers", "timm")


def build(name, classes=7, in_channels=3, image_size=32, pretrained=False):
    return SOURCE.build(name, classes=classes, in_channels=in_channels, image_size=image_size, pretrained=pretrained)


def test_the_list_and_the_defaults():
    assert len(SOURCE.networks()) > 900
    assert SOURCE.defaults("resnet18") == {
        "classes": 1000,
        "in_channels": 3,
        "image_size": 224,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop": 0.95,
        "interpolation": "bicubic",
    }
    assert SOURCE.defaults("vit_small_patch14_dinov2")["classes"] == 1000


# timm's smallest networks, one of each family that is built differently.
@pytest.mark.parametrize(
    ("name", "in_channels", "image_size"),
    [
        ("test_resnet", 1, 28),
        ("test_resnet.r160_in1k", 3, 32),
        ("test_vit", 1, 48),
        ("test_convnext", 4, 32),
        ("test_efficientnet", 1, 32),
        ("test_byobnet", 3, 64),
        ("test_mambaout", 3, 32),
        ("levit_128s", 1, 64),
    ],
)
def test_builds_for_other_inputs(name, in_channels, image_size):
    module = build(name, 7, in_channels, image_size)
    assert not module.training
    with torch.no_grad():
        assert module(torch.zeros(1, in_channels, image_size, image_size)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_18", "did you mean resnet18"),
        ("resnet18.no_such_tag", "did you mean resnet18"),
        ("hf-hub:someone/something", "timm knows no network"),
        ("hf-hub:timm/resnet18.a1_in1k", "timm knows no network"),
        ("local-dir:/any/resnet18", "timm knows no network"),
        ("/any/resnet18", "timm knows no network"),
    ],
)
def test_unknown_names(name, message):
    for call in (build, SOURCE.defaults):
        with pytest.raises(UsageError, match=message):
            call(name)


@pytest.mark.parametrize(
    ("name", "other"), [("mobilenetv5_300m_enc", "mobilenetv5_300m"), ("qwen3_vit_88m_enc", "qwen3_vit_88m")]
)
def test_what_is_no_classifier_is_refused_before_it_is_built(name, other, monkeypatch):
    if not timm.is_model(other):
        pytest.skip(f"timm {timm.__version__} has no such network yet")
    monkeypatch.setattr(timm, "create_model", None)
    with pytest.raises(Error, match=rf"{name}: is not a classifier .*; did you mean .*{other}\b"):
        build(name)


def test_what_turns_out_to_be_no_classifier_is_refused(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: torch.nn.Identity().requires_grad_(False))
    monkeypatch.setattr(torch.nn.Identity, "num_classes", 0, raising=False)
    with pytest.raises(Error, match="resnet18: is not a classifier"):
        build("resnet18")


def test_an_input_that_does_not_fit():
    expected = r"cannot be built for 7 classes and 3x2x2 pixels .*; timm made it for 3x224x224 pixels"
    with pytest.raises(Error, match=expected) as raised:
        build("gcvit_xxtiny", image_size=2)
    assert "\n" not in str(raised.value)


def test_a_network_that_has_no_pretrained_weights():
    untrained = next(name for name in SOURCE.networks() if not timm.is_model_pretrained(name))
    with pytest.raises(Error, match="has no pretrained weights"):
        build(untrained, pretrained=True)


def test_a_failed_download_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        Error, match=r"pretrained weights are not here and cannot be downloaded; .* --weights$"
    ) as raised:
        build("test_resnet", pretrained=True)
    assert "\n" not in str(raised.value)


def test_a_server_without_an_address_is_not_asked_again_and_again(monkeypatch, tmp_path):
    from huggingface_hub import constants

    asked = []

    def no_address(host, port, *args, **options):
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_address)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)

    with pytest.raises(Error, match="cannot be downloaded"):
        build("test_resnet", pretrained=True)

    assert asked == ["huggingface.co"]
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("name", "warned"),
    [("vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", True), ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", False)],
)
def test_weights_without_a_classifier_are_pointed_out(name, warned, monkeypatch, caplog):
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no such network yet")
    make_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda network, pretrained, **options: make_model(network, **options))
    build(name, pretrained=True)
    assert ("its pretrained weights have no classifier, and the one here is random" in caplog.text) == warned
    caplog.clear()
    build(name)
    assert not caplog.text
