"""Small ONNX files with what a stranger may change: weights, graphs within a graph, a function, metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def network() -> bytes:
    """Return an ONNX file that classifies images of 2x2 pixels."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 2, 2])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    chosen = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["batch", 4])
    branches = {
        name: helper.make_graph([helper.make_node("MatMul", ["flat", "weight"], ["chosen"])], name, [], [chosen])
        for name in ("then_branch", "else_branch")
    }
    halved = helper.make_function(
        "own", "Halve", ["x"], ["y"], [helper.make_node("Mul", ["x", "x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("If", ["condition"], ["any"], **branches),
        helper.make_node("Halve", ["any"], ["logits"], domain="own"),
    ]
    weights = [
        numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight"),
        numpy_helper.from_array(np.array(True), "condition"),
    ]
    graph = helper.make_graph(nodes, "graph", [images], [logits], weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[halved], ir_version=10)
    helper.set_model_props(model, {"kdtool.classes": '["a", "b", "c", "d"]'})
    content: bytes = model.SerializeToString()
    return content


def classifier(about: dict[str, str]) -> bytes:
    """Return an ONNX file that classifies digits of 8x8 pixels, with metadata.

    It has a convolution, a pool, a loop, a resize, a scatter and sizes that are computed.
    """
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    names = {"count": TensorProto.INT64, "going": TensorProto.BOOL, "going_on": TensorProto.BOOL}
    given = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in names.items()}
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("before", "after")]
    body = helper.make_graph(
        [helper.make_node("Add", ["before", "before"], ["after"]), helper.make_node("Not", ["no"], ["going_on"])],
        "body", [given["count"], given["going"], sides[0]], [given["going_on"], sides[1]],
    )  # fmt: skip
    random = np.random.default_rng(0)
    weights: dict[str, Any] = {
        **{"kernel": random.normal(size=(4, 1, 3, 3)), "scale": np.ones(4), "shift": np.zeros(4)},
        **{"scales": np.array([1, 1, 2, 2]), "weight": random.normal(size=(64, 10)), "bias": np.zeros(10)},
    }
    numbers: dict[str, Any] = {
        **{"times": np.array(2), "shape": np.array([0, -1]), "where": np.array([[0]]), "no": np.array(False)},
        **{"starts": np.array([0]), "ends": np.array([1])},
    }
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "shift", "scale"], ["n"]),
        helper.make_node("Resize", ["n", "", "scales"], ["r"], mode="nearest"),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Loop", ["times", "", "p"], ["l"], body=body),
        helper.make_node("Reshape", ["l", "shape"], ["f"]),
        helper.make_node("Shape", ["f"], ["s"]),
        helper.make_node("Slice", ["s", "starts", "ends"], ["b"]),
        helper.make_node("ConstantOfShape", ["b"], ["z"]),
        helper.make_node("Unsqueeze", ["z", "starts"], ["u"]),
        helper.make_node("ReduceSum", ["u"], ["t"], keepdims=0),
        helper.make_node("Gemm", ["f", "weight", "bias"], ["g"]),
        helper.make_node("Add", ["g", "t"], ["logits"]),
    ]
    initial = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    initial += [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "graph", [images], [logits], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, about)
    content: bytes = model.SerializeToString()
    return content
