"""How long the winner of a compression trains, and by which recipe."""

from types import SimpleNamespace

import pytest

import kdtool
from kdtool.commands import recipes
from kdtool.compression.candidates import Candidate
from kdtool.compression.command import _Work
from kdtool.compression.options import Given
from kdtool.compression.schedule import epochs_within
from kdtool.training.options import Training


@pytest.mark.parametrize(
    ("hours", "given", "epochs"), [(None, {}, 8), (0.1, {}, 29), (0.1, {"epochs": 8}, 8), (0.03, {}, 6), (1, {}, 300)]
)
def test_a_fast_winner_gets_the_time_that_slow_candidates_were_planned_for(hours, given, epochs, tmp_path):
    """By hand: 0.9 of the time without 10 s of proposing, less the 20 s of the trials, at 10 s an epoch."""
    work = object.__new__(_Work)
    work.run = SimpleNamespace(directory=tmp_path, training=Training())
    work.schedule = SimpleNamespace(epochs=8, teacher_seconds=0.0)
    work.given = Given(given, {}, SimpleNamespace(hours=hours))
    work.proposals = SimpleNamespace(seconds=10.0, teacher=SimpleNamespace(macs=1e6))
    rows = [{"setting": "halve", "epochs": 2, "seconds": 20.0, "full": False}]
    work.trials = SimpleNamespace(done=rows, seconds=20.0)
    candidate = Candidate("refiners", "halve", {})
    assert work._decided_epochs(candidate) == epochs
    # Written down: a resumed run trains for as many, whatever time it took.
    work.trials.seconds = 1e6
    assert work._decided_epochs(candidate) == epochs


def test_the_teacher_needs_time_for_each_view_of_the_images():
    # By hand: 8 epochs have 2 views, 12 have 3 and 13 too: 13 * 10 + 3 * 25 = 205 s; 10 and 2 views are 150 s.
    assert epochs_within(205, 10, 25, Training(), 300) == 13
    assert epochs_within(204, 10, 25, Training(), 300) == 12
    assert epochs_within(204, 10, 25, Training(), 8) == 8
    # With a new view in each epoch it computes in each: 5 * (10 + 25) = 175 s.
    assert epochs_within(204, 10, 25, Training(views=0), 300) == 5
    assert epochs_within(5, 10, 25, Training(), 300) == 0


def test_many_steps_follow_the_recipe_standard_with_weights_of_the_teacher_too(teacher_path, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "STANDARD_FROM_STEPS", 20)
    options = {"candidates": ("filter-l1",), "quantised": False, "epochs": 2, "max_macs": "0.3x"}
    student = kdtool.compress(teacher_path, output=tmp_path / "s.pt", **options)
    assert student.history[-1]["training"]["recipe"] == "standard"
