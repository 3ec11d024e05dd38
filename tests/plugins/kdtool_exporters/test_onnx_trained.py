"""Files of networks that were trained in 8 bits: they compute with integers and give the network's outputs."""

import collections
import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import kdtool
from kdtool import Architecture, Network, UsageError
from kdtool.models.quantisation.fake import calibrate, quantised
from kdtool.models.quantisation.places import find_places
from kdtool_exporters import onnx_trained
from kdtool_exporters.onnx_file import Onnx
from kdtool_exporters.onnx_trained import compared


class Tiny(nn.Module):
    """Convolutions with and without batch-norm, a residual sum, a split and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.conv3 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.relu, self.head = nn.ReLU(), nn.Linear(16, 4)

    def forward(self, images):
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.relu(self.conv2(maps) + maps)
        left, right = maps.chunk(2, 1)
        return self.head(self.conv3(left + right).mean((2, 3)))


@pytest.fixture(scope="module")
def tiny(patterns):
    """The trained network that rounds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Tiny()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(10):
        for images, labels in patterns:
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images), labels).backward()
            optimizer.step()
    options = {"classes": 4, "in_channels": 1, "image_size": 8}
    network = Network(Architecture(source="timm", name="tiny", options=options), module.eval())
    made = quantised(network, find_places(network))
    calibrate(made.module, [images for images, _ in patterns])
    return made


@pytest.fixture(scope="module")
def exported(tiny, patterns, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "tiny.onnx"
    return path, Onnx(int8=True, latency=False).export(tiny, path, metadata={}, test=patterns, val=patterns)


def test_the_file_gives_the_outputs_of_the_training(tiny, exported, patterns):
    path, facts = exported
    images = torch.cat([batch for batch, _ in patterns])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = tiny.module(images).numpy()
    assert np.abs(logits - expected).mean() < 0.005 * np.abs(expected).max()
    assert (logits.argmax(1) == expected.argmax(1)).all()
    about = facts["quantised"]
    assert (about["precision"], about["way"], about["layers"], about["float_layers"]) == ("int8", "trained", 4, [])
    assert about["agreement"]["other_classes"] == 0
    assert about["val_accuracy"] == facts["accuracy"]["accuracy"] > 0.9


def test_onnxruntime_runs_its_layers_with_integers(exported, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(exported[0], options, providers=["CPUExecutionProvider"])
    kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 3
    assert kinds["QLinearAdd"] == 2
    assert kinds["QGemm"] == 1
    assert not {"Conv", "FusedConv", "BatchNormalization", "Relu", "Gemm", "MatMul"} & kinds.keys()


def test_its_weights_are_the_integers_of_the_folded_layers(tiny, exported):
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(exported[0]).graph.initializer]
    integers = next(tensor for tensor in tensors if tensor.dtype == np.int8 and tensor.shape == (16, 1, 3, 3))
    weight = tiny.module.conv1.weight.detach().numpy()
    peaks = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    signs = np.sign(tiny.module.bn1.weight.detach().numpy()).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(integers, np.round(signs * weight / peaks * 127))


def test_a_file_that_gives_something_else_is_refused(tiny, patterns, tmp_path, monkeypatch):
    from kdtool import models

    other = copy.deepcopy(tiny.module)
    with torch.no_grad():
        other.head.weight.neg_()
    made = models.integer_network(Network(tiny.architecture, other))
    monkeypatch.setattr(models, "integer_network", lambda network: made)
    with pytest.raises(kdtool.Error, match="are not those of its training.*nothing was written"):
        Onnx(int8=True, latency=False).export(tiny, tmp_path / "t.onnx", metadata={}, val=patterns)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_larger_loss_than_allowed_is_refused(tiny, patterns, tmp_path):
    narrow = copy.deepcopy(tiny)
    narrow.module.kdtool_quantiser.high.mul_(0.02)
    with pytest.raises(kdtool.Error, match="validation images in 8 bits; --max-drop allows 1.00%"):
        Onnx(int8=True, max_drop="1%", latency=False).export(
            narrow, tmp_path / "t.onnx", metadata={}, test=patterns, val=patterns
        )


@pytest.mark.parametrize(
    "option",
    [
        {"calibration": "minmax"},
        {"calibration_images": 9},
        {"float_ends": "on"},
        {"skip": ("conv1",)},
        {"only": ("conv1",)},
    ],
)
def test_options_of_a_later_quantisation_are_refused(tiny, patterns, tmp_path, option):
    with pytest.raises(UsageError, match="was trained in 8 bits"):
        Onnx(int8=True, latency=False, **option).export(tiny, tmp_path / "t.onnx", metadata={}, val=patterns)


def test_a_processor_that_overflows_is_told(tiny, patterns, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(onnx_trained, "lacks_dot_product", lambda: "avx_vnni")
    facts = Onnx(int8=True, latency=False).export(tiny, tmp_path / "t.onnx", metadata={}, val=patterns)
    assert "agreement" not in facts["quantised"]
    assert "the file is for another device, and is not compared" in caplog.text


def test_compared():
    expected = np.array([[4.0, 0.0], [1.0, 0.9], [-4.0, 2.0]], np.float32)
    actual = np.array([[4.0, 0.0], [0.9, 1.0], [2.0, -4.0]], np.float32)
    result = compared(expected, actual)
    assert result["mean"] == pytest.approx((0.1 + 0.1 + 6 + 6) / 6 / 4)
    assert result["largest"] == pytest.approx(1.5)
    # The two best logits of the second image are closer than 5 % of 4.
    assert (result["other_classes"], result["images"]) == (1, 3)


def test_a_network_that_rounds_makes_a_float_file_without_int8(tiny, tmp_path, caplog):
    Onnx(latency=False).export(tiny, tmp_path / "t.onnx", metadata={})
    assert "this file computes in float" in caplog.text
    assert "QuantizeLinear" not in {node.op_type for node in onnx.load(tmp_path / "t.onnx").graph.node}
