"""Files for other runtimes than onnxruntime; each is read by the runtime itself, without the exporter's own reader."""

import hashlib
import json
import logging
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from kdtool import Architecture, Error, Network, UsageError
from kdtool_exporters import executorch_file, litert_file, openvino_file, pt2, runtime_file
from kdtool_exporters.pt2 import Pt2

EXPORTERS = [pt2.Pt2, openvino_file.OpenVINO, executorch_file.ExecuTorch, litert_file.LiteRT]


def network(module):
    options = {"classes": 10, "in_channels": 1, "image_size": 8}
    return Network(Architecture(source="timm", name="tiny", options=options), module)


def convnet(width=4):
    torch.manual_seed(width)
    layers = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width, 10))


def by_pt2(path, images):
    with torch.no_grad():
        return torch.export.load(str(path)).module()(images)


def by_openvino(path, images):
    import openvino

    model = openvino.Core().read_model(str(path))
    return openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images.numpy())["logits"]


def by_executorch(path, images):
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return np.concatenate([method.execute([image[None]])[0].numpy() for image in images])


def by_litert(path, images):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    (name,) = runner.get_input_details()
    return np.concatenate([next(iter(runner(**{name: image[None].numpy()}).values())) for image in images])


READERS = dict(zip(EXPORTERS, (by_pt2, by_openvino, by_executorch, by_litert), strict=True))


def available(exporter):
    if exporter.needs:
        pytest.importorskip(exporter.needs)
    return exporter


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_runtime_gives_the_outputs_of_the_network(tmp_path, exporter):
    own, output = network(convnet().eval()), tmp_path / f"net{available(exporter).suffix}"
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = own.module(images)
    # Half of the labels are the network's own answers: an accuracy of 0.5 by hand.
    labels = expected.argmax(1).repeat(2)
    labels[3:] = (labels[3:] + 1) % 10
    test = [(images, labels[:3]), (images, labels[3:])]
    measured = exporter(pairs=6).export(own, output, metadata={"kdtool.classes": '["a"]'}, test=test)
    np.testing.assert_allclose(READERS[exporter](output, images), expected, rtol=1e-4, atol=1e-5)
    assert measured["accuracy"] == {"split": "test", "accuracy": 0.5, "error": 0.5, "images": 6}
    assert {file.name.removeprefix("net") for file in tmp_path.iterdir()} == {exporter.suffix, *exporter.companions}
    files = [file for file in tmp_path.iterdir() if file.suffix != ".json"]
    assert measured["file_bytes"] == sum(file.stat().st_size for file in files)
    assert measured["latency"]["student"]["p50_ms"] > 0
    assert measured["latency"]["provider"] == exporter.name
    assert measured["latency"]["teacher"] is None
    json.dumps(measured)


@pytest.mark.parametrize("exporter", [pt2.Pt2, *(pytest.param(cls, marks=pytest.mark.slow) for cls in EXPORTERS[1:])])
def test_the_latency_is_that_of_the_teacher_beside(tmp_path, exporter):
    output = tmp_path / f"net{available(exporter).suffix}"
    teacher = network(convnet(64).eval())
    measured = exporter(pairs=6).export(network(convnet().eval()), output, metadata={}, teacher=teacher)
    assert measured["teacher"]["file_bytes"] > measured["file_bytes"]
    assert measured["latency"]["teacher"]["p50_ms"] > 0
    assert measured["latency"]["ratio_low"] <= measured["latency"]["ratio"] <= measured["latency"]["ratio_high"]


def test_a_pt2_file_holds_what_kdtool_knows_and_no_path_of_the_machine(tmp_path):
    output = tmp_path / "net.pt2"
    Pt2(latency=False).export(network(convnet().eval()), output, metadata={"kdtool.classes": '["a", "b"]'})
    extra = {"kdtool.json": ""}
    torch.export.load(str(output), extra_files=extra)
    assert json.loads(extra["kdtool.json"]) == {"kdtool.classes": '["a", "b"]'}
    with zipfile.ZipFile(output) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"/site-packages/" not in content
    assert __file__.encode() not in content


def test_openvino_holds_what_kdtool_knows(tmp_path):
    openvino = pytest.importorskip("openvino")
    output = tmp_path / "net.xml"
    exporter = openvino_file.OpenVINO(latency=False)
    exporter.export(network(convnet().eval()), output, metadata={"kdtool.classes": '["a", "b"]'})
    model = openvino.Core().read_model(str(output))
    assert model.get_rt_info(["kdtool", "classes"]).value == '["a", "b"]'
    assert model.inputs[0].partial_shape.to_string() == "[?,1,8,8]"
    assert model.inputs[0].get_names() == {"images"}


def test_what_kdtool_knows_is_beside_a_file_that_cannot_hold_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Pt2, "description", ".pt2.json")
    output = tmp_path / "net.pt2"
    measured = Pt2(latency=False).export(network(convnet().eval()), output, metadata={"kdtool.classes": '["a", "b"]'})
    assert json.loads((tmp_path / "net.pt2.json").read_text()) == {
        **{"file": "net.pt2", "sha256": hashlib.sha256(output.read_bytes()).hexdigest()},
        "kdtool.classes": '["a", "b"]',
    }
    assert measured["file_bytes"] == output.stat().st_size


class Wrong(Pt2):
    """Write another network."""

    def write(self, module, architecture, path, metadata):
        with torch.no_grad():
            module[0].weight += 1
        super().write(module, architecture, path, metadata)


class Broken(Pt2):
    """Fail as a converter may."""

    def write(self, module, architecture, path, metadata):
        path.write_text("half")
        raise KeyError("aten.strange\nand a long story")


class Branching(nn.Module):
    """A network that torch.export cannot follow: what it computes depends on the values."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        return logits if logits.sum() > 0 else -logits


@pytest.mark.parametrize(
    ("exporter", "module", "message"),
    [
        (Wrong, convnet(), "timm:tiny: the outputs of its torch.export file differ by"),
        (Broken, convnet(), "timm:tiny: torch cannot convert it \\(KeyError: 'aten.strange"),
        (Pt2, Branching(), "timm:tiny: torch.export .* cannot export it: "),
    ],
)
def test_a_file_that_is_not_the_network_is_not_written(tmp_path, exporter, module, message):
    with pytest.raises(Error, match=message) as caught:
        exporter(latency=False).export(network(module.eval()), tmp_path / "net.pt2", metadata={})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exporter", EXPORTERS[1:])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, exporter):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    extra = {"litert_torch": "litert"}.get(exporter.needs, exporter.needs)
    message = f"{exporter.needs} is not installed; pip install 'kdtool\\[{extra}\\]'"
    with pytest.raises(UsageError, match=message):
        exporter().check(tmp_path / f"net{exporter.suffix}", force=False)


def test_a_companion_is_not_overwritten_either(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    (tmp_path / "net.bin").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"net.bin: exists already"):
        openvino_file.OpenVINO().check(tmp_path / "net.xml", force=False)


def test_a_network_of_8_bits_is_written_in_float_which_is_said(monkeypatch, caplog):
    from kdtool import models

    own, plain = network(convnet().eval()), network(convnet().eval())
    monkeypatch.setattr(models, "without_quantiser", lambda given: plain)
    with caplog.at_level(logging.WARNING):
        assert runtime_file.in_float(own) is plain
    assert "was trained in 8 bits, and this file computes in float" in caplog.text


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_options_of_a_latency_that_is_not_measured(exporter):
    with pytest.raises(UsageError, match="^--threads: --no-latency measures none; leave one out$"):
        exporter(latency=False, threads=4)
