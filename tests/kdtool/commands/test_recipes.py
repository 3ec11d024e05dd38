"""Recipes on the command line's functions: options that are given win, and what was used is recorded."""

import re

import pytest
import torch

import kdtool
from kdtool import UsageError
from kdtool.commands import recipes
from kdtool.commands.recipes import settled, with_recipe
from kdtool.models.architecture import Network
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.options import Clip, Training


@pytest.fixture(autouse=True)
def without_bf16(monkeypatch):
    monkeypatch.setattr(recipes, "has_bf16", lambda device: False)


def network(*, batch_norm):
    return Network(None, torch.nn.Sequential(torch.nn.BatchNorm2d(1) if batch_norm else torch.nn.Identity()))


def test_given_options_win(digits):
    given = {"recipe": "standard", "lr": 0.5}
    training, _ = settled(Training(**given), given, digits, {}, network(batch_norm=True), automatic=True, kept=False)
    assert (training.lr, training.optimizer, training.schedule) == (0.5, "sgd", "one-cycle")
    other, _ = settled(Training(**given), given, digits, {}, network(batch_norm=False), automatic=True, kept=False)
    assert (other.lr, other.optimizer) == (0.5, "adamw")


def test_the_number_of_steps_chooses(digits, caplog):
    few, _ = settled(
        Training(epochs=20), {"epochs": 20}, digits, {}, network(batch_norm=True), automatic=True, kept=False
    )
    assert (few.optimizer, few.lr, str(few.recipe)) == ("adam", 1e-3, "quick")
    assert not caplog.text
    given = {"epochs": 1000}
    many, _ = settled(Training(**given), given, digits, {}, network(batch_norm=True), automatic=True, kept=False)
    assert (many.optimizer, many.schedule, str(many.recipe)) == ("sgd", "one-cycle", "standard")
    assert re.search(
        r"takes recipe standard, since it has \d+,000 steps of 128 images: --optimizer sgd, --lr 0.1", caplog.text
    )


@pytest.mark.parametrize(
    ("option", "partner"),
    [({"momentum": 0.1}, {"optimizer": "sgd"}), ({"milestones": (0.2,)}, {"schedule": "multi-step"})],
)
def test_what_no_part_of_the_training_uses_is_said(option, partner, monkeypatch):
    """It is not refused: a study has all optimisers in one line."""
    said = []
    monkeypatch.setattr(recipes, "tell", said.append)
    ((name, _), (user, users)) = (*option.items(), *partner.items())
    for more in (partner, {"recipe": "standard"}):
        assert with_recipe({**option, **more}, {})[0][name] == option[name]
    assert said == []
    default = Training.info(user).default
    for more in ({}, {user: default}):
        assert with_recipe({**option, **more}, {})[0][name] == option[name]
        assert said.pop().startswith(f"--{name}: --{user} {default} makes no use of it, but {users}")


@pytest.mark.parametrize("given", [{"epochs": 1000, "lr": 0.01}, {"epochs": 1000, "optimizer": "sgd"}])
def test_nothing_is_chosen_for_who_has_a_recipe(given, digits):
    assert settled(Training(**given), given, digits, {}, network(batch_norm=True), automatic=True, kept=False) == (
        Training(**given),
        digits,
    )


def test_nothing_is_chosen_for_weights_that_go_on(digits):
    given = {"epochs": 1000}
    assert settled(Training(**given), given, digits, {}, network(batch_norm=True), automatic=False, kept=False) == (
        Training(**given),
        digits,
    )


def test_weights_that_go_on_are_clipped_by_standard(digits, teacher, tmp_path):
    given = {"recipe": "standard"}
    clips = [
        settled(Training(**given), given, digits, {}, network(batch_norm=True), automatic=False, kept=kept)[0].clip
        for kept in (False, True)
    ]
    assert clips == [None, Clip(None)]
    pruned = kdtool.prune(teacher, ratio=0.5, epochs=0, recipe="standard", output=tmp_path / "p.pt")
    fresh = kdtool.distill(teacher, "none", refiner="halve", epochs=0, recipe="standard", output=tmp_path / "s.pt")
    assert [made.history[-1]["training"]["clip"] for made in (pruned, fresh)] == ["auto", None]


def test_muon_is_taken_where_it_costs_little(digits, monkeypatch):
    small = create("kdtool:resnet20", options=NetworkOptions(), data=digits)
    given = {"recipe": "standard"}

    def optimizer(network, **more):
        return settled(Training(**given, **more), {**given, **more}, digits, {}, network, automatic=True, kept=False)[
            0
        ].optimizer

    assert optimizer(small) == "sgd"
    monkeypatch.setattr(recipes, "has_bf16", lambda device: True)
    assert optimizer(small) == "muon"
    assert optimizer(small, optimizer="sgd") == "sgd"
    # At 8 x 8 pixels the work of a step is small beside that of the products of its large matrices.
    large = create("torchvision:resnet18", options=NetworkOptions(), data=digits)
    assert optimizer(large) == "sgd"
    asked, _ = settled(
        Training(**given, optimizer="muon"),
        {**given, "optimizer": "muon"},
        digits,
        {},
        large,
        automatic=True,
        kept=False,
    )
    assert (asked.lr, asked.weight_decay) == (8e-3, 0.1)


