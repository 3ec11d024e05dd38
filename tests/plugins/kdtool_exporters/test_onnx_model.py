"""Metadata is cleared, and the module to export is a plain copy."""

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_exporters.onnx_model import frozen, scrub, write


def test_scrub_reaches_every_part():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1], doc_string="/home/me")
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], doc_string="/home/me")], "inner", [], [value])
    branch = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner, doc_string="/home/me")
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.doc_string = "/home/me"
    graph = helper.make_graph([branch], "outer", [value], [value], [tensor], doc_string="/home/me")
    function = helper.make_function("d", "f", ["x"], ["y"], [branch], [], doc_string="/home/me")
    model = helper.make_model(graph, functions=[function], doc_string="/home/me", producer_name="torch")
    for part in (model, graph, *model.graph.node, *model.graph.node[0].attribute[0].g.node, *model.functions):
        if hasattr(part, "metadata_props"):
            part.metadata_props.add(key="stack", value="/home/me")
    assert model.SerializeToString().count(b"/home/me") > 10
    scrub(model)
    assert b"/home/me" not in model.SerializeToString()
    assert b"stack" not in model.SerializeToString()
    # The computation is unchanged.
    assert model.producer_name == "torch"
    assert [node.op_type for node in model.graph.node[0].attribute[0].g.node] == ["Relu"]
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).tolist() == [1.0]


def test_frozen_is_a_copy():
    module = nn.Conv2d(2, 3, 3).double().train().to(memory_format=torch.channels_last)
    copied = frozen(module)
    assert copied.weight.dtype == torch.float32
    assert copied.weight.is_contiguous()
    assert not copied.training
    assert not copied.weight.requires_grad
    assert module.training
    assert module.weight.requires_grad
    assert module.weight.dtype == torch.float64
    assert module.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_file_tells_shapes_of_weights_once(tmp_path):
    shape = NetworkOptions(classes=10, in_channels=1, image_size=8)
    network = create("kdtool:lenet-300-100", options=shape, data=None)
    module = frozen(network.module)
    write(module, network.architecture, tmp_path / "net.onnx", opset=18, metadata={})
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert len(graph.initializer) >= 6
    assert not {value.name for value in graph.value_info} & {tensor.name for tensor in graph.initializer}


class Attention(nn.Module):
    """A layer like timm's, whose attribute says whether its attention is fused."""

    def __init__(self):
        super().__init__()
        self.fused_attn = True


def test_attention_is_written_out():
    module = nn.Sequential(Attention())
    assert frozen(module)[0].fused_attn is False
    assert module[0].fused_attn is True
