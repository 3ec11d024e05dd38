"""A network is exported once in a process."""

import copy
import json

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import kdtool
from kdtool import Architecture, Network
from kdtool_exporters import onnx_once
from kdtool_exporters.onnx_file import Onnx
from kdtool_exporters.onnx_once import MOST_KEPT, write_once


@pytest.fixture
def exported(monkeypatch):
    """The networks that were really exported, by name."""
    names = []

    def write(module, architecture, path, **how):
        """Write the network's linear layer by hand, which takes no time."""
        names.append(architecture.name)
        weight, bias = (numpy_helper.from_array(tensor.numpy(), name) for name, tensor in module[1].named_parameters())
        nodes = [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ]
        sizes = {"images": ["batch", 1, 4, 4], "logits": ["batch", 3]}
        ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, size)] for name, size in sizes.items()]
        graph = helper.make_graph(nodes, "graph", *ends, [weight, bias])
        opsets = [helper.make_opsetid("", how["opset"])]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)

    monkeypatch.setattr(onnx_once, "write", write)
    monkeypatch.setattr(onnx_once, "_kept", {})
    return names


def network(name="a", seed=0):
    torch.manual_seed(seed)
    options = {"classes": 3, "in_channels": 1, "image_size": 4}
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return Network(Architecture(source="timm", name=name, options=options), module)


def test_a_network_that_is_exported_again(exported, tmp_path):
    options = {"opset": 18, "output": tmp_path / "x"}
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    parity = write_once(network(), first, metadata={"kdtool.input": "[1, 4, 4]"}, **options)
    again = write_once(copy.deepcopy(network()), second, metadata={"other": "é"}, **options)
    assert exported == ["a"]
    assert parity == again
    assert parity["same_argmax"]
    metadata = [onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map for path in (first, second)]
    for name in ("kdtool.structure", "kdtool.operators"):
        assert metadata[0].pop(name) == metadata[1].pop(name)
    assert metadata == [{"kdtool.input": "[1, 4, 4]"}, {"other": "é"}]
    assert onnx.load(first).graph == onnx.load(second).graph


def test_what_differs_is_exported_anew(exported, tmp_path):
    how = {"metadata": {}, "output": tmp_path / "x", "check": False}
    write_once(network("a"), tmp_path / "a.onnx", opset=18, **how)
    write_once(network("a", seed=1), tmp_path / "a.onnx", opset=18, **how)
    write_once(network("b"), tmp_path / "b.onnx", opset=18, **how)
    write_once(network("a"), tmp_path / "c.onnx", opset=20, **how)
    changed = network("a")
    changed.module.register_buffer("scale", torch.ones(1), persistent=False)
    write_once(changed, tmp_path / "d.onnx", opset=18, **how)
    assert exported == ["a", "a", "b", "a", "a"]
    write_once(network("b"), tmp_path / "e.onnx", opset=18, **how)
    assert len(exported) == 5


class Flatten(nn.Flatten):
    """Code of one's own that is mended while a program runs."""


def test_a_network_whose_code_was_mended_is_exported_anew(exported, monkeypatch, tmp_path):
    how = {"metadata": {}, "output": tmp_path / "x", "opset": 18}
    own = network()
    own.module[0] = Flatten()
    write_once(own, tmp_path / "a.onnx", **how)
    monkeypatch.setattr(Flatten, "forward", lambda self, images: -images.flatten(1))
    with pytest.raises(kdtool.Error, match="differ"):  # the layer that is written by hand is that of the old code
        write_once(own, tmp_path / "b.onnx", **how)
    assert exported == ["a", "a"]


def test_few_files_are_kept(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_once, "MOST_KEPT", 2)
    for seed in range(3):
        write_once(network(seed=seed), tmp_path / "a.onnx", opset=18, metadata={}, output=tmp_path, check=False)
    assert len(onnx_once._kept) == 2 < MOST_KEPT
    assert all(kept.file.is_file() for kept in onnx_once._kept.values())


def test_students_of_one_teacher_export_it_once(exported, tmp_path):
    quick = Onnx(pairs=1, latency_seconds=0.01)
    for seed in (1, 2):
        facts = quick.export(network("s", seed), tmp_path / f"{seed}.onnx", metadata={}, teacher=network("t"))
        assert json.dumps(facts["latency"]["ratio"])
    assert exported == ["s", "t", "s"]