def test_a_rate_of_another_optimiser_is_refused(digits):
    given = {"recipe": "standard", "optimizer": "adam"}
    with pytest.raises(UsageError, match="--optimizer adam: the rate of recipe standard is for sgd; give --lr too"):
        settled(Training(**given), given, digits, {}, network(batch_norm=True), automatic=False, kept=False)


def test_what_was_used_is_recorded(teacher, tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text('[training]\nepochs = 1\nlabel_smoothing = 0.1\n[data]\naugment = "none"\n')
    monkeypatch.chdir(tmp_path)
    made = kdtool.distill(teacher, "none", refiner="halve", recipe="mine.toml", lr=0.01, output=tmp_path / "s.pt")
    entry = made.history[-1]
    used = {name: entry["training"][name] for name in ("recipe", "epochs", "label_smoothing", "lr", "optimizer")}
    assert used == {"recipe": "mine.toml", "epochs": 1, "label_smoothing": 0.1, "lr": 0.01, "optimizer": "adam"}
    assert entry["data"]["augment"] == "none"
    assert "--recipe mine.toml" in entry["line"]


def test_pruning_takes_a_recipe_only_if_it_is_named(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "STANDARD_FROM_STEPS", 0)
    plain = kdtool.prune(teacher, ratio=0.5, epochs=0, output=tmp_path / "a.pt").history[-1]["training"]
    named = kdtool.prune(teacher, ratio=0.5, epochs=0, recipe="standard", output=tmp_path / "b.pt")
    assert (plain["recipe"], plain["optimizer"]) == (None, "adam")
    assert named.history[-1]["training"]["optimizer"] in ("sgd", "adamw")


@pytest.mark.parametrize(
    ("method", "automatic"), [("kd", True), ("ikd", True), pytest.param("stagewise", False, marks=pytest.mark.slow)]
)
def test_methods_that_suit_it_follow_it(method, automatic, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "STANDARD_FROM_STEPS", 0)
    student = {} if method == "ikd" else {"refiner": "halve"}
    more = {"iters": 1} if method == "ikd" else {}
    made = kdtool.distill(teacher, method, epochs=1, subset=0.05, output=tmp_path / "s.pt", **student, **more)
    assert made.history[-1]["training"]["recipe"] == ("standard" if automatic else None)


def test_weights_that_are_inherited_go_on(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "STANDARD_FROM_STEPS", 0)
    refiner = {"name": "halve", "init": "inherit"}
    made = kdtool.distill(teacher, "kd", refiner=refiner, epochs=1, subset=0.05, output=tmp_path / "s.pt")
    assert made.history[-1]["training"]["recipe"] is None


@pytest.mark.parametrize("method", ["dkd", "kd:0.9+dkd"])
def test_mixtures_are_refused_where_a_loss_needs_one_label(method, teacher, tmp_path):
    with pytest.raises(UsageError, match="needs the one label of every image"):
        kdtool.distill(teacher, method, refiner="halve", mixup=0.2, epochs=1, output=tmp_path / "s.pt")
    assert not (tmp_path / "s.run").exists()


def test_a_mixture_that_a_recipe_brings_is_named_so_with_what_switches_it_off(teacher, tmp_path):
    options = {"refiner": "halve", "recipe": "patient", "epochs": 1, "subset": 0.05, "output": tmp_path / "s.pt"}
    with pytest.raises(UsageError, match=r"^--mixup of recipe patient: dkd needs .*; add --mixup 0, or use a loss"):
        kdtool.distill(teacher, "dkd", **options)
    kdtool.distill(teacher, "dkd", mixup=0, **options)
    with pytest.raises(UsageError, match=r"^--mixup: crld compares two views .*; leave it out$"):
        kdtool.distill(teacher, "crld", refiner="halve", mixup=0.3, epochs=1, output=tmp_path / "t.pt")


def test_mixtures_have_no_cache(teacher, tmp_path):
    with pytest.raises(UsageError, match="--cache on: with --mixup of recipe patient every step has new images"):
        kdtool.distill(teacher, "kd", refiner="halve", recipe="patient", cache="on", output=tmp_path / "s.pt")
    kdtool.distill(teacher, "kd", refiner="halve", mixup=0.2, epochs=1, subset=0.05, output=tmp_path / "s.pt")
    assert not list(tmp_path.glob("*.run/cache/*.npy"))


@pytest.mark.slow
def test_stagewise_averages_the_part_that_learns(teacher, tmp_path):
    made = kdtool.distill(teacher, "stagewise", refiner="halve", ema=0.9, epochs=1, output=tmp_path / "s.pt")
    assert all(torch.isfinite(tensor).all() for tensor in made.module.state_dict().values())
