"""Measurements that are made on one device and read on another."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from kdtool import Error, UsageError
from kdtool.cli.main import cli
from kdtool.exporting import operators
from kdtool.exporting.contained import ContainedSession
from kdtool.exporting.measurement import measure_file, measured_elsewhere, read_measurements, write_script

QUICK = {"pairs": 1, "seconds": 0.1}


def write_model(path, inputs=("batch", 1, 4, 4), classes=3, kind=TensorProto.FLOAT, metadata=None):
    """Write a network of one linear layer, or with ``classes`` None one that gives maps."""
    nodes = [helper.make_node("Flatten", ["images"], ["flat"])]
    weight = numpy_helper.from_array(np.eye(16, classes or 16, dtype=np.float32), "weight")
    nodes.append(helper.make_node("MatMul", ["flat", "weight"], ["logits"]))
    if classes is None:
        nodes = [helper.make_node("Relu", ["images"], ["logits"])]
    ends = [
        [helper.make_tensor_value_info("images", kind, inputs)],
        [helper.make_tensor_value_info("logits", kind, inputs if classes is None else [inputs[0], classes])],
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", *ends, [weight]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def test_a_file_is_described_and_measured(tmp_path):
    path = write_model(tmp_path / "a.onnx", metadata={"kdtool.structure": "abc", "kdtool.precision": "int8"})
    found = measure_file(path, batch=2, **QUICK)
    assert json.loads(json.dumps(found)) == found
    expected = {"format": "kdtool-latency", "model": "a.onnx", "input": [1, 4, 4], "classes": 3, "batch": 2}
    expected |= {"structure": "abc", "precision": "int8", "file_bytes": path.stat().st_size, "provider": "cpu"}
    assert {name: found[name] for name in expected} == expected
    assert 0 < found["p50_ms"] <= found["p90_ms"]
    assert str(tmp_path) not in json.dumps(found)


@pytest.mark.parametrize("same", [True, False])
def test_metadata_of_a_file_that_another_program_changed_are_not_believed(tmp_path, same, capsys):
    told = operators(["Flatten", "MatMul" if same else "Gemm"])
    metadata = {"kdtool.structure": "abc", "kdtool.precision": "int8", "kdtool.operators": told}
    found = measure_file(write_model(tmp_path / "a.onnx", metadata=metadata), **QUICK)
    assert (found["structure"], found["precision"]) == (("abc", "int8") if same else (None, "unknown"))
    assert ("a.onnx: was changed after kdtool export; what it tells of its" in capsys.readouterr().err) is not same


def test_the_bytes_of_weights_beside_a_file_count(tmp_path):
    one = write_model(tmp_path / "one.onnx")
    onnx.save(onnx.load(one), tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    sizes = [(tmp_path / name).stat().st_size for name in ("a.onnx", "a.data")]
    assert sizes[1] >= 4 * 16 * 3
    assert measure_file(tmp_path / "a.onnx", **QUICK)["file_bytes"] == sum(sizes)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"classes": None},
            r"a\.onnx: is no classifier of images: it maps images tensor\(float\).*\[batch, classes\]$",
        ),
        ({"inputs": ("batch", 16)}, r"a\.onnx: is no classifier of images"),
        ({"inputs": ("batch", 1, "h", "w")}, r"a\.onnx: is no classifier of images"),
        ({"classes": 1}, r"a\.onnx: is no classifier of images"),
        ({"inputs": (2, 1, 4, 4)}, r"a\.onnx: the model takes batches of 2 images only; measure it with --batch 2$"),
    ],
)
def test_what_is_no_classifier_is_refused(tmp_path, how, message):
    with pytest.raises(Error, match=message):
        measure_file(write_model(tmp_path / "a.onnx", **how), **QUICK)


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(Error, match=r"a\.onnx: is damaged or is no ONNX file; export the network again$"):
        measure_file(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match=r"b\.onnx: there is no such file"):
        measure_file(tmp_path / "b.onnx")


BLOCKED = ("torch", "torchvision", "timm", "onnx", "onnxscript", "scipy", "sklearn", "matplotlib", "PIL", "safetensors")
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
sys.argv = {words!r}
{code}
"""


