"""Weights as safetensors."""

import json

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file

import kdtool
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.utils import safetensors_bytes


def resnet():
    shape = NetworkOptions(classes=10, in_channels=1, image_size=8)
    return kdtool.Checkpoint(create("timm:test_resnet", options=shape, data=None))


def test_the_file_has_the_names_and_the_weights_of_the_network(tmp_path):
    own, path = resnet(), tmp_path / "net.safetensors"
    costs = kdtool.export(own, "safetensors", output=path, data="digits")
    module = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    module.load_state_dict(load_file(path))
    batch = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(module.eval()(batch), own.module(batch))
    with safe_open(path, "pt") as content:
        texts = content.metadata()
    assert json.loads(texts["classes"]) == list("0123456789")
    assert json.loads(texts["kdtool.input"]) == [1, 8, 8]
    assert costs["accuracy"]["images"] == 359
    assert costs["file_bytes"] == path.stat().st_size


def test_its_bytes_do_not_depend_on_the_process():
    texts = {str(number): "ä" for number in range(20)}
    content = safetensors_bytes({"a": torch.arange(3.0), "b": torch.ones(2, 2)}, texts)
    assert load(content)["a"].tolist() == [0, 1, 2]
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    # The library's order of 20 texts is another one in almost every process.
    assert [*header["__metadata__"]] == sorted(texts)
    assert header["b"]["shape"] == [2, 2]


def test_kdtool_takes_it_as_weights_with_its_classes(tmp_path):
    path = tmp_path / "net.safetensors"
    own = resnet()
    kdtool.export(own, "safetensors", output=path, data="digits")
    shape = {"classes": 10, "in_channels": 1, "image_size": 8}
    again = kdtool.teacher("timm:test_resnet", weights=path, output=tmp_path / "again.pt", **shape)
    assert again.classes == tuple("0123456789")
    assert all(map(torch.equal, own.module.state_dict().values(), again.module.state_dict().values()))


def test_the_weights_of_an_edited_network_are_said_to_need_its_structure(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    kdtool.export(kdtool.refine(resnet(), "halve"), "safetensors", output=tmp_path / "net.safetensors")
    assert "--hub-folder DIR writes the structure too" in caplog.text
