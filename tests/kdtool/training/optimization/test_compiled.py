import json

import pytest
import torch
from torch import nn

import kdtool
from kdtool.training.engine import Engine
from kdtool.training.optimization.compiled import compiling
from kdtool.training.options import Training
from kdtool.training.student import Auxiliary, StudentModule
from kdtool.utils import progress

OPTIONS = {"refiner": "halve", "epochs": 1, "lr": 0.003, "precision": "fp32", "device": "cpu", "threads": 1}


@pytest.fixture(autouse=True)
def said_again():
    progress._say_once.cache_clear()


def weights(checkpoint):
    return {name: tensor.tolist() for name, tensor in checkpoint.module.state_dict().items()}


def test_what_cannot_be_compiled_trains_without_and_says_so(teacher_path, tmp_path, monkeypatch, capsys):
    plain = kdtool.distill(teacher_path, output=tmp_path / "plain.pt", **OPTIONS)

    def fail(module):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    made = kdtool.distill(teacher_path, output=tmp_path / "made.pt", compile=True, **OPTIONS)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("--compile")]
    (line,) = said
    assert line.startswith("--compile: the compiler fails on ")
    assert line.endswith("(no C++ compiler); trains without it")
    assert weights(made) == weights(plain)


def test_the_compiled_student_trains_and_answers(teacher_path, tmp_path, monkeypatch, capsys):
    plain = kdtool.distill(teacher_path, output=tmp_path / "plain.pt", **OPTIONS)
    calls = []

    def stand_in(module):
        def run(images):
            calls.append((module.training, len(images)))
            return module(images)

        return run

    monkeypatch.setattr(torch, "compile", stand_in)
    made = kdtool.distill(teacher_path, output=tmp_path / "made.pt", compile=True, **OPTIONS)
    assert calls[0] == (True, 64)  # the step of a copy, before the first one
    assert len([size for training, size in calls if training]) == 1 + plain_steps(tmp_path)
    assert sum(size for training, size in calls if not training) == 143
    assert weights(made) == weights(plain)
    assert "--compile" not in capsys.readouterr().err


def test_what_is_tried_is_as_large_as_a_pass(teacher_path, tmp_path, monkeypatch):
    sizes = []

    def stand_in(module):
        def run(images):
            sizes.append(len(images))
            return module(images)

        return run

    monkeypatch.setattr(torch, "compile", stand_in)
    kdtool.distill(teacher_path, output=tmp_path / "made.pt", compile=True, accumulate=8, subset=0.1, **OPTIONS)
    assert sizes[0] == sizes[1] == 8


def plain_steps(tmp_path):
    """Return the number of steps of an epoch of digits: 1295 images in batches of 64."""
    return -(-1295 // 64)


def test_a_watched_student_is_not_compiled(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda module: pytest.fail("is compiled"))
    module = nn.Linear(2, 2)
    student = StudentModule(module, auxiliary=Auxiliary(nn.Identity()))
    engine = Engine(Training(device="cpu"), macs=1)
    with compiling(student, engine, (1, 2)):
        assert student.forward is module
    assert "--compile: the loss watches or trains parts of the student" in capsys.readouterr().err


def test_only_a_run_that_is_compiled_remembers_it(teacher_path, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module: module)
    for name, compiled in (("plain", False), ("made", True)):
        kdtool.distill(teacher_path, output=tmp_path / f"{name}.pt", compile=compiled, **OPTIONS)
    runs = [json.loads((tmp_path / f"{name}.run" / "run.json").read_text()) for name in ("plain", "made")]
    assert [run["training"].get("compile") for run in runs] == [None, True]


@pytest.mark.slow
def test_torch_compiles(tmp_path):
    """Needs a C++ compiler: the first epoch is that of the plain student to rounding."""
    options = {"data": "digits", "epochs": 1, "device": "cpu", "precision": "fp32", "threads": 1}
    losses = []
    for name, compiled in (("plain", False), ("made", True)):
        kdtool.teacher("kdtool:lenet-300-100", output=tmp_path / f"{name}.pt", compile=compiled, **options)
        losses.append(json.loads((tmp_path / f"{name}.run" / "metrics.jsonl").read_text())["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
