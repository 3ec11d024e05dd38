"""Tell whether two ONNX files differ in the values of their weights alone, so that they take the same time."""

from __future__ import annotations

import hashlib
from typing import Any


def structure(model: Any) -> str:
    """Return 16 hexadecimal digits that depend on a model's operations, types and shapes, not on names and weights.

    Integers of 64 bits count as shapes and axes, with their values; other constants as weights, without them.
    """
    graph = model.graph
    names = {value.name: f"input {number}" for number, value in enumerate(graph.input)}
    names |= {tensor.name: repr(_tensor(tensor)) for tensor in graph.initializer}
    operations = []
    for number, node in enumerate(graph.node):
        attributes = sorted((attribute.name, repr(_value(attribute))) for attribute in node.attribute)
        inputs = [names.get(name, "") for name in node.input]
        operations.append((node.domain, node.op_type, inputs, attributes))
        names |= {name: f"output {place} of {number}" for place, name in enumerate(node.output)}
    ends = [(names.get(value.name, ""), _type(value)) for value in (*graph.input, *graph.output)]
    opsets = sorted((entry.domain, entry.version) for entry in model.opset_import)
    return hashlib.sha256(repr((opsets, operations, ends)).encode()).hexdigest()[:16]


def _tensor(tensor: Any) -> tuple[Any, ...]:
    import onnx

    inside = tensor.data_location != onnx.TensorProto.EXTERNAL
    shaping = tensor.data_type == onnx.TensorProto.INT64 and inside
    return tensor.data_type, list(tensor.dims), onnx.numpy_helper.to_array(tensor).tolist() if shaping else None


def _value(attribute: Any) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    # Graphs inside a node do not occur in networks that classify images.
    return value.SerializeToString(deterministic=True) if isinstance(value, onnx.GraphProto) else value


def _type(value: Any) -> tuple[Any, ...]:
    tensor = value.type.tensor_type
    return tensor.elem_type, [size.dim_value or None for size in tensor.shape.dim]
