"""What is refused before onnxruntime opens an ONNX file."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from kdtool import Error
from kdtool.exporting import onnx_limits, protobuf_wire
from kdtool.exporting.onnx_limits import check_file

IMAGES = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 2, 2])]
LOGITS = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])]


def model(nodes=None, weights=(), functions=(), domains=("",), **more):
    """Return a network that flattens its images, or one of other nodes."""
    nodes = nodes or [helper.make_node("Flatten", ["images"], ["logits"])]
    graph = helper.make_graph(nodes, "graph", IMAGES, LOGITS, list(weights), **more)
    opsets = [helper.make_opsetid(domain, 18 if not domain else 1) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def refused(path, proto):
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    with pytest.raises(Error) as caught:
        check_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_the_fields_are_those_of_onnx():
    """Their numbers are those that the package onnx has, compiled from onnx.proto."""
    for fields, message in (
        (onnx_limits.MODEL, onnx.ModelProto),
        (onnx_limits.GRAPH, onnx.GraphProto),
        (onnx_limits.NODE, onnx.NodeProto),
        (onnx_limits.ATTRIBUTE, onnx.AttributeProto),
        (onnx_limits.TENSOR, onnx.TensorProto),
        (onnx_limits.SPARSE, onnx.SparseTensorProto),
        (onnx_limits.FUNCTION, onnx.FunctionProto),
        (onnx_limits.ENTRY, onnx.StringStringEntryProto),
    ):
        known = {field.name: field.number for field in message.DESCRIPTOR.fields}
        assert {name: known[name] for name in fields} == fields
        # Whatever holds graphs, nodes or tensors is looked at.
        held = {"GraphProto", "NodeProto", "TensorProto", "SparseTensorProto", "FunctionProto", "AttributeProto"}
        parts = {field.name for field in message.DESCRIPTOR.fields if getattr(field.message_type, "name", "") in held}
        assert parts <= {*fields}
    assert onnx.TensorProto.EXTERNAL == onnx_limits.EXTERNAL


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64, np.int8])
def test_a_good_file_is_accepted_with_its_size(tmp_path, kind):
    path = tmp_path / "a.onnx"
    onnx.save(model(weights=[numpy_helper.from_array(np.ones((100, 3), kind), "w")]), path)
    assert check_file(path) == {path: path.stat().st_size}


def test_numbers_in_other_fields_than_raw_data_are_accepted(tmp_path):
    weights = [
        helper.make_tensor("f", TensorProto.FLOAT, [300], np.zeros(300)),
        helper.make_tensor("i", TensorProto.INT64, [300], np.zeros(300, int)),
    ]
    (tmp_path / "a.onnx").write_bytes(model(weights=weights).SerializeToString())
    check_file(tmp_path / "a.onnx")


def test_what_is_no_file_of_onnx(tmp_path):
    path = tmp_path / "a.onnx"
    whole = model().SerializeToString()
    assert refused(path, b"") == "is empty"
    for content in (b"no model", whole[:-1], b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x3b", b"\x02\x01"):
        assert refused(path, content) == "is damaged or is no ONNX file; export the network again"
    assert refused(path, b"\x08\x0a") == "is damaged or is no ONNX file: it has no graph"
    assert refused(path, whole + b"\x3a\x00") == "has several graphs"
    with pytest.raises(Error, match=r"b\.onnx: cannot be read: No such file"):
        check_file(tmp_path / "b.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(Error, match=r"pipe\.onnx: is no regular file$"):
        check_file(tmp_path / "pipe.onnx")
    with open(tmp_path / "large.onnx", "wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(Error, match=r"large\.onnx: is larger than 2 GiB"):
        check_file(tmp_path / "large.onnx")


def test_operators_of_libraries_are_refused(tmp_path):
    for domain, name, reason in (
        (
            "my.ops",
            "Own\x1b[2J",
            r"needs the operator Own?[2J of my.ops, which onnxruntime does not have; kdtool loads no lib",
        ),
        (
            "com.microsoft",
            "EPContext",
            "is compiled for one device (EPContext); name the ONNX file that it was made of",
        ),
    ):
        node = helper.make_node(name, ["images"], ["logits"], domain=domain)
        assert refused(tmp_path / "a.onnx", model([node], domains=("", domain))).startswith(reason)
        inside = helper.make_graph([node], "inner", [], LOGITS)
        choice = helper.make_node("If", ["c"], ["logits"], then_branch=inside, else_branch=inside)
        assert refused(tmp_path / "a.onnx", model([choice], domains=("", domain))).startswith(reason)
    known = model(
        [helper.make_node("Gelu", ["images"], ["logits"], domain="com.microsoft")], domains=("", "com.microsoft")
    )
    (tmp_path / "a.onnx").write_bytes(known.SerializeToString())
    check_file(tmp_path / "a.onnx")


def external(**about):
    """Return a network whose weights are in another file, with whatever its entry about them says."""
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    set_external_data(weight, about.pop("location"), **about)
    weight.ClearField("raw_data")
    return model(weights=[weight])


def test_weights_in_a_file_beside_are_accepted(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.data").write_bytes(bytes(100))
    path = tmp_path / "a.onnx"
    path.write_bytes(external(location="parts/a.data", offset=36, length=64).SerializeToString())
    assert sum(check_file(path).values()) == path.stat().st_size + 100


def test_weights_in_files_elsewhere_are_refused(tmp_path):
    path, secret = tmp_path / "in" / "a.onnx", tmp_path / "secret"
    path.parent.mkdir()
    secret.write_bytes(bytes(100))
    (path.parent / "link").symlink_to(secret)
    (path.parent / "folder").symlink_to(tmp_path)
    (path.parent / "small").write_bytes(bytes(10))
    os.mkfifo(path.parent / "pipe")
    os.link(secret, path.parent / "hard")
    for location, reason in (
        (str(secret), "which is not a file in its folder"),
        ("../secret", "which is not a file in its folder"),
        ("..\\secret", "which is not a file in its folder"),
        ("C:\\secret", "which is not a file in its folder"),
        ("", "which is not a file in its folder"),
        ("*/_ORT_MEM_ADDR_/*", "which is not a file in its folder"),
        ("link", "which is a link; copy the file itself there"),
        ("hard", "which is a link; copy the file itself there"),
        ("folder/secret", "which is a link; copy the file itself there"),
        ("none", "which is missing; copy it beside the file"),
        ("pipe", "which is no regular file"),
        (".", "which is no regular file"),
        ("small", "needs more of 'small' than its 10 bytes"),
    ):
        assert reason in refused(path, external(location=location, offset=0, length=64)), location
    damaged = external(location="small", offset=0, length=5)
    damaged.graph.initializer[0].external_data[1].value = "-1"
    assert refused(path, damaged) == "its metadata about the weights in 'small' are damaged"
    # In an attribute too.
    constant = external(location="../secret").graph.initializer[0]
    node = helper.make_node("Constant", [], ["logits"], value=constant)
    assert "which is not a file in its folder" in refused(path, model([node]))


def test_tensors_that_the_file_does_not_hold_are_refused(tmp_path):
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    weight.dims[:] = [1 << 20, 1 << 20]
    assert refused(tmp_path / "a.onnx", model(weights=[weight])).startswith(
        "declares a tensor of 1048576 x 1048576 ele"
    )
    weight.dims[:] = [100, 100]
    assert refused(tmp_path / "a.onnx", model(weights=[weight])).startswith("declares a tensor of 100 x 100 elements")
    weight.dims[:] = [-1, 4]
    assert refused(tmp_path / "a.onnx", model(weights=[weight])).startswith("declares a tensor with a negative dim")
    weight.dims[:] = [1] * 40
    assert "more than 32 dimensions" in refused(tmp_path / "a.onnx", model(weights=[weight]))
    values, indices = (
        numpy_helper.from_array(np.ones(1, np.float32), "s"),
        numpy_helper.from_array(np.ones(1, int), "i"),
    )
    sparse = helper.make_sparse_tensor(values, indices, [1 << 40])
    assert "declares a sparse tensor of more" in refused(tmp_path / "a.onnx", model(sparse_initializer=[sparse]))


def test_what_grows_or_is_nested_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "a.onnx"
    inner = helper.make_graph([helper.make_node("Flatten", ["images"], ["logits"])], "inner", [], LOGITS)
    for _ in range(20):
        node = helper.make_node("If", ["c"], ["logits"], then_branch=inner, else_branch=inner) if _ < 10 else None
        inner = inner if node is None else helper.make_graph([node], "inner", [], LOGITS)
    monkeypatch.setattr(onnx_limits, "MOST_NODES", 5000)
    assert refused(path, model(list(inner.node))).startswith("has graphs within graphs, more than 8 deep")

    def function(name, calls):
        nodes = [helper.make_node(calls, ["x"], ["y"], domain="own" if calls != "Relu" else "") for _ in range(10)]
        return helper.make_function("own", name, ["x"], ["y"], nodes, [helper.make_opsetid("", 18)])

    call = helper.make_node("F0", ["images"], ["logits"], domain="own")
    chain = [function(f"F{number}", f"F{number + 1}" if number < 11 else "Relu") for number in range(12)]
    assert "5,000 nodes after its functions" in refused(path, model([call], functions=chain, domains=("", "own")))
    path.write_bytes(model([call], functions=[function("F0", "Relu")], domains=("", "own")).SerializeToString())
    check_file(path)
    own = [function("F0", "F0")]
    assert refused(path, model([call], functions=own, domains=("", "own"))) == "has a function that calls itself, F0"
    monkeypatch.setattr(onnx_limits, "MOST_NODES", 5)
    assert refused(path, model([helper.make_node("Relu", ["images"], ["logits"])] * 6)) == "has more than 5 nodes"
    monkeypatch.setattr(protobuf_wire, "MOST_FIELDS", 50)
    assert "has more than 50 entries besides its weights" in refused(path, model(weights=[LARGE_NAMED] * 40))


LARGE_NAMED = numpy_helper.from_array(np.ones(2, np.float32), "w")
