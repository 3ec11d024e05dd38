"""Folders for the Hub: timm's own loader and kdtool's read the same network from them."""

import json
import os
import stat
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import kdtool
from kdtool import UsageError
from kdtool.data.spec import DataSpec
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_exporters.hub_card import card

CLASSES = tuple("abcd")


def checkpoint(name="timm:test_resnet", channels=3, size=32, stem=None):
    shape = NetworkOptions(classes=4, in_channels=channels, image_size=size, stem=stem)
    network = create(name, options=shape, data=None)
    numbers = [round(0.1 * (index + 4), 1) for index in range(channels)]
    spec = DataSpec(
        *("folder:/home/anna/photos", "/home/anna", 1.0, 0.1, 0, "none", size, channels, CLASSES, numbers, numbers),
        crop=0.8,
        interpolation="bicubic",
    )
    line = "kdtool teacher timm:test_resnet --data folder:/home/anna/photos -o /home/anna/net.pt"
    entry = {"command": "teacher", "line": line, "output": "/home/anna/net.pt", "inputs": [], "size": {"parameters": 9}}
    return kdtool.Checkpoint(network, spec, [], [entry])


def images(channels=3, size=32):
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))


def outputs(module, batch):
    with torch.no_grad():
        return module.eval()(batch)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of an unedited network, its checkpoint and what the export returned."""
    own = checkpoint()
    folder = tmp_path_factory.mktemp("hub") / "net"
    return folder, own, kdtool.export(own, "hub-folder", output=folder, license="apache-2.0")


def test_timm_builds_the_same_network_from_it(written):
    folder, own, costs = written
    module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert torch.equal(outputs(module, images()), outputs(own.module, images()))
    assert costs["layouts"] == ["timm", "kdtool"]
    assert costs["parity"]["max_abs_diff"] == 0
    prepared = timm.data.resolve_model_data_config(module)
    assert (prepared["crop_pct"], prepared["interpolation"]) == (0.8, "bicubic")
    assert list(prepared["mean"]) == [0.4, 0.5, 0.6]
    assert module.pretrained_cfg["label_names"] == list(CLASSES)


def test_kdtool_reads_it_in_place_of_a_checkpoint(written):
    folder, own, _ = written
    again = kdtool.load(folder)
    assert torch.equal(outputs(again.module, images()), outputs(own.module, images()))
    assert again.classes == CLASSES
    assert again.data.mean == own.data.mean
    assert again.architecture == own.architecture


def test_no_file_is_a_pickle_names_the_machine_or_is_only_for_its_owner(written):
    folder, _, costs = written
    assert {file.name for file in folder.iterdir()} == {"README.md", "config.json", "kdtool.json", "model.safetensors"}
    for file in folder.iterdir():
        assert b"/home/anna" not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) & stat.S_IRUSR
        assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((folder / "README.md").stat().st_mode)
    assert costs["file_bytes"] == (folder / "model.safetensors").stat().st_size
    assert set(load_file(folder / "model.safetensors")) == set(timm.create_model("test_resnet").state_dict())


def test_the_model_card_has_the_measured_numbers(written):
    folder, own, costs = written
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    assert dict(line.split(": ", 1) for line in header.splitlines()) == {
        "license": '"apache-2.0"',
        "library_name": '"timm"',
        "pipeline_tag": '"image-classification"',
        "tags": '["image-classification", "timm", "kdtool"]',
    }
    parameters = sum(weight.numel() for weight in own.module.parameters())
    assert f"| parameters | {parameters:,} |" in text
    assert f"| bytes of model.safetensors | {costs['file_bytes']:,} |" in text
    assert "kdtool teacher timm:test_resnet --data folder:photos -o net.pt" in text
    assert "a, b, c, d" in text


def test_the_model_card_shows_texts_of_others_as_they_are():
    told = {
        "kdtool.classes": ["<script>x</script>", "a\x1b[31m\n# b"],
        "kdtool.history": ["```\n<img src=x>"],
    }
    metadata = {key: json.dumps(value) for key, value in told.items()}
    text = card("net", checkpoint().architecture, metadata, {"file_bytes": 1}, timm=False)
    assert r"\<script\>x\</script\>, a?\[31m?\# b." in text
    assert "````console\n```\n<img src=x>\n````" in text


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("timm:test_resnet", 1, 8),
        ("timm:test_vit", 1, 32),
        pytest.param("timm:test_vit", 2, 48, marks=pytest.mark.slow),
    ],
)
def test_other_channels_and_sizes_are_arguments_in_the_description(tmp_path, name, channels, size):
    own = checkpoint(name, channels, size)
    assert kdtool.export(own, "hub-folder", output=tmp_path / "net")["layouts"] == ["timm", "kdtool"]
    module = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True)
    batch = images(channels, size)
    assert torch.equal(outputs(module, batch), outputs(own.module, batch))


def narrowed():
    own = checkpoint()
    return kdtool.Checkpoint(kdtool.refine(own, "halve").network, own.data, [], own.history)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (narrowed, "timm:test_resnet was edited"),
        (lambda: checkpoint(stem="small"), "timm:test_resnet has another stem"),
        (lambda: checkpoint("kdtool:lenet-5", 1, 28), "kdtool:lenet-5 is no network of timm"),
    ],
)
def test_a_network_that_timm_does_not_have_has_kdtools_layout_alone(tmp_path, caplog, monkeypatch, make, reason):
    monkeypatch.chdir(tmp_path)
    own = make()
    costs = kdtool.export(own, "hub-folder", output=tmp_path / "net")
    assert costs["layouts"] == ["kdtool"]
    assert f"has no config.json for timm: {reason}" in caplog.text
    assert not (tmp_path / "net" / "config.json").exists()
    again = kdtool.load(tmp_path / "net")
    batch = images(*own.architecture.input[:2])
    assert torch.equal(outputs(again.module, batch), outputs(own.module, batch))
    assert again.architecture.as_data() == own.architecture.as_data()


def test_files_of_another_network_do_not_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kdtool.export(checkpoint(), "hub-folder", output=tmp_path / "net")
    (tmp_path / "net" / ".gitattributes").write_text("mine")
    with pytest.raises(UsageError, match="net: holds files already"):
        kdtool.export(checkpoint("kdtool:lenet-5", 1, 28), "hub-folder", output=tmp_path / "net")
    kdtool.export(checkpoint("kdtool:lenet-5", 1, 28), "hub-folder", output=tmp_path / "net", force=True)
    names = {file.name for file in (tmp_path / "net").iterdir()}
    assert names == {".gitattributes", "README.md", "kdtool.json", "model.safetensors"}
    assert kdtool.load(tmp_path / "net").architecture.spec == "kdtool:lenet-5"


def test_what_timm_would_build_differently_is_not_written(tmp_path, monkeypatch, caplog):
    from kdtool_exporters import hub_folder

    def wrong(network, path, metadata):
        path.write_text(json.dumps({"architecture": "test_vit", "num_classes": 4, "pretrained_cfg": {}}))

    monkeypatch.setattr(hub_folder, "write_config", wrong)
    assert kdtool.export(checkpoint(), "hub-folder", output=tmp_path / "net")["layouts"] == ["kdtool"]
    assert "timm does not build the same network from it" in caplog.text
    assert not (tmp_path / "net" / "config.json").exists()


def test_nothing_is_left_of_a_folder_that_fails(tmp_path):
    own = checkpoint()
    with torch.no_grad():
        own.module.fc.weight.fill_(float("nan"))
    with pytest.raises(kdtool.Error, match="its outputs are not finite"):
        kdtool.export(own, "hub-folder", output=tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_replaced_in_part_is_not_finished(tmp_path, monkeypatch):
    """The word of the command is in the weights' header; they come last, whatever moment the process is killed."""
    first = kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, seed=0, output=tmp_path / "a.pt")
    other = kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, seed=1, output=tmp_path / "b.pt")
    folder = tmp_path / "hub"
    kdtool.export(first, "hub-folder", output=folder)
    replace, moved = os.replace, []

    def killed(source, target):
        if Path(target).parent == folder:
            moved.append(Path(target).name)
            if len(moved) == 3:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("kdtool_exporters.hub_folder.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            kdtool.export(other, "hub-folder", output=folder, force=True)
    assert moved[-1] == "model.safetensors"
    kdtool.export(other, "hub-folder", output=folder, force=True, resume=True)
    weights, expected = (one.module.state_dict() for one in (kdtool.load(folder), other))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in expected.items())
