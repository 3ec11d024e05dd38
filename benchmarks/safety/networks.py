"""A small ONNX file with what a stranger may change: weights, a graph within a graph, a function, metadata."""

from __future__ import annotations

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
