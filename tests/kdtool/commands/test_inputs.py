"""Checkpoints that a program gives: their weights count, whatever was done to their modules."""

import pytest
import torch
from torch import nn

import kdtool
from kdtool.models.checkpoint import fingerprint

QUICK = {"epochs": 1, "subset": 0.1}


def weights(checkpoint):
    return fingerprint(checkpoint.module.state_dict())


def frozen(path):
    checkpoint = kdtool.load(path)
    checkpoint.module.requires_grad_(False)
    return checkpoint


def test_a_frozen_network_is_taken_as_its_file(teacher_path, tmp_path):
    given = frozen(teacher_path)
    for name, work in (
        ("d", lambda teacher, to: kdtool.distill(teacher, refiner="halve", **QUICK, output=to)),
        ("s", lambda teacher, to: kdtool.distill(teacher, student=teacher, **QUICK, output=to)),
        ("p", lambda teacher, to: kdtool.prune(teacher, **QUICK, output=to)),
        ("c", lambda teacher, to: kdtool.prune(teacher, "filter-l1", round_to=1, **QUICK, output=to)),
        ("r", lambda teacher, to: kdtool.refine(teacher, init="inherit", output=to)),
    ):
        of_file, of_frozen = work(teacher_path, tmp_path / f"{name}.pt"), work(given, tmp_path / f"{name}-frozen.pt")
        assert weights(of_file) == weights(of_frozen)
        assert all(weight.requires_grad for weight in of_frozen.module.parameters())
    assert not any(weight.requires_grad for weight in given.module.parameters())


@pytest.mark.parametrize("kind", ["double", "half", "bfloat16"])
def test_numbers_of_another_type_go_on_in_float(teacher_path, tmp_path, kind):
    given = kdtool.load(teacher_path)
    dtype = next(getattr(given.module, kind)().parameters()).dtype
    (row,) = kdtool.evaluate(given)
    assert row["accuracy"] == pytest.approx(kdtool.evaluate(teacher_path)[0]["accuracy"], abs=0.02)
    pruned = kdtool.prune(given, **QUICK, output=tmp_path / "p.pt")
    small = kdtool.distill(given, refiner="halve", **QUICK, output=tmp_path / "s.pt")
    assert {weight.dtype for made in (pruned, small) for weight in made.module.parameters()} == {torch.float32}
    assert {weight.dtype for weight in given.module.parameters()} == {dtype}


def test_a_network_as_it_should_be_stays_the_same_object(teacher_path):
    checkpoint = kdtool.load(teacher_path)
    assert kdtool.load(checkpoint) is checkpoint


@pytest.mark.parametrize("thing", [None, 3, nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1), nn.ReLU())])
def test_what_is_no_checkpoint_is_refused_in_one_line(thing):
    for work in (kdtool.load, kdtool.prune, kdtool.distill, kdtool.refine, kdtool.evaluate, kdtool.export):
        with pytest.raises(
            kdtool.UsageError, match=f"^expected a checkpoint or its path, got a {type(thing).__name__};"
        ):
            work(thing)
    with pytest.raises(kdtool.UsageError, match="learns from one teacher, not none"):
        kdtool.distill([])


def test_unknown_options_are_refused(teacher_path, tmp_path):
    with pytest.raises(kdtool.UsageError, match="there is no option 'subst'; did you mean subset"):
        kdtool.evaluate(teacher_path, subst=1)
    with pytest.raises(kdtool.UsageError, match="there is no option 'foo'"):
        kdtool.compare(teacher_path, teacher_path, foo=1)
    with pytest.raises(kdtool.UsageError, match="--track: expected a text such as tensorboard:logs,mlflow, got"):
        kdtool.prune(teacher_path, **QUICK, track=["tensorboard"], output=tmp_path / "p.pt")
    with pytest.raises(kdtool.UsageError, match=r"--search: expected a text, got \{"):
        kdtool.distill(teacher_path, refiner="halve", search={"temperature": [1, 2]}, output=tmp_path / "p.pt")


@pytest.mark.parametrize("student", [{"refiner": "halve"}, {"method": "self"}])
def test_a_stem_is_that_of_a_student_with_a_name(student, teacher_path, tmp_path):
    with pytest.raises(kdtool.UsageError, match="^--stem: belongs to a student that is built by its name, --student S"):
        kdtool.distill(teacher_path, **student, stem="small", output=tmp_path / "s.pt")
    assert not list(tmp_path.iterdir())


def test_a_student_from_a_file_keeps_its_stem_which_is_said(teacher_path, tmp_path, monkeypatch):
    """A study has students of both kinds in one line."""
    said = []
    monkeypatch.setattr("kdtool.commands.distill.tell", said.append)
    kdtool.distill(teacher_path, student=teacher_path, stem="small", epochs=0, output=tmp_path / "s.pt")
    assert said == ["--stem: is not used; the student is a checkpoint, which has its own"]


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, None])
def test_a_seed_is_a_whole_number(teacher_path, tmp_path, seed):
    with pytest.raises(kdtool.UsageError, match="^--seed: "):
        kdtool.refine(teacher_path, seed=seed, output=tmp_path / "r.pt")
