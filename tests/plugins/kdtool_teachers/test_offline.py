"""Weights that cannot be had on a machine without a network: that is said before anything large is imported."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from huggingface_hub import constants

from kdtool import Error
from kdtool_teachers.hub import HuggingFace
from kdtool_teachers.timm_models import Timm
from kdtool_teachers.torchvision_models import Torchvision

CONNECT = socket.create_connection


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of huggingface_hub and of torch, and no connection."""

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(socket, "create_connection", refuse)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "network", "text"),
    [
        (Timm, "resnet18", "timm:resnet18: its pretrained weights are not here and cannot be downloaded; .* --weights"),
        (Torchvision, "resnet18", "torchvision:resnet18: its pretrained weights are not here and cannot be downloaded"),
        (
            HuggingFace,
            "anna/silu@v2",
            "hf:anna/silu@v2: config.json is not in the cache, and the Hub cannot be reached",
        ),
    ],
)
def test_weights_that_are_neither_cached_nor_on_a_server(source, network, text, caches):
    with pytest.raises(Error, match=text):
        source.check_weights(network)


def test_a_server_that_answers_is_asked_later(caches, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", CONNECT)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        Timm.check_weights("resnet18")


@pytest.mark.parametrize(
    ("source", "network", "cached"),
    [
        (Timm, "resnet18", "hub/models--timm--resnet18.a1_in1k"),
        (Timm, "convnext_femto", "hub/models--anna--femto"),
        (Timm, "resnet18", "torch/hub/checkpoints/resnet18-5c106cde.pth"),
        (Torchvision, "resnet18", "torch/hub/checkpoints/resnet18-f37072fd.pth"),
        (HuggingFace, "anna/silu", "hub/models--anna--silu"),
    ],
)
def test_weights_that_may_be_in_a_cache(source, network, cached, caches):
    (caches / cached).mkdir(parents=True)
    source.check_weights(network)


def test_another_network_in_the_cache_is_no_help(caches):
    (caches / "hub" / "models--timm--resnet50.a1_in1k").mkdir(parents=True)
    with pytest.raises(Error, match="not here"):
        Timm.check_weights("resnet18")


def test_a_folder_needs_no_server(caches):
    HuggingFace.check_weights("./resnet")


def test_the_command_imports_no_library_of_networks(tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path), "TORCH_HOME": str(tmp_path), "PATH": ""}
    line = (
        "import sys; from kdtool.cli.main import cli; "
        "cli(['teacher', 'timm:resnet18', '--pretrained'], standalone_mode=False)"
    )
    code = f"import sys\ntry:\n    {line}\nexcept BaseException as e:\n    print(e, 'torch' in sys.modules)"
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "cannot be downloaded" in ran.stdout
    assert ran.stdout.strip().endswith("False"), ran.stdout + ran.stderr
