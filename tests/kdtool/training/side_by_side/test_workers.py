"""Trainings of a run as tasks. A stand-in for a cluster does them in this process; Ray itself does in slow tests."""

import contextlib
import json
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

import kdtool
from kdtool.commands import distill as command
from kdtool.errors import Error, UsageError
from kdtool.plugins import own_code
from kdtool.plugins.places import split
from kdtool.training.epochs.steps import LossNotFiniteError
from kdtool.training.side_by_side import task as tasks, workers
from kdtool.training.side_by_side.placement import Placement
from kdtool.training.side_by_side.workers import Workers, workers_of

cloudpickle = pytest.importorskip("ray.cloudpickle")

OPTIONS = {"epochs": 2, "lr": 0.003, "subset": 0.2, "precision": "fp32", "device": "cpu", "threads": 1}
IKD = {"iters": 2, "teachers": "ancestral", **OPTIONS}


class Cluster:
    """Do every task at once, in this process, on what pickling leaves of it."""

    def __init__(self, sees):
        self.sees, self.done, self.stopped = sees, [], 0

    def put(self, value):
        return cloudpickle.dumps(value)

    def on_each_machine(self, function, *arguments):
        return [self.sees]

    def submit(self, function, task):
        future = Future()
        try:
            future.set_result(
                cloudpickle.loads(cloudpickle.dumps(function(cloudpickle.loads(cloudpickle.dumps(task)))))
            )
        except Exception as error:
            future.set_exception(error)
        self.done.append(task.name)
        return future

    def stop(self):
        self.stopped += 1


@pytest.fixture(params=[True, False], ids=["shared", "apart"])
def cluster(request, monkeypatch):
    """Put a cluster that sees the run's directory, or one that does not, in the place of Ray."""
    made = Cluster(request.param)
    monkeypatch.setattr(tasks, "taken", cloudpickle.loads)
    if not request.param:
        monkeypatch.setattr(tasks, "sees", lambda token: False)

    @contextlib.contextmanager
    def places(placement):
        yield Workers(made) if placement.ray else None

    monkeypatch.setattr(command, "workers_of", places)
    return made


def weights(checkpoint):
    return {name: tensor.tolist() for name, tensor in checkpoint.module.state_dict().items()}


def rows(directory):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return sorted((row["phase"], row["epoch"], row["loss"]) for row in lines)


def test_candidates_are_those_of_one_process(cluster, teacher_path, tmp_path):
    options = {**IKD, "subset": 1.0}
    alone = kdtool.distill(teacher_path, "ikd", output=tmp_path / "alone.pt", **options)
    assert cluster.done == []
    done = kdtool.distill(teacher_path, "ikd", output=tmp_path / "ray.pt", ray="auto", **options)
    assert cluster.done == ["M1 from M0", "M2 from M0", "M2 from M1"]
    assert weights(done) == weights(alone)
    assert rows(tmp_path / "ray.run") == rows(tmp_path / "alone.run")
    # Where it was trained is no part of the result, nor of the run.
    assert "ray" not in done.history[-1]["line"].replace("ray.pt", "")
    identity = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("alone.run", "ray.run")]
    assert identity[0] == identity[1]
    assert not list((tmp_path / "ray.run").glob(".ray-*"))


def test_trials_of_a_search_are_those_of_one_process(cluster, teacher_path, tmp_path):
    options = {"refiner": "halve", "search": "temperature=1,4", **OPTIONS}
    alone = kdtool.distill(teacher_path, "kd", output=tmp_path / "alone.pt", **options)
    done = kdtool.distill(teacher_path, "kd", output=tmp_path / "ray.pt", ray="auto", **options)
    assert cluster.done == ["search temperature=1 1 epoch", "search temperature=4 1 epoch"]
    found = [{**made.history[-1]["search"], "seconds": 0} for made in (alone, done)]
    assert found[0] == found[1]
    assert weights(done) == weights(alone)


