"""Studies of real commands on a small Ray cluster of this machine, which is gone after the tests."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import kdtool
from kdtool.errors import UsageError
from kdtool.study import on_ray
from kdtool.study.record import opened

ray = pytest.importorskip("ray")

RECIPE = """
[matrix]
seed = [0, 1, 2]
[[step]]
name = "teacher"
run = "teacher kdtool:lenet-300-100 --data digits --epochs 1 --seed {seed}"
[[step]]
name = "half"
from = "teacher"
run = "distill --refiner halve --epochs 1 --seed {seed}"
[[step]]
name = "pruned"
from = "teacher"
run = "prune --ratio 0.5 --epochs 1 --seed {seed}"
[[step]]
name = "smaller"
from = "half"
run = "prune --ratio 0.5 --epochs 1 --seed {seed}"
"""


@pytest.fixture
def cluster(monkeypatch):
    """Start a cluster with two workers; its processes are gone afterwards."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = _processes()
    node = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    yield made
    ray.shutdown()
    made.shutdown()
    deadline = time.monotonic() + 60
    while left := _processes() - before:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.2)


def _processes():
    """Return the processes of Ray on this machine: their numbers and names."""
    found = set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "ray::" in line or "/ray/" in line:
            found.add((process.info["pid"], line[:80]))
    return found


def _wait_for(condition, seconds=200):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def _attempts(study):
    """Return the processes that worked on each command, by its name."""
    logs = {log.stem: log.read_text() for log in study.glob("*.log")}
    return {name: re.findall(r": on \S+, process (\d+)$", text, re.MULTILINE) for name, text in logs.items()}


def _start(recipe, address):
    line = [sys.executable, "-m", "kdtool", "run", str(recipe), "--ray", address, "--json"]
    with open(recipe.with_suffix(".err"), "ab") as stderr:
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=stderr, text=True)


