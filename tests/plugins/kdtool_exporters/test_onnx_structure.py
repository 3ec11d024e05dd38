"""Networks that differ in their weights alone have one structure."""

import json

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdtool import Error, UsageError
from kdtool.exporting import measure_file
from kdtool_exporters.onnx_file import Onnx
from kdtool_exporters.onnx_structure import structure


def model(prefix="", width=3, fill=1.0, axis=1, shape=(-1, 16), operator="Relu", batch="batch"):
    """A network with names that begin with ``prefix``."""
    weight = numpy_helper.from_array(np.full((16, width), fill, np.float32), f"{prefix}w")
    sizes = numpy_helper.from_array(np.array(shape, np.int64), f"{prefix}s")
    nodes = [
        helper.make_node("Reshape", [f"{prefix}x", f"{prefix}s"], [f"{prefix}a"]),
        helper.make_node("MatMul", [f"{prefix}a", f"{prefix}w"], [f"{prefix}b"]),
        helper.make_node(operator, [f"{prefix}b"], [f"{prefix}c"]),
        helper.make_node("Softmax", [f"{prefix}c"], [f"{prefix}y"], axis=axis),
    ]
    ends = [
        [helper.make_tensor_value_info(f"{prefix}x", TensorProto.FLOAT, [batch, 1, 4, 4])],
        [helper.make_tensor_value_info(f"{prefix}y", TensorProto.FLOAT, [batch, width])],
    ]
    graph = helper.make_graph(nodes, "graph", *ends, [weight, sizes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_names_and_weights_do_not_count():
    assert structure(model()) == structure(model(prefix="other", fill=2.0, batch="n"))
    assert len(structure(model())) == 16


@pytest.mark.parametrize(
    "how", [{"width": 4}, {"axis": 0}, {"shape": (-1, 8)}, {"operator": "Sigmoid"}, {"batch": 2}], ids=str
)
def test_what_is_computed_counts(how):
    assert structure(model(**how)) != structure(model())


def test_a_latency_from_another_device(outlier, tmp_path):
    output, there = tmp_path / "a.onnx", tmp_path / "there.json"
    Onnx(latency=False).export(outlier, output, metadata={})
    measured = measure_file(output, pairs=1, seconds=0.1)
    metadata = onnxruntime.InferenceSession(output).get_modelmeta().custom_metadata_map
    assert measured["structure"] == metadata["kdtool.structure"]
    there.write_text(json.dumps({**measured, "p50_ms": 123.0, "cpu": "a phone"}))
    facts = Onnx(latency_from=there).export(outlier, output, metadata={}, teacher=outlier)
    assert facts["latency"]["student"]["p50_ms"] == 123
    assert (facts["latency"]["ratio"], facts["latency"]["cpu"], facts["latency"]["from"]) == (1, "a phone", str(there))
    there.write_text(json.dumps({**measured, "structure": "other"}))
    output.unlink()
    with pytest.raises(Error, match=r"there\.json: holds no measurement of this network; export it with --no-latency"):
        Onnx(latency_from=there).export(outlier, output, metadata={})
    assert list(tmp_path.iterdir()) == [there]


def test_what_is_measured_nowhere_is_refused_before_the_export(outlier, tmp_path):
    with pytest.raises(UsageError, match=r"none\.json: cannot be read"):
        Onnx(latency_from=tmp_path / "none.json").export(None, tmp_path / "a.onnx", metadata={})
    with pytest.raises(UsageError, match=r"^--threads: --latency-from tells how it was measured elsewhere"):
        Onnx(latency_from=tmp_path / "none.json", threads=2)
    missing = next(
        name
        for name, full in {"cuda": "CUDAExecutionProvider", "qnn": "QNNExecutionProvider"}.items()
        if full not in onnxruntime.get_available_providers()
    )
    with pytest.raises(UsageError, match=rf"^--provider {missing}: onnxruntime"):
        Onnx(provider=missing).export(None, tmp_path / "a.onnx", metadata={})
    with pytest.raises(UsageError, match=r"^--provider: 'gpu' is not a choice"):
        Onnx(provider="gpu")