@pytest.mark.slow
def test_an_onnx_file_teaches_the_trials_also_where_it_is_not_seen(cluster, teacher_path, tmp_path, monkeypatch):
    kdtool.export(teacher_path, output=tmp_path / "teacher.onnx", latency=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workers").mkdir()

    def taken(reference):
        # Ray's workers have a folder of their own, and may be on a machine without the file.
        with contextlib.chdir("workers"):
            Path("../teacher.onnx").rename("../away.onnx")
            try:
                return cloudpickle.loads(reference)
            finally:
                Path("../away.onnx").rename("../teacher.onnx")

    options = {"student": "kdtool:lenet-300-100", "search": "temperature=1,4", **OPTIONS}
    alone = kdtool.distill("teacher.onnx", output="alone.pt", **options)
    monkeypatch.setattr(tasks, "taken", taken)
    done = kdtool.distill("teacher.onnx", output="ray.pt", ray="auto", **options)
    assert cluster.done == ["search temperature=1 1 epoch", "search temperature=4 1 epoch"]
    assert weights(done) == weights(alone)


OWN = """
from torch import nn

class Net(nn.Sequential):
    pass

def make(classes):
    first = (nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    return Net(*first, nn.Linear(8 * 36, 32), nn.ReLU(), nn.Linear(32, classes))
"""


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    """A trained network of a module of the user's own, which is trusted."""
    monkeypatch.setenv("KDTOOL_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for known in ("_IMPORTED", "_BROUGHT"):
        monkeypatch.setattr(own_code, known, {})
    (tmp_path / "owncode").mkdir()
    monkeypatch.chdir(tmp_path / "owncode")
    Path("ownnet.py").write_text(OWN)
    kdtool.trust("ownnet")
    yield kdtool.teacher("ownnet:make", data="digits", output=tmp_path / "own.pt", **OPTIONS)
    sys.modules.pop("ownnet", None)


@pytest.mark.parametrize("there", [True, False])
def test_a_worker_imports_the_users_own_code_before_it_takes_a_network_of_it(there, own_network, tmp_path, monkeypatch):
    cluster, code = Cluster(sees=True), Path("ownnet.py").resolve()

    def submit(function, task):
        held, path, future = sys.modules.pop("ownnet"), [*sys.path], Future()
        sys.path.remove(str(code.parent))
        if not there:
            code.unlink()
        try:
            answer = cloudpickle.dumps(function(cloudpickle.loads(cloudpickle.dumps(task))))
            assert not there or sys.modules["ownnet"] is not held
        finally:
            sys.modules["ownnet"], sys.path[:] = held, path
        future.set_result(cloudpickle.loads(answer))
        return future

    cluster.submit = submit
    monkeypatch.setattr(tasks, "taken", cloudpickle.loads)
    monkeypatch.setattr(command, "workers_of", lambda placement: contextlib.nullcontext(Workers(cluster)))
    options = {"output": tmp_path / "ray.pt", "ray": "auto", **IKD, "epochs": 1}
    if there:
        done = kdtool.distill(own_network, "ikd", **options)
        assert type(done.module).__name__ == "Net"
    else:
        with pytest.raises(Error, match=r"ownnet.py: is not on .*; put your own code at the same path on all machines"):
            kdtool.distill(own_network, "ikd", **options)


def test_a_driver_that_was_killed_goes_on(cluster, teacher_path, tmp_path, monkeypatch):
    """Two of three candidates are done when the driver ends; they are not trained again."""
    from kdtool.training.loop import Loop

    whole = kdtool.distill(teacher_path, "ikd", output=tmp_path / "whole.pt", ray="auto", **IKD)
    trained, real = [], Loop.run

    def run(loop):
        trained.append(loop.plan.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(loop)

    monkeypatch.setattr(Loop, "run", run)
    with pytest.raises(KeyboardInterrupt):
        kdtool.distill(teacher_path, "ikd", output=tmp_path / "cut.pt", ray="auto", **IKD)
    assert cluster.stopped == 4
    again = kdtool.distill(teacher_path, "ikd", output=tmp_path / "cut.pt", ray="auto", resume=True, **IKD)
    # Apart, an answer that did not come home is lost.
    lost = [] if cluster.sees else ["M2 from M0"]
    assert trained == ["M1 from M0", "M2 from M0", "M2 from M1", *lost, "M2 from M1"]
    assert weights(again) == weights(whole)
    assert rows(tmp_path / "cut.run") == rows(tmp_path / "whole.run")


def test_what_was_begun_alone_goes_on_there_and_back(cluster, teacher_path, tmp_path, monkeypatch):
    from kdtool.training.loop import Loop

    trained, real = [], Loop.run

    def run(loop):
        trained.append(loop.plan.name)
        if len(trained) in (2, 3):
            raise KeyboardInterrupt
        return real(loop)

    monkeypatch.setattr(Loop, "run", run)
    for place in ({}, {"ray": "auto"}, {}):
        try:
            kdtool.distill(teacher_path, "ikd", output=tmp_path / "ikd.pt", resume=True, **place, **IKD)
        except KeyboardInterrupt:
            continue
    assert trained == ["M1 from M0", "M2 from M0", "M2 from M0", "M2 from M0", "M2 from M1"]
    assert [row[:2] for row in rows(tmp_path / "ikd.run")] == [
        (phase, epoch) for phase in ("M1 from M0", "M2 from M0", "M2 from M1") for epoch in (1, 2)
    ]


def test_an_error_of_a_task_is_that_of_the_command(cluster, teacher_path, tmp_path):
    with pytest.raises(LossNotFiniteError, match="M1 from M0: the loss is not finite") as raised:
        kdtool.distill(
            teacher_path, "ikd", output=tmp_path / "s.pt", ray="auto", **{**IKD, "lr": 1e30, "optimizer": "sgd"}
        )
    assert "kdtool-ray" not in str(raised.value)
    assert not list((tmp_path / "s.run").glob(".ray-*"))


def test_a_lost_task_says_so(cluster, teacher_path, tmp_path, monkeypatch):
    def lose(self, function, task):
        future = Future()
        future.set_exception(RuntimeError("gone"))
        return future

    monkeypatch.setattr(Cluster, "submit", lose)
    monkeypatch.setattr(workers, "why", lambda error: f"its worker was {error}")
    with pytest.raises(Error, match="M1 from M0: its worker was gone; run the same command with --resume"):
        kdtool.distill(teacher_path, "ikd", output=tmp_path / "s.pt", ray="auto", **IKD)


def test_ray_where_nothing_can_run_side_by_side(teacher_path, tmp_path):
    with pytest.raises(UsageError, match="--ray: kd with these options has no trainings that could run side by side"):
        kdtool.distill(teacher_path, "kd", refiner="halve", output=tmp_path / "s.pt", ray="auto", **OPTIONS)
    with pytest.raises(UsageError, match="--ray: ikd with these options has no trainings"):
        kdtool.distill(teacher_path, "ikd", iters=2, output=tmp_path / "s.pt", ray="auto", **OPTIONS)


def test_a_cluster_that_does_not_answer_leaves_nothing(teacher_path, tmp_path):
    with pytest.raises(Error, match="--ray 127.0.0.1:9: does not answer"):
        kdtool.distill(teacher_path, "ikd", output=tmp_path / "s.pt", ray="127.0.0.1:9", **IKD)
    assert list(tmp_path.iterdir()) == []


def test_ray_and_a_launcher_exclude_each_other(monkeypatch):
    monkeypatch.setattr(workers, "launched", lambda: 2)
    with pytest.raises(UsageError, match="without torchrun"), workers_of(Placement(ray="auto")):
        pass
    with workers_of(Placement()) as none:
        assert none is None


@pytest.mark.parametrize("resource", [{"ray_cpus": 2}, {"ray_gpus": 0}])
def test_resources_are_those_of_a_cluster(resource):
    with pytest.raises(UsageError, match="^--ray-.pus: belongs to --ray; give that too, or leave it out$"):
        split(resource, Placement)
    for ray in ("auto", None):
        assert split({"ray": ray, **resource}, Placement) == [{"ray": ray, **resource}]
