"""Drafts: files that are measured in place of those of an export."""

import copy

import onnx
import onnxruntime
import pytest
import torch

from kdtool.models.architecture import Architecture, Network
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.plugins.registry import make
from kdtool_exporters import onnx_draft


@pytest.fixture(scope="module")
def network():
    shape = NetworkOptions(classes=10, in_channels=1, image_size=8)
    return create("kdtool:resnet8x4", options=shape, data=None)


def layers(path, folder):
    """Return the kinds of layers that onnxruntime runs, after its optimisations, with the number of each."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimised.onnx"), 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    return {kind: kinds.count(kind) for kind in ("Conv", "FusedConv", "Gemm", "BatchNormalization", "Add")}


def test_onnxruntime_runs_a_draft_as_it_runs_an_export(network, tmp_path):
    exporter = make("exporters", "onnx", latency=False)
    exporter.draft(network, tmp_path / "draft.onnx")
    exporter.export(network, tmp_path / "export.onnx", metadata={})
    assert layers(tmp_path / "draft.onnx", tmp_path) == layers(tmp_path / "export.onnx", tmp_path)
    sizes = [(tmp_path / name).stat().st_size for name in ("draft.onnx", "export.onnx")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_an_unchecked_export_has_the_bytes_of_an_export(tmp_path):
    # Layers that begin with zero have equal weights, which the exporter would write once, until they are trained.
    layers = [torch.nn.Conv2d(1, 8, 3, bias=False), torch.nn.BatchNorm2d(8)]
    layers += [layer for _ in range(2) for layer in (torch.nn.Conv2d(8, 8, 1, bias=False), torch.nn.BatchNorm2d(8))]
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8 * 6 * 6, 3))
    trained = Network(Architecture("test", "small", {"classes": 3, "in_channels": 1, "image_size": 8}), module)
    small = copy.deepcopy(trained)
    for number in (1, 3, 5):
        torch.nn.init.zeros_(small.module[number].weight)
        torch.nn.init.normal_(module[number].bias)
    exporter = make("exporters", "onnx", latency=False)
    exporter.export_unchecked(small, tmp_path / "unchecked.onnx", metadata={"kdtool.size": "{}"})
    exporter.export(trained, tmp_path / "export.onnx", metadata={"kdtool.size": "{}"})
    exporter.draft(small, tmp_path / "draft.onnx")
    sizes = [(tmp_path / name).stat().st_size for name in ("unchecked.onnx", "export.onnx")]
    assert sizes[0] == sizes[1] != (tmp_path / "draft.onnx").stat().st_size


def test_with_validation_images_a_draft_has_the_weights_of_the_network(network, tmp_path):
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = [(images, torch.arange(20) % 10)]
    expected = network.module(images).detach()
    for int8, tolerance in ((False, 1e-3), (True, 0.2)):
        path = tmp_path / f"{int8}.onnx"
        make("exporters", "onnx", latency=False, int8=int8).draft(network, path, val=batches)
        logits = onnxruntime.InferenceSession(str(path)).run(None, {"images": images.numpy()})[0]
        assert (torch.from_numpy(logits) - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_draft_of_eight_bits_needs_no_images_and_is_smaller(network, tmp_path):
    for int8 in (False, True):
        make("exporters", "onnx", latency=False, int8=int8).draft(network, tmp_path / f"{int8}.onnx")
    whole, small = ((tmp_path / f"{int8}.onnx").stat().st_size for int8 in (False, True))
    assert small < 0.5 * whole
    kinds = {node.op_type for node in onnx.load(tmp_path / "True.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_a_draft_of_a_transformer_is_of_the_kind_of_its_export(tmp_path, monkeypatch):
    shape = NetworkOptions(classes=10, image_size=32)
    network = create("timm:test_vit", options=shape, data=None)

    def kinds(ratio):
        monkeypatch.setattr("kdtool_exporters.onnx_file.Onnx.slower", lambda self, path, other: ratio)
        make("exporters", "onnx", int8=True).draft(network, tmp_path / "draft.onnx")
        return [node.op_type for node in onnx.load(tmp_path / "draft.onnx").graph.node]

    static, dynamic = kinds(2.0), kinds(0.5)
    assert "MatMulInteger" not in static
    assert "MatMulInteger" in dynamic
    # Of a transformer only products with weights are quantised: not the additions and norms between them.
    assert static.count("QuantizeLinear") < 120  # 214 with all operators


def test_weights_that_begin_with_zero_are_not_quantised_in_each_run(tmp_path):
    # The last batch-norm of a block often begins with zero, so that layers have equal weights until they are trained.
    network = create("kdtool:resnet20", options=NetworkOptions(classes=10, in_channels=1, image_size=8), data=None)
    for name, module in network.module.named_modules():
        if name.endswith("bn2"):
            torch.nn.init.zeros_(module.weight)
    make("exporters", "onnx", latency=False, int8=True).draft(network, tmp_path / "draft.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 4
    onnxruntime.InferenceSession(str(tmp_path / "draft.onnx"), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 4}
    layers = [node for node in graph.node if node.op_type == "QLinearConv"]
    assert len(layers) == 19
    assert all(node.input[3] in weights for node in layers)  # computed weights would be the output of a node


@pytest.mark.slow
def test_what_the_older_exporter_cannot_write_is_exported_as_usual(network, tmp_path, monkeypatch):
    export, used = torch.onnx.export, []

    def without(*args, dynamo, **options):
        used.append(dynamo)
        if not dynamo:
            raise RuntimeError("no symbolic")
        return export(*args, dynamo=dynamo, **options)

    monkeypatch.setattr(torch.onnx, "export", without)
    make("exporters", "onnx", latency=False).draft(network, tmp_path / "draft.onnx")
    assert used == [False, True]
    assert onnxruntime.InferenceSession(str(tmp_path / "draft.onnx")).get_outputs()[0].shape[1] == 10


def with_layer(layer):
    """Return a network that gives the image's rows, as a sequence, to a layer."""
    shape = {"classes": 8, "in_channels": 1, "image_size": 8}
    return Network(Architecture("test", "rows", shape), torch.nn.Sequential(torch.nn.Flatten(1, 2), layer))


def test_the_transformer_layers_of_pytorch_are_drafted(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_draft, "write_once", None)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    make("exporters", "onnx", latency=False).draft(with_layer(layer), tmp_path / "draft.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "draft.onnx").graph.node]
    assert kinds.count("MatMul") + kinds.count("Gemm") == 6


def test_a_draft_that_fails_prints_nothing(tmp_path, monkeypatch, capfd):
    class Unknown(torch.nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x).real

    exported = []
    monkeypatch.setattr(onnx_draft, "write_once", lambda *args, **options: exported.append(args))
    make("exporters", "onnx", latency=False).draft(with_layer(Unknown()), tmp_path / "draft.onnx")
    assert exported
    assert capfd.readouterr() == ("", "")
