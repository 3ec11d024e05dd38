"""Weights and ranges as onnxruntime.quantization is told to make them, and processors without the instructions."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from kdtool_exporters import onnx_quantise
from kdtool_exporters.onnx_quantise import (
    all_operators,
    calibrated,
    dynamic,
    half,
    lacks_dot_product,
    static,
)


def test_layers_have_the_names_of_their_modules(prepared):
    model, layers = prepared
    assert [(layer.name, layer.operator) for layer in layers] == [
        ("stem", "Conv"),
        ("wide", "Conv"),
        ("narrow", "Conv"),
        ("head", "Gemm"),
    ]
    assert [layer.weights for layer in layers] == [72, 72, 72, 512]
    names = [node.name for node in onnx.load(model).graph.node]
    assert len({*names}) == len(names)
    assert all(names)


@pytest.mark.parametrize(("seven_bits", "largest"), [(False, 127), (True, 63)])
def test_every_channel_of_weights_has_its_own_scale(prepared, outlier, patterns, tmp_path, seven_bits, largest):
    model, _ = prepared
    images = [batch.numpy() for batch, _ in patterns]
    ranges = calibrated(model, images, "minmax", all_operators())
    static(model, tmp_path / "q.onnx", ranges, all_operators(), seven_bits=seven_bits)
    tensors = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer
    }
    weights = outlier.module.stem.weight.detach().numpy()
    peaks = np.abs(weights).max(axis=(1, 2, 3))
    np.testing.assert_allclose(tensors["stem.weight_scale"], peaks / largest, rtol=0.02)
    integers = tensors["stem.weight_quantized"].astype(float)
    assert tensors["stem.weight_quantized"].dtype == np.int8
    error = np.abs(integers * tensors["stem.weight_scale"].reshape(-1, 1, 1, 1) - weights)
    assert (error <= 0.51 * tensors["stem.weight_scale"].reshape(-1, 1, 1, 1)).all()
    # The images' range is that of all of them, in 255 steps.
    everything = np.concatenate(images)
    spread = everything.max() - everything.min()
    assert float(tensors["images_scale"]) == pytest.approx(spread / 255, rel=1e-3)


def test_the_dynamic_way_leaves_a_skipped_layer_in_float(prepared, tmp_path):
    """onnxruntime takes Gemm apart and renames it before it looks at the names to leave out."""
    model, _ = prepared
    for how, whole in (({"skip": ["head"]}, True), ({"only": ["head"]}, False), ({"only": ["stem"]}, True)):
        dynamic(model, tmp_path / "dynamic.onnx", **how)
        kinds = {node.op_type for node in onnx.load(tmp_path / "dynamic.onnx").graph.node}
        assert ("MatMulInteger" not in kinds) is whole


def test_a_percentile_leaves_out_an_outlier(prepared, patterns):
    model, _ = prepared
    images = np.concatenate([batch.numpy() for batch, _ in patterns] * 4)
    images[0, 0, 0, 0] = 500  # one of 30,720 values, and 0.005 % of them lie beyond each end of the range
    high = {}
    for how in ("minmax", "percentile", "entropy"):
        ranges = calibrated(model, [images], how, all_operators())
        high[how] = float(np.ravel(ranges["images"].range_value[1])[0])
    assert high["minmax"] == 500
    assert high["percentile"] < 100
    assert high["entropy"] <= 500


def test_half_precision_keeps_its_inputs_and_outputs(prepared, patterns, outlier, tmp_path):
    import onnxruntime

    half(prepared[0], tmp_path / "h.onnx", skip=["head"])
    session = onnxruntime.InferenceSession(tmp_path / "h.onnx")
    images = patterns[0][0]
    (logits,) = session.run(None, {"images": images.numpy()})
    assert logits.dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(logits, outlier.module(images), rtol=0.05, atol=0.05)
    types = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "h.onnx").graph.initializer}
    assert types["stem.weight"] == onnx.TensorProto.FLOAT16
    assert types["head.weight"] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    ("machine", "text", "lacking"),
    [
        ("x86_64", "flags\t\t: fpu avx2 avx512_vnni\n", None),
        ("x86_64", "flags\t\t: fpu avx2\n", "avx512_vnni, avx_vnni, amx_int8"),
        ("AMD64", "flags\t\t: fpu avx2\n", "avx512_vnni, avx_vnni, amx_int8"),
        ("aarch64", "Features\t: fp asimd\n", "asimddp"),
        ("aarch64", "Features\t: fp asimd asimddp\n", None),
        ("x86_64", "nothing\n", None),
        ("riscv64", "flags : a\n", None),
    ],
)
def test_processors_that_cannot_add_products_of_integers(monkeypatch, tmp_path, machine, text, lacking):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(onnx_quantise.platform, "machine", lambda: machine)
    monkeypatch.setattr(onnx_quantise, "CPUINFO", tmp_path / "cpuinfo")
    assert lacks_dot_product() == lacking
