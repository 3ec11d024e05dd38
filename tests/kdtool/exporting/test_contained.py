"""ONNX files of strangers run in a process of their own, with bounds of memory and time."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdtool import Error
from kdtool.exporting import contained
from kdtool.exporting.contained import ContainedSession, measure_contained

QUICK = {"pairs": 1, "seconds": 0.1}
# Seconds; the messages round them to 1. The system counts whole seconds of CPU, and some are spent before.
BRIEFLY = 0.6


def save(path, nodes, weights=(), size=(1, 2, 2)):
    """Write a network from images to logits; all weights are int64, but for those given as float."""
    images = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *size])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights]
    graph = helper.make_graph(nodes, "graph", images, logits, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def good(path):
    return save(path, [helper.make_node("Flatten", ["images"], ["logits"])])


def greedy(path):
    """A network of some hundred bytes that adds to its logits the sum of 4 TB of zeros."""
    return save(
        path,
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Add", ["flat", "sum"], ["logits"]),
        ],
        [("shape", [1 << 20, 1 << 20])],
    )


def looping(path):
    """A network that adds 1 to its logits as often as the first pixel says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["before", "one"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["batch", 4]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["batch", 4]),
        ],
    )
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["times"], to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "", "flat"], ["logits"], body=body),
    ]
    return save(path, nodes, [("one", np.float32(1))])


def ask(session, images):
    (result,) = session.run(["logits"], {"images": images})
    return result


def pictures(number, value=0.0):
    return np.full((number, 1, 2, 2), value, np.float32)


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    return looping(tmp_path_factory.mktemp("looped") / "a.onnx")


def test_a_session_gives_what_onnxruntime_gives(tmp_path):
    session = ContainedSession(good(tmp_path / "a.onnx"))
    images = np.arange(20, dtype=np.float32).reshape(5, 1, 2, 2)
    assert [(side.name, side.type, side.shape) for side in session.get_inputs()] == [
        ("images", "tensor(float)", ["batch", 1, 2, 2])
    ]
    assert [side.name for side in session.get_outputs()] == ["logits"]
    assert (ask(session, images) == images.reshape(5, 4)).all()
    assert ask(session, images[:0]).shape == (0, 4)
    # Its process cannot write a file.
    assert psutil.Process(session._child._process.pid).rlimit(psutil.RLIMIT_FSIZE) == (0, 0)


def test_a_session_goes_to_a_process_that_does_not_see_its_files(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    images = np.arange(20, dtype=np.float32).reshape(5, 1, 2, 2)
    nodes = [helper.make_node("Flatten", ["images"], ["flat"]), helper.make_node("Mul", ["flat", "two"], ["logits"])]
    model = onnx.load(save(tmp_path / "a.onnx", nodes, [("two", np.full((1, 4), 2, np.float32))]))
    onnx.save(model, "a.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    sent = pickle.dumps(ContainedSession(Path("a.onnx")))
    for file in (tmp_path / "a.onnx", tmp_path / "weights.bin"):
        file.unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")

    session = pickle.loads(sent)
    assert (ask(session, images) == 2 * images.reshape(5, 4)).all()
    # It goes on to a third, and errors name the file that the user knows.
    again = pickle.loads(pickle.dumps(session))
    assert (ask(again, images) == 2 * images.reshape(5, 4)).all()
    again._child.end()
    with pytest.raises(Error, match=r"^a\.onnx: "):
        ask(again, images)
    assert not list(tmp_path.rglob("*.*"))


def test_terabytes_are_refused_in_one_line(tmp_path):
    with pytest.raises(Error, match=r"a\.onnx: needs more than [4-9]\.\d GiB of memory in onnxruntime$"):
        ask(ContainedSession(greedy(tmp_path / "a.onnx")), pictures(1))
    with pytest.raises(Error, match=r"a\.onnx: needs more than [4-9]\.\d GiB of memory in onnxruntime$"):
        measure_contained(tmp_path / "a.onnx", **QUICK)


TOO_LONG = r"a\.onnx: onnxruntime takes longer than 1 s for it$"
TOO_MUCH = r"a\.onnx: onnxruntime takes more than 1 s of CPU for it, far more than a network of its size needs$"


@pytest.mark.parametrize(
    ("limit", "message", "number"), [("FIRST", TOO_LONG, signal.SIGKILL), ("CPU", TOO_MUCH, signal.SIGXCPU)]
)
def test_a_loop_without_end_is_ended(looped, monkeypatch, limit, message, number):
    session = ContainedSession(looped)
    monkeypatch.setattr(contained, limit, BRIEFLY)
    child = session._child._process
    with pytest.raises(Error, match=message):
        ask(session, pictures(1, 1e18))
    assert child.returncode == -number
    with pytest.raises(Error, match=message):
        ask(session, pictures(1))


def test_a_measurement_without_end_is_ended_after_seconds_of_cpu(tmp_path, monkeypatch):
    endless = looping(tmp_path / "a.onnx")
    model = onnx.load(endless)
    (times,) = [node for node in model.graph.node if node.op_type == "Loop"]
    times.input[0] = "forever"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 << 60), "forever"))
    onnx.save(model, endless)
    monkeypatch.setattr(contained, "CPU", BRIEFLY)
    with pytest.raises(Error, match=TOO_MUCH):
        measure_contained(endless, **QUICK)


