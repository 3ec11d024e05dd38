"""The ONNX exporter on tiny networks, since each export takes about a second."""

import copy
import functools
import gzip
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from kdtool import Architecture, Error, Network
from kdtool.testing.checks import check_exporter
from kdtool_exporters import onnx_once
from kdtool_exporters.onnx_file import Onnx
from kdtool_exporters.onnx_model import write

QUICK = Onnx(latency=False)


def network(module):
    options = {"classes": 10, "in_channels": 1, "image_size": 8}
    return Network(Architecture(source="timm", name="tiny", options=options), module)


def convnet(width=4):
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


class Linear(nn.Module):
    """One linear layer, and a function that changes its output."""

    def __init__(self, change):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.change = change

    def forward(self, images):
        return self.change(self.linear(images.flatten(1)))


@pytest.fixture(scope="module")
def batches():
    torch.manual_seed(0)
    images, labels = torch.randn(23, 1, 8, 8), torch.randint(10, (23,))
    # The last batch is smaller.
    return list(zip(images.split(9), labels.split(9), strict=True))


@pytest.fixture(scope="module")
def module():
    # Like after a training: in train mode, with gradients, channels last, and with changed batch-norm statistics.
    module = convnet().train().to(memory_format=torch.channels_last)
    module(torch.randn(16, 1, 8, 8))
    return module


@pytest.fixture(scope="module")
def exported(module, batches, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported") / "student.onnx"
    metadata = {"kdtool.classes": json.dumps(["zéro", "one"]), "kdtool.input": "[1, 8, 8]"}
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    facts = Onnx(pairs=6).export(
        network(module), output, metadata=metadata, teacher=network(convnet(16)), test=iter(batches)
    )
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    return output, facts


def test_the_file_gives_the_network_s_outputs(exported, module, batches):
    session = onnxruntime.InferenceSession(exported[0])
    assert [session.get_inputs()[0].name, session.get_outputs()[0].name] == ["images", "logits"]
    for images, _ in batches:
        actual = session.run(None, {"images": images.numpy()})[0]
        np.testing.assert_allclose(actual, copy.deepcopy(module).eval()(images).detach(), rtol=1e-5, atol=1e-6)


def test_the_network_is_left_as_it_was(exported, module):
    assert not module.training  # a `Network` puts its module in eval mode
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_what_was_measured(exported):
    output, facts = exported
    assert json.loads(json.dumps(facts)) == facts
    assert facts["onnx"] == str(output)
    assert facts["file_bytes"] == output.stat().st_size
    assert facts["gzip_bytes"] == pytest.approx(len(gzip.compress(output.read_bytes(), 6)), abs=32)
    assert facts["opset"] == 18
    assert facts["parity"]["batches"] == [1, 3]
    assert facts["parity"]["max_abs"] > 0
    assert facts["parity"]["relative"] <= 1e-4
    assert facts["parity"]["same_argmax"] is True
    assert facts["latency"]["pairs"] == 6
    assert facts["latency"]["ratio_low"] <= facts["latency"]["ratio"] <= facts["latency"]["ratio_high"]
    assert facts["latency"]["teacher"]["p50_ms"] > 0


def test_the_accuracy_is_that_of_the_file(exported, module, batches):
    module.eval()
    correct = sum(int((module(images).argmax(1) == labels).sum()) for images, labels in batches)
    module.train()
    accuracy = exported[1]["accuracy"]
    assert accuracy == {"split": "test", "accuracy": correct / 23, "error": 1 - correct / 23, "images": 23}
    assert 0 < accuracy["accuracy"] < 1


def test_one_file_alone_with_its_metadata(exported):
    output = exported[0]
    assert list(output.parent.iterdir()) == [output]
    model = onnx.load(output)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert len(metadata.pop("kdtool.structure")) == len(metadata.pop("kdtool.operators")) == 16
    assert json.loads(metadata.pop("kdtool.metrics")) == [exported[1]["accuracy"]]
    assert metadata == {
        "kdtool.classes": '["z\\u00e9ro", "one"]',
        "kdtool.input": "[1, 8, 8]",
    }
    session = onnxruntime.InferenceSession(output)
    assert session.get_modelmeta().custom_metadata_map["kdtool.input"] == "[1, 8, 8]"
    assert output.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_no_path_of_this_machine_is_in_the_file(exported):
    content = exported[0].read_bytes()
    site = Path(torch.__file__).parents[1]
    for path in (site, Path.cwd(), Path(__file__).parent, sys.prefix, tempfile.gettempdir(), exported[0].parent):
        assert os.fsencode(path) not in content
    assert b'.py", line' not in content


def test_a_newer_opset_and_nothing_is_printed(capfd, tmp_path):
    level = logging.root.manager.disable
    facts = Onnx(latency=False, opset=20).export(network(Linear(torch.relu)), tmp_path / "a.onnx", metadata={})
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == level
    assert facts["opset"] == 20
    assert [(entry.domain, entry.version) for entry in onnx.load(tmp_path / "a.onnx").opset_import] == [("", 20)]
    assert facts["latency"] is None
    assert facts["accuracy"] is None


def test_weights_too_large_for_one_file(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_once, "write", functools.partial(write, one_file_bytes=1000))
    module = Linear(torch.relu)
    facts = QUICK.export(network(module), tmp_path / "big.onnx", metadata={"kdtool.input": "[1, 8, 8]"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
    assert facts["file_bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    images = np.ones((2, 1, 8, 8), dtype=np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "big.onnx")
    actual = session.run(None, {"images": images})[0]
    np.testing.assert_allclose(actual, module(torch.from_numpy(images)).detach(), rtol=1e-5, atol=1e-6)
    assert session.get_modelmeta().custom_metadata_map["kdtool.input"] == "[1, 8, 8]"


def _differs_in_the_file(outputs):
    return outputs + 1e-2 if torch.compiler.is_exporting() else outputs


def _raises(outputs):
    raise ValueError("not today")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_differs_in_the_file, r"^timm:tiny: the outputs of its ONNX file differ by 0.01 from.*nothing was written$"),
        (_raises, r"^timm:tiny: torch.onnx \S+ cannot export it: ValueError: not today$"),
    ],
)
def test_a_file_that_would_be_wrong_is_not_written(capfd, tmp_path, change, message):
    with pytest.raises(Error, match=message) as raised:
        Onnx().export(network(Linear(change)), tmp_path / "a.onnx", metadata={})
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


def test_an_opset_that_torch_does_not_give(tmp_path):
    with pytest.raises(Error, match=r"--opset 99: torch.onnx exports timm:tiny in opset 18; use --opset 18"):
        Onnx(opset=99).export(network(Linear(torch.relu)), tmp_path / "a.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_directory_that_cannot_be_written_to(tmp_path, parent):
    (tmp_path / "file").touch()
    output = tmp_path / parent / "a.onnx"
    with pytest.raises(Error, match=r"a\.onnx: cannot be written: .*; name another with -o$"):
        QUICK.export(network(convnet()), output, metadata={})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fills_up_leaves_the_old_file(monkeypatch, tmp_path):
    def full(source, target):
        raise OSError(28, "No space left on device")

    output = tmp_path / "a.onnx"
    output.write_bytes(b"the old one")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Error, match=r"a\.onnx: cannot be written: No space left on device"):
        QUICK.export(network(Linear(torch.relu)), output, metadata={})
    assert output.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [output]


def test_the_contract_of_exporters():
    check_exporter(Onnx(pairs=2))
