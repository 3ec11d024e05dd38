"""What makes a phase another one, so that its files are not taken for those of an earlier one."""

import pytest
from torch import nn

import kdtool
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training import Auxiliary
from kdtool.training.engine import engine_for
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan


def network(seed):
    options = NetworkOptions(classes=10, image_size=28, in_channels=1)
    return create("kdtool:lenet-5", options=options, data=None, seed=seed)


def key(student=0, teacher=0, objective="kd", own=None, auxiliary=None, **training):
    """Return the key of a phase in which a network of one seed learns from that of another."""
    taught_by = None if teacher is None else network(teacher)
    loss = kdtool.make("distillers", objective, **(own or {}))
    return FitPlan("a", network(student), taught_by, loss, None, auxiliary, Training(**training)).key


@pytest.mark.parametrize(
    "changed",
    [
        {"student": 1},
        {"teacher": 1},
        {"teacher": None},
        {"objective": "dkd"},
        {"own": {"alpha": 0.5}},
        {"lr": 0.1},
        {"seed": 1},
        {"auxiliary": Auxiliary(nn.Linear(64, 1))},
    ],
)
def test_whatever_decides_the_result_makes_it_another_phase(changed):
    assert key() != key(**changed)


def test_what_does_not_change_the_result_leaves_it_the_same():
    assert key() == key(cache="off", cache_limit=1, threads=2)


def test_a_cache_of_images_that_never_recur_is_said(digits, monkeypatch):
    said = []
    monkeypatch.setattr("kdtool.training.plan.say_once", said.append)
    loss = kdtool.make("distillers", "kd")
    for augment, options in (
        ("none", {"cache": "on", "views": 0}),
        ("standard", {"cache": "on"}),
        ("standard", {"views": 0}),
        ("standard", {"cache": "on", "views": 0}),
    ):
        training = Training(**options, device="cpu", precision="fp32")
        plan = FitPlan("a", network(0), network(1), loss, None, None, training)
        plan.batches(digits.with_augmentation(augment, 0.0), engine_for(training, 64, network(0)), None)
    (line,) = said
    assert line.startswith("--cache on: with --views 0 every epoch has new images")
