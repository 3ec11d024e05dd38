"""The command line in one of several processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdtool.cli import launcher
from kdtool.errors import UsageError
from kdtool.utils.processes import together

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "kdtool"]


@pytest.mark.parametrize("name", ["run", "demo"])
def test_commands_for_one_process_are_refused(monkeypatch, name):
    launcher.check([name])
    monkeypatch.setenv("WORLD_SIZE", "2")
    launcher.check(["teacher", "distill", "prune", "export"])
    with pytest.raises(UsageError, match=f"{name}: .*start it without torchrun or another launcher"):
        launcher.check(["distill", name])


class Interrupted:
    def __del__(self):
        raise KeyboardInterrupt


def test_the_others_are_silent(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # that of pytest prints nothing
    launcher.listen()
    print("one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    launcher.listen()
    print("two")
    print("two", file=sys.stderr)
    sys.stderr = err
    held = Interrupted()
    del held
    assert out.getvalue() == "one\n"
    assert err.getvalue() == ""


def test_a_step_that_trains_nothing_runs_once(in_processes, tmp_path):
    def step():
        with open(tmp_path / "runs", "a") as file:
            file.write(os.environ["RANK"])
        return "text"

    def work():
        texts = [launcher.by_first(step, device) for device in ("cpu", None)]
        assert texts == (["text"] * 2 if os.environ["RANK"] == "0" else [None] * 2)
        with together("cpu"):
            pass

    assert in_processes(work) == [0, 0]
    assert (tmp_path / "runs").read_text() == "00"


def torchrun(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TORCHRUN, *words], cwd=folder, capture_output=True, text=True, timeout=200)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("Error: ")]


@pytest.mark.slow
def test_torchrun_prints_one_line_of_an_error(teacher_path, tmp_path):
    done = torchrun("distill", str(teacher_path), "--refiner", "halve", "--batch-size", "3", folder=tmp_path)
    assert done.returncode == 1, "torchrun's own code"
    assert "exitcode: 2" in done.stderr
    (line,) = lines(done.stderr)
    assert line.startswith("Error: --batch-size 3: 2 processes need 4 images in each pass, 2 each; give a larger")


@pytest.mark.slow
def test_a_chain_trains_in_all_processes_and_exports_in_one(teacher_path, tmp_path):
    student, pruned = str(tmp_path / "student.pt"), str(tmp_path / "pruned.pt")
    done = torchrun(
        *("distill", str(teacher_path), "--refiner", "halve", "--epochs", "1", "-o", student),
        *("prune", "--ratio", "0.5", "--epochs", "1", "-o", pruned),
        *("export", "--onnx", "--no-latency", "-o", str(tmp_path / "pruned.onnx")),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'pruned.onnx'}\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_ends_the_run_which_goes_on_with_one(teacher_path, tmp_path, number):
    words = ["distill", str(teacher_path), "--refiner", "halve", "--epochs", "300", "-o", str(tmp_path / "two.pt")]
    log = tmp_path / "two.run" / "metrics.jsonl"
    with subprocess.Popen([*TORCHRUN, *words], stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        deadline = time.monotonic() + 120
        while not (log.exists() and len(log.read_text().splitlines()) > 2):
            assert time.monotonic() < deadline
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.1)
        os.kill(_worker(number, run.pid), signal.SIGKILL)
        _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    assert len(lines(error)) <= 1, error
    assert "Traceback" not in "".join(error.partition("torch/distributed/elastic")[:1])

    command = [sys.executable, "-m", "kdtool", *words, "--resume"]
    assert subprocess.run(command, capture_output=True, timeout=200).returncode == 0
    assert len(log.read_text().splitlines()) == 300


def _worker(number: int, agent: int) -> int:
    """Return the process that has this number, of those that an agent started."""
    import psutil

    for child in psutil.Process(agent).children():
        if child.environ().get("RANK") == str(number):
            return child.pid
    raise AssertionError("there is no such process")