@pytest.mark.slow
def test_twelve_steps_and_a_worker_that_is_killed(cluster, tmp_path):
    recipe, study = tmp_path / "recipe.toml", tmp_path / "recipe.study"
    # Enough epochs for the step that is killed, which goes on from the last one that was saved.
    recipe.write_text(RECIPE.replace("halve --epochs 1", "halve --epochs 40"))
    process = _start(recipe, cluster.address)

    def training():
        """Return the process of a command that has saved some epochs, and is not done."""
        for name, attempts in _attempts(study).items():
            metrics = study / f"{name}.run" / "metrics.jsonl"
            epochs = len(metrics.read_text().splitlines()) if name.startswith("half") and metrics.exists() else 0
            if 5 <= epochs < 30 and not (study / f"{name}.pt").exists():
                return name, int(attempts[-1])
        return None

    killed, pid = _wait_for(training)
    os.kill(pid, signal.SIGKILL)
    stdout, _ = process.communicate(timeout=400)
    assert process.returncode == 0, recipe.with_suffix(".err").read_text()
    result = json.loads(stdout)
    assert len(result["rows"]) == 12
    assert (result["failed"], result["not_run"]) == ([], [])

    attempts = _attempts(study)
    assert {name: len(pids) for name, pids in attempts.items()} == {
        row["name"]: 1 + (row["name"] == killed) for row in result["rows"]
    }
    assert len(set(attempts[killed])) == 2
    # No epoch was logged twice: the second process went on behind the last one that was saved.
    rows = [json.loads(line) for line in (study / f"{killed}.run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 41))
    assert sum(row["phase"] == rows[0]["phase"] for row in rows) == 40

    # The results are those of this machine alone, to the last bit.
    alone = kdtool.run_study(recipe, output=tmp_path / "alone.study")
    for mine, theirs in zip(alone["rows"], result["rows"], strict=True):
        assert (mine["name"], mine["accuracy"]) == (theirs["name"], theirs["accuracy"])


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on(cluster, tmp_path):
    recipe, study = tmp_path / "recipe.toml", tmp_path / "recipe.study"
    recipe.write_text(RECIPE)
    process = _start(recipe, cluster.address)
    _wait_for(lambda: len([*study.glob("half*.pt")]) >= 1)
    done = _done(study)
    process.kill()
    process.communicate()
    before = {name: len(pids) for name, pids in _attempts(study).items()}
    process = _start(recipe, cluster.address)
    stdout, _ = process.communicate(timeout=400)
    assert process.returncode == 0, recipe.with_suffix(".err").read_text()
    assert len(json.loads(stdout)["rows"]) == 12
    after = {name: len(pids) for name, pids in _attempts(study).items()}
    assert done
    assert {name: after[name] for name in done} == {name: before[name] for name in done}


def _done(study):
    commands = json.loads((study / "study.json").read_text())["commands"]
    return [name for name, entry in commands.items() if entry["status"] == "done"]


@pytest.mark.slow
def test_without_shared_storage_files_go_through_the_object_store(cluster, tmp_path, monkeypatch, capsys):
    """The file by which a worker recognises the directory is missing, as on a machine that does not see it."""
    monkeypatch.setattr(on_ray, "_mark", lambda directory: directory / "no" / "such")
    recipe = tmp_path / "recipe.toml"
    step = '[[step]]\nname = "file"\nfrom = "half"\nrun = "export --pairs 1 --latency-seconds 0.1"\n'
    recipe.write_text(RECIPE.replace("[0, 1, 2]", "[0]") + step)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("KDTOOL_DATA", str(tmp_path / "data"))
    result = kdtool.run_study(recipe, ray=cluster.address)
    assert (len(result["rows"]), result["failed"]) == (5, [])
    assert "go through Ray's object store" in capsys.readouterr().err
    study = Path(result["directory"])
    assert (study / "half_seed=0.run" / "metrics.jsonl").exists()
    assert result["rows"][-1]["latency_ratio"] > 0
    assert kdtool.run_study(recipe, ray=cluster.address)["rows"] == result["rows"]
    assert all(len(pids) == 1 for pids in _attempts(study).values())


def test_the_mark_of_a_killed_study_is_removed_when_it_is_opened(tmp_path):
    with opened(tmp_path / "a.study") as record:
        first = on_ray._mark(record.directory)
    with opened(tmp_path / "a.study") as record:
        assert not first.exists()
        assert on_ray._mark(record.directory) not in (first, None)


def test_a_study_on_ray_hands_out_no_tasks_of_its_steps(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("halve", "halve --ray auto"))
    with pytest.raises(UsageError, match="step 'half': the study itself runs with --ray; leave it out of the step"):
        kdtool.run_study(recipe, ray="auto")
    with pytest.raises(UsageError, match="--jobs and --ray exclude each other"):
        kdtool.run_study(recipe, ray="auto", jobs=2)
    assert not (tmp_path / "recipe.study").exists()


@pytest.mark.slow
def test_candidates_and_a_search_on_real_workers(cluster, tmp_path):
    """One candidate's worker is killed; the result is that of this process alone, to the last bit."""
    teacher = tmp_path / "teacher.pt"
    common = {"epochs": 30, "lr": 0.003, "precision": "fp32", "device": "cpu", "threads": 1}
    kdtool.teacher("kdtool:lenet-300-100", data="digits", output=teacher, **{**common, "epochs": 1})
    options = ["--epochs", "30", "--lr", "0.003", "--precision", "fp32", "--device", "cpu", "--threads", "1"]
    line = ["distill", str(teacher), "--method", "ikd", "--teachers", "ancestral", "--iters", "2", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "kdtool", *line, "-o", str(tmp_path / "ray.pt"), "--ray", cluster.address],
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "ray.run" / "phases" / "M2-from-M0" / "log" / "metrics.jsonl"
    _wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 5)
    workers = [int(number) for number, name in _processes() if name.startswith("ray::do")]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    alone = kdtool.distill(teacher, "ikd", teachers="ancestral", iters=2, output=tmp_path / "alone.pt", **common)
    done = kdtool.load(tmp_path / "ray.pt")
    assert _weights(done) == _weights(alone)
    assert _epochs(tmp_path / "ray.run") == _epochs(tmp_path / "alone.run")

    found = []
    for name, place in (("a", {}), ("b", {"ray": cluster.address})):
        output = tmp_path / f"{name}.pt"
        search = {"search": "temperature=1,2,4", "output": output, **common, "epochs": 6, **place}
        found.append(kdtool.distill(teacher, refiner="halve", **search))
    assert [made.history[-1]["search"]["chosen"] for made in found[:1]] == [found[1].history[-1]["search"]["chosen"]]
    assert _weights(found[0]) == _weights(found[1])

    # An ONNX file teaches too, named from the folder of the command, in which no worker is.
    kdtool.export(teacher, output=tmp_path / "teacher.onnx", latency=False)
    search = ["--student", "kdtool:lenet-300-100", "--search", "temperature=1,4", *options, "--epochs", "2"]
    for place in ([], ["--ray", cluster.address]):
        line = ["distill", "teacher.onnx", *search, "-o", f"onnx{len(place)}.pt", *place]
        subprocess.run([sys.executable, "-m", "kdtool", *line], cwd=tmp_path, check=True)
    assert _weights(kdtool.load(tmp_path / "onnx0.pt")) == _weights(kdtool.load(tmp_path / "onnx2.pt"))


def _weights(checkpoint):
    return {name: tensor.tolist() for name, tensor in checkpoint.module.state_dict().items()}


def _epochs(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return sorted((row["phase"], row["epoch"], row["loss"]) for row in rows)