def test_what_a_network_may_take_of_the_cpu_grows_with_its_file_and_its_images(tmp_path):
    session = ContainedSession(good(tmp_path / "a.onnx"))
    small = session._first_cpu(4 * 3 * 32 * 32)
    assert small < 3.1
    session._bytes = 100 << 20  # ResNet-50: more than the time that it has
    assert session._first_cpu(4 * 3 * 224 * 224) > contained.FIRST


@pytest.mark.parametrize(
    ("limit", "message"), [("SLACK", "longer than"), pytest.param("CPU", "more than", marks=pytest.mark.slow)]
)
def test_an_image_that_takes_far_longer_than_the_first_is_ended(looped, monkeypatch, limit, message):
    session = ContainedSession(looped)
    assert (ask(session, pictures(2, 3.0)) == 6).all()
    monkeypatch.setattr(contained, limit, BRIEFLY)
    with pytest.raises(Error, match=f"takes {message}"):
        ask(session, pictures(2, 1e18))


def test_a_crash_is_one_line(tmp_path):
    session = ContainedSession(good(tmp_path / "a.onnx"))
    os.kill(session._child._process.pid, signal.SIGSEGV)
    with pytest.raises(Error, match=r"a\.onnx: onnxruntime crashed on it \(SIGSEGV\)$"):
        ask(session, pictures(1))


def test_what_onnxruntime_refuses_is_one_line(tmp_path):
    with pytest.raises(Error, match=r"a\.onnx: onnxruntime \S+ does not load it: .*NoSuch.*[^\n]*$"):
        ContainedSession(save(tmp_path / "a.onnx", [helper.make_node("NoSuch", ["images"], ["logits"])]))
    session = ContainedSession(good(tmp_path / "a.onnx"))
    with pytest.raises(Error, match=r"a\.onnx: onnxruntime \S+ cannot run it: .*none of these[^\n]*$"):
        session.run(["none of these"], {"images": pictures(1)})
    with pytest.raises(Error, match=r"b\.onnx: takes images of 1,099,511,627,776 numbers; the most are 67,108,864$"):
        ContainedSession(
            save(tmp_path / "b.onnx", [helper.make_node("Flatten", ["images"], ["logits"])], size=(1, 1 << 20, 1 << 20))
        )


def test_names_in_what_onnxruntime_says_have_no_control_characters(tmp_path):
    with pytest.raises(Error, match="does not load it") as error:
        ContainedSession(save(tmp_path / "a.onnx", [helper.make_node("No\n\x1b[2J", ["images"], ["logits"])]))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("batch", "size", "message"),
    [
        (0, 2, "0 images; the most are 65,536"),
        (1 << 40, 2, "1,099,511,627,776 images; the most are 65,536"),
        (1 << 16, 128, "1,073,741,824 numbers; the most are 268,435,456"),
    ],
)
def test_a_fixed_batch_has_a_limit(tmp_path, batch, size, message):
    images = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 1, size, size])]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, size * size])]
    graph = helper.make_graph([helper.make_node("Flatten", ["images"], ["logits"])], "graph", images, logits)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    with pytest.raises(Error, match=rf"a\.onnx: takes batches of {message}$"):
        ContainedSession(tmp_path / "a.onnx")


def test_a_graph_without_inputs_is_not_measured(tmp_path):
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])
    weight = numpy_helper.from_array(np.ones((1, 4), np.float32), "weight")
    graph = helper.make_graph([helper.make_node("Neg", ["weight"], ["logits"])], "graph", [], [logits], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    with pytest.raises(Error, match=r"a\.onnx: .*takes nothing"):
        measure_contained(tmp_path / "a.onnx", **QUICK)


def test_the_process_ends_with_the_session_but_not_with_a_copy_in_a_fork(tmp_path):
    session = ContainedSession(good(tmp_path / "a.onnx"))
    child = session._child._process
    forked = os.fork()
    if not forked:
        session._child.end()
        os._exit(0)
    os.waitpid(forked, 0)
    assert ask(session, pictures(1)).shape == (1, 4)
    assert copy.copy(session).path == session.path
    del session
    assert child.wait(10) == -signal.SIGKILL


ENDLESS = """
import sys
from pathlib import Path
import numpy as np
from kdtool.exporting.contained import ContainedSession
session = ContainedSession(Path(sys.argv[1]))
print(session._child._process.pid, flush=True)
session.run(["logits"], {"images": np.full((1, 1, 2, 2), 1e18, np.float32)})
"""


def test_the_process_ends_with_its_parent(looped):
    parent = subprocess.Popen([sys.executable, "-c", ENDLESS, looped], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    started = time.monotonic()
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() - started < 10:
        time.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_nothing_is_imported_from_the_working_directory(tmp_path, monkeypatch):
    path = good(tmp_path / "a.onnx")
    for name in ("numpy", "json", "kdtool", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    assert ask(ContainedSession(path), pictures(1)).shape == (1, 4)
    assert not (tmp_path / "imported").exists()
