"""The main task as a user types it, with real processes, a real pipe and a real shell."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import kdtool

KDTOOL = shlex.quote(str(Path(sys.executable).with_name("kdtool")))


def shell(line, directory):
    """Run a command line; return its stdout and stderr."""
    line = f"set -o pipefail; {line.replace('kdtool ', KDTOOL + ' ')}"
    done = subprocess.run(["bash", "-c", line], cwd=directory, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def about_file(path):
    """Return the classes and the history that an ONNX file records, and check that it names no folder."""
    assert str(path.parent) not in path.read_bytes().decode("latin-1")
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return json.loads(about["kdtool.classes"]), json.loads(about["kdtool.history"])


def test_a_pipe_goes_on_with_what_the_command_before_made(teacher_path, tmp_path):
    (tmp_path / "teacher.pt").write_bytes(teacher_path.read_bytes())
    out, _ = shell("kdtool refine teacher.pt | kdtool inspect --json", tmp_path)
    assert Path(json.loads(out)["path"]).name == "teacher-halve.pt"
    history = kdtool.load(tmp_path / "teacher-halve.pt").history
    assert [entry["line"].split()[1] for entry in history] == ["teacher", "refine"]


@pytest.mark.slow
def test_a_pipe_makes_an_onnx_student(teacher_path, tmp_path):
    (tmp_path / "teacher.pt").write_bytes(teacher_path.read_bytes())
    out, _ = shell("kdtool refine teacher.pt | kdtool export --onnx --no-latency", tmp_path)
    assert out == "teacher-halve.onnx\n"
    classes, history = about_file(tmp_path / "teacher-halve.onnx")
    assert classes == list("0123456789")
    assert [line.split()[1] for line in history] == ["teacher", "refine"]


@pytest.mark.slow
def test_a_pipe_makes_a_measured_onnx_student(teacher_path, tmp_path):
    (tmp_path / "teacher.pt").write_bytes(teacher_path.read_bytes())
    out, _ = shell(
        "kdtool distill --method ikd --iters 2 --epochs 1 teacher.pt | kdtool prune --ratio 0.8 --epochs 1"
        " | kdtool export --onnx",
        tmp_path,
    )
    assert out == "teacher-ikd-magnitude.onnx\n"
    classes, history = about_file(tmp_path / "teacher-ikd-magnitude.onnx")
    assert classes == list("0123456789")
    assert len(history) == 3


@pytest.mark.slow  # the pipe runs the same commands
def test_a_chain_prints_the_last_result_alone(teacher_path, tmp_path):
    (tmp_path / "teacher.pt").write_bytes(teacher_path.read_bytes())
    out, err = shell(
        "kdtool distill --method ikd --iters 1 --epochs 1 teacher.pt prune --ratio 0.8 --epochs 0 export --onnx --json",
        tmp_path,
    )
    costs = json.loads(out)
    assert costs["parity"]["same_argmax"]
    assert costs["latency"]["ratio"] > 0
    assert costs["nonzero"] < costs["parameters"]
    assert costs["accuracy"]["accuracy"] == pytest.approx(
        kdtool.load(tmp_path / "teacher-ikd-magnitude.pt").metric("test", "accuracy"), abs=0.01
    )
    assert "zeros do not run faster" in err


@pytest.mark.slow
def test_the_demo_keeps_its_promise(tmp_path):
    out, _ = shell("kdtool demo --json -o demo", tmp_path)
    first, *_, last = json.loads(out)
    assert first["parameters"] / last["parameters"] >= 50
    assert last["test_error"] - first["test_error"] <= 0.03
    assert last["latency_ratio"] < 1
