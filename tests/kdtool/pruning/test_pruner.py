"""The contract of pruners: the loss of the retraining."""

import json

import pytest
import torch
from torch import nn

import kdtool
from kdtool.models.checkpoint import read
from kdtool.plugins.defaults import RETRAINING_LOSS
from kdtool.plugins.entry_points import names
from kdtool.plugins.registry import method_class


@pytest.mark.parametrize("name", names("pruners"))
def test_pruners_retrain_with_the_default_loss(name):
    objective = next(info for info in method_class("pruners", name).describe() if info.name == "objective")
    assert (objective.default, objective.help) == (RETRAINING_LOSS, "loss of the retraining with a teacher")
    assert kdtool.make("pruners", name).objective == kdtool.make("distillers", RETRAINING_LOSS)


def test_the_history_records_the_loss(teacher_path, tmp_path):
    options = {"epochs": 0, "device": "cpu"}
    kdtool.prune(teacher_path, "magnitude", output=tmp_path / "default.pt", **options)
    kdtool.prune(teacher_path, "magnitude", objective="dist", output=tmp_path / "dist.pt", **options)
    default, dist = (read(tmp_path / f"{name}.pt").history[-1]["options"]["objective"] for name in ("default", "dist"))
    assert default == {"name": "kd", **kdtool.make("distillers", "kd").as_data()}
    assert dist["name"] == "dist"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_teacher_takes_part_where_the_option_says_so(wanted, teacher_path, tmp_path, monkeypatch):
    taught, fit = [], kdtool.Run.fit
    monkeypatch.setattr(
        kdtool.Run, "fit", lambda *about, **more: taught.append(more["teacher"] is not None) or fit(*about, **more)
    )
    kdtool.prune(teacher_path, teacher=wanted, subset=0.1, epochs=1, output=tmp_path / "pruned.pt")
    assert taught == [wanted]


@pytest.mark.parametrize("loss", [{"objective": "at"}, {"temperature": 3}])
def test_without_a_teacher_a_loss_is_not_used_which_is_said(loss, teacher_path, tmp_path, monkeypatch):
    """A study has both in one line."""
    said = []
    monkeypatch.setattr("kdtool.commands.prune.tell", said.append)
    for wanted in (True, False):
        kdtool.prune(teacher_path, teacher=wanted, **loss, epochs=0, output=tmp_path / f"{wanted}.pt")
    assert said == ["--no-teacher: the labels are the only loss; --objective and its options are not used"]


def test_a_network_with_more_zeros_than_asked_for_gets_none_back():
    assert kdtool.make("pruners", "magnitude", ratio=0.5, steps=3).sparsities(0.9) == [0.5] * 3


# Steps of channels


def wide(classes):
    """Two convolutions of 32 channels."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, classes),
    )  # fmt: skip


def test_a_step_whose_target_is_reached_already_only_trains(tmp_path):
    few = {"data": "digits", "subset": 0.03, "augment": "none", "image_size": 8}
    teacher = kdtool.teacher(wide, epochs=0, output=tmp_path / "t.pt", **few)
    made = kdtool.prune(teacher, "filter-l1", ratio=0.3, steps=3, round_to=16, epochs=1, output=tmp_path / "pruned.pt")
    # Half of a layer's channels is the least that can go: too much for the first step, and more than all three ask for.
    sizes = [sum(weight.numel() for weight in one.module.parameters()) for one in (teacher, made)]
    removed = 1 - sizes[1] / sizes[0]
    assert removed > 0.3
    assert made.history[-1]["reached"] == {"of": "params", "asked": 0.3, "removed": round(removed, 4)}
    rows = [json.loads(line) for line in (tmp_path / "pruned.run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == [f"retrain {step} of 3" for step in (2, 3)]


def test_a_last_step_that_cannot_come_nearer_is_no_reason_for_a_word(tmp_path):
    few = {"data": "digits", "subset": 0.03, "augment": "none", "image_size": 8}
    teacher = kdtool.teacher(wide, epochs=0, output=tmp_path / "t.pt", **few)
    options = {"method": "filter-l1", "round_to": 16}
    once = kdtool.prune(teacher, ratio=0.3, epochs=0, output=tmp_path / "once.pt", **options).history[-1]["reached"]
    # What is asked for is so little more that no whole multiple is left to go.
    asked = round(once["removed"] + 0.004, 4)
    made = kdtool.prune(teacher, ratio=asked, steps=2, epochs=1, output=tmp_path / "pruned.pt", **options)
    assert made.history[-1]["reached"] == {"of": "params", "asked": asked, "removed": once["removed"]}
    rows = [json.loads(line) for line in (tmp_path / "pruned.run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == ["retrain 1 of 2", "retrain 2 of 2"]


# Networks that compute weights, or share them


@pytest.fixture(scope="module")
def standardised(tmp_path_factory):
    """A network of standardised convolutions and 17,280 weights of other layers."""
    path = tmp_path_factory.mktemp("standardised") / "net.pt"
    return kdtool.teacher("timm:test_nfnet", classes=10, image_size=32, output=path)


@pytest.mark.parametrize("method", ["magnitude", "random", "2:4"])
def test_zeros_are_refused_where_no_weight_in_use_would_be_zero(method, standardised, tmp_path):
    options = {} if method == "2:4" else {"ratio": 0.5}
    with pytest.raises(kdtool.Error, match=r"25 of its layers use weights that they compute .* stem\.conv1 \(Scaled"):
        kdtool.prune(standardised, method, epochs=0, output=tmp_path / "pruned.pt", **options)
    assert not (tmp_path / "pruned.pt").exists()


def test_the_ratio_is_of_all_weights_and_the_layers_left_out_are_named(standardised, tmp_path):
    made = kdtool.prune(standardised, ratio=0.05, epochs=0, output=tmp_path / "pruned.pt")
    others = {"attn_last.fc1": 7680, "attn_last.fc2": 7680, "head.fc": 1920}
    computed = sum(
        layer.weight.numel()
        for path, layer in made.module.named_modules()
        if isinstance(layer, torch.nn.Conv2d) and not path.endswith(tuple(others))
    )
    zeros = kdtool.inspect(standardised)["nonzero"] - kdtool.inspect(made)["nonzero"]
    assert zeros == round(0.05 * (computed + sum(others.values())))
    reached = made.history[-1]["reached"]
    assert reached["removed"] == 0.05
    assert reached["dense"].startswith("stem.conv1 (ScaledStdConv2d), ")
    assert reached["dense"].endswith(" and 22 more")


def test_the_history_of_a_layer_by_layer_mask_counts_the_others_too(standardised, tmp_path):
    made = kdtool.prune(standardised, ratio=0.05, scope="layer", epochs=0, output=tmp_path / "pruned.pt")
    zeros = kdtool.inspect(standardised)["nonzero"] - kdtool.inspect(made)["nonzero"]
    assert made.history[-1]["reached"]["removed"] == pytest.approx(zeros / 188_864, abs=5e-5) != 0.05