def test_kdtool_measure_needs_no_torch(tmp_path):
    path = write_model(tmp_path / "a.onnx")
    words = ["kdtool", "measure", str(path), "--json", "--pairs", "1", "--seconds", "0.1"]
    code = WITHOUT.format(blocked=BLOCKED, words=words, code="from kdtool.cli.main import main; main()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == 3


def test_the_script_needs_numpy_and_onnxruntime_alone(tmp_path):
    path = write_model(tmp_path / "a.onnx")
    write_script(tmp_path / "measure.pyz")
    words = ["measure", str(path), str(path), "--json", "--pairs", "1", "--seconds", "0.1"]
    blocked = (*BLOCKED, "click", "lazy_loader", "pluggy", "rich", "filelock", "psutil")
    # kdtool itself is that of the script.
    run = f"import runpy; runpy.run_path({str(tmp_path / 'measure.pyz')!r}, run_name='__main__')"
    check = "assert 'measure.pyz' in sys.modules['kdtool'].__file__, sys.modules['kdtool'].__file__"
    code = WITHOUT.format(blocked=blocked, words=words, code=f"{run}\n{check}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["classes"] for row in json.loads(done.stdout)] == [3, 3]
    failed = subprocess.run(
        [sys.executable, tmp_path / "measure.pyz", "none.onnx"], capture_output=True, text=True, check=False
    )
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("Error: none.onnx: there is no such file")


def test_the_command(tmp_path):
    path = write_model(tmp_path / "a.onnx")
    quick = ["--pairs", "1", "--seconds", "0.1"]
    text = CliRunner().invoke(cli, ["measure", str(path), str(path), *quick])
    assert text.exit_code == 0, text.output
    assert text.stdout.count("p50 ms") == 2
    script = CliRunner().invoke(cli, ["measure", "--script", str(tmp_path / "m.pyz")])
    assert script.stdout.strip() == str(tmp_path / "m.pyz")
    again = CliRunner().invoke(cli, ["measure", "--script", str(tmp_path / "m.pyz")])
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    both = CliRunner().invoke(cli, ["measure", str(path), "--script", str(tmp_path / "n.pyz")])
    assert (both.exit_code, "give it alone" in both.stderr) == (2, True)


def row(structure, p50, **how):
    about = {"batch": 1, "threads": 1, "provider": "cpu", "cpu": "A", "onnxruntime": "1", "pairs": 9, "noise": 0.02}
    return {"format": "kdtool-latency", "structure": structure, "p50_ms": p50, "p90_ms": 2 * p50, **about, **how}


@pytest.mark.parametrize(("wall", "said"), [(2.0, True), (1.05, False)])
def test_a_busy_machine_is_said(tmp_path, wall, said, monkeypatch, capsys):
    measured = {"student": {"p50_ms": wall, "p90_ms": 3.0}, "cpu_ms": 1.0}
    measured |= dict.fromkeys(("noise", "clock", "threads", "pairs", "batch", "provider", "onnxruntime", "cpu"))
    monkeypatch.setattr(ContainedSession, "latency", lambda self, **how: measured)
    assert measure_file(write_model(tmp_path / "a.onnx"))["cpu_ms"] == 1.0
    line = "a.onnx: the machine is busy: a batch takes 2 ms, of which it computes 1 ms\n"
    assert capsys.readouterr().err.endswith(line) is said


def test_a_network_is_found_by_its_structure(tmp_path):
    rows = [row("a", 3.0), row("b", 6.0), row("a", 2.0), row("b", 5.0, threads=4)]
    found = measured_elsewhere(rows, "a", "b")
    assert found["student"] == {"p50_ms": 2.0, "p90_ms": 4.0}
    # Not the teacher on 4 threads.
    assert found["teacher"] == {"p50_ms": 6.0, "p90_ms": 12.0}
    assert found["ratio"] == pytest.approx(2 / 6)
    assert (found["ratio_low"], found["noise"], found["cpu"]) == (None, 0.04, "A")
    assert found["clock"] == "wall"
    # One of them had to wait for other programs.
    busy = measured_elsewhere([row("a", 3.0, cpu_ms=1.5), row("b", 6.0, cpu_ms=6.0)], "a", "b")
    assert (busy["ratio"], busy["clock"], busy["student"]["p50_ms"]) == (1.5 / 6, "thread-cpu", 3.0)
    assert (busy["cpu_ms"], found["cpu_ms"]) == (1.5, None)
    alone = measured_elsewhere(rows, "a", "other")
    assert (alone["teacher"], alone["ratio"]) == (None, None)
    assert measured_elsewhere(rows, "c") is None


def test_files_of_measurements(tmp_path):
    file = tmp_path / "there.json"
    file.write_text(json.dumps(row("a", 1.0)))
    assert [entry["p50_ms"] for entry in read_measurements(file)] == [1.0]
    file.write_text(json.dumps([row("a", 1.0), row("b", 2.0)]))
    assert len(read_measurements(file)) == 2


@pytest.mark.parametrize(
    "content", ["", "[]x", "{}", "[1]", '{"format": "kdtool-latency"}', json.dumps(row("a", -1.0)), "null"]
)
def test_files_of_something_else(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(Error, match=r"a\.json: holds no measurements; make it on the device: kdtool measure"):
        read_measurements(tmp_path / "a.json")
    with pytest.raises(UsageError, match=r"none\.json: cannot be read: No such file"):
        read_measurements(tmp_path / "none.json")
