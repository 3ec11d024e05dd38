from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import kdtool
from kdtool.data.raw import UNLABELLED
from kdtool.errors import UsageError
from kdtool.testing import sample_step
from kdtool.training.optimization.skew import class_weights, epoch_order
from kdtool.training.output_cache import Cache
from kdtool.training.state import State

LABELS = torch.tensor([0] * 90 + [1] * 9 + [2])


def test_no_weights_by_default(digits):
    assert class_weights("none", digits.train) is None


def test_balanced_weights_leave_out_images_without_a_label(digits):
    split = copy.copy(digits.train)
    split.labels = torch.tensor([*[0, 0, 0, 1], UNLABELLED])

    weights = class_weights("balanced", split)

    assert weights is not None
    assert weights.tolist() == pytest.approx([4 / 6, 4 / 2, *[0] * 8])


def test_each_image_once_by_default():
    torch.manual_seed(0)
    order = epoch_order("each", LABELS)
    torch.manual_seed(0)

    assert torch.equal(order, torch.randperm(100))


def test_balanced_sampling_draws_all_classes_equally_often():
    torch.manual_seed(0)
    drawn = torch.cat([epoch_order("balanced", LABELS) for _ in range(60)])

    counts = torch.bincount(LABELS[drawn])
    # 6000 draws, a third of each class; the standard deviation is sqrt(6000 * 1/3 * 2/3) = 36.5.
    assert (counts - 2000).abs().max() < 4 * 36.5
    of_first = torch.bincount(drawn, minlength=100)[:90]
    assert of_first.min() > 0  # 22 of each image of the class are expected


def test_images_without_a_label_cannot_be_drawn_by_their_class():
    with pytest.raises(UsageError, match="--sampling balanced: some images have no label"):
        epoch_order("balanced", torch.tensor([0, 1, UNLABELLED]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_cross_entropy_is_a_sum_of_weighted_terms(smoothing):
    weights = torch.rand(10) + 0.5
    step, _ = sample_step(kdtool.make("distillers", "kd"), per_class=2, epoch=0, classes=10)
    step.student = step.student.detach()
    step.label_smoothing = smoothing
    plain = F.cross_entropy(
        step.student, step.target, weight=weights, label_smoothing=smoothing, reduction="sum"
    ) / len(step.target)

    step.class_weights = weights

    assert step.cross_entropy() == pytest.approx(plain.item(), rel=1e-6)
    if not smoothing:
        by_hand = [-weights[c] * torch.log_softmax(z, 0)[c] for z, c in zip(step.student, step.target, strict=True)]
        assert step.cross_entropy() == pytest.approx(float(sum(by_hand) / len(by_hand)), rel=1e-6)


def test_weighted_cross_entropy_of_mixtures_and_of_unlabelled_images():
    weights = torch.rand(10) + 0.5
    step, _ = sample_step(kdtool.make("distillers", "kd"), per_class=2, epoch=0, classes=10)
    step.student = step.student.detach()
    step.class_weights = weights
    whole = step.cross_entropy()

    step.parts = F.one_hot(step.target, 10).float()
    assert step.cross_entropy() == pytest.approx(whole.item(), rel=1e-6)

    step.parts, step.unlabelled = None, True
    assert step.cross_entropy() == pytest.approx(whole.item(), rel=1e-6)
    step.target = torch.where(torch.arange(len(step.target)) % 2 == 0, step.target, UNLABELLED)
    kept = step.target != UNLABELLED
    expected = F.cross_entropy(step.student[kept], step.target[kept], weight=weights, reduction="sum") / kept.sum()
    assert step.cross_entropy() == pytest.approx(expected.item(), rel=1e-6)


def test_the_epoch_is_chosen_by_the_measure():
    state = State()
    state.best = {"accuracy": 0.9, "balanced_accuracy": 0.5, "loss": 1.0}
    other = {"accuracy": 0.8, "balanced_accuracy": 0.7, "loss": 2.0}

    assert not state.better(other)
    assert state.better(other, "balanced_accuracy")
    # A loss of maps is validated by the loss alone.
    state.best = {"loss": 1.0}
    assert state.better({"loss": 0.5}, "balanced_accuracy")
    assert not state.better({"loss": 1.5}, "balanced_accuracy")


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 8x8 images: 160 with a bright left half, 16 with a bright right half."""
    folder, chance = tmp_path_factory.mktemp("skewed"), np.random.default_rng(0)
    for name, number, columns in (("left", 160, slice(0, 4)), ("right", 16, slice(4, 8))):
        (folder / name).mkdir()
        for index in range(number):
            pixels = chance.integers(0, 200, (8, 8))
            pixels[:, columns] += 20
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


def train(folder: Path, target: Path, **options: object) -> tuple[kdtool.Checkpoint, list[dict[str, float]]]:
    settings = {"epochs": 4, "augment": "none", "validation": 0.3, "optimizer": "sgd", "lr": 0.02, **options}
    made = kdtool.teacher("kdtool:lenet-300-100", data=f"folder:{folder}", output=target, **settings)
    return made, [json.loads(line) for line in target.with_suffix(".run").joinpath("metrics.jsonl").open()]


@pytest.mark.parametrize("options", [{"class_weights": "balanced"}, {"sampling": "balanced"}])
def test_rare_classes_are_answered(skewed: Path, tmp_path: Path, options: dict[str, str]) -> None:
    plain, _ = train(skewed, tmp_path / "plain.pt")
    balanced, _ = train(skewed, tmp_path / "balanced.pt", **options)

    before, after = (kdtool.evaluate(made)[0]["balanced_accuracy"] for made in (plain, balanced))
    assert before == 0.5  # always left
    assert after > before


def test_select_balanced_accuracy(skewed: Path, tmp_path: Path) -> None:
    made, rows = train(skewed, tmp_path / "net.pt", sampling="balanced", select="balanced-accuracy", epochs=8, lr=0.1)

    best = max(rows, key=lambda row: (row["val_balanced_accuracy"], -row["val_loss"]))
    by_accuracy = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert best["epoch"] != by_accuracy["epoch"]
    kept = kdtool.evaluate(made, split="val")[0]
    assert kept["balanced_accuracy"] == pytest.approx(best["val_balanced_accuracy"], abs=1e-6)


@pytest.mark.parametrize(("sampling", "cached"), [("each", True), ("balanced", False)])
def test_what_a_teacher_says_is_not_cached_where_images_are_drawn(
    sampling: str, cached: bool, skewed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, _ = train(skewed, tmp_path / "teacher.pt", epochs=1)
    made, create = [], Cache.create
    # The run removes its cache when it has finished.
    monkeypatch.setattr(Cache, "create", lambda *about: made.append(about) or create(*about))
    options = {"epochs": 2, "sampling": sampling, "output": tmp_path / "student.pt"}

    kdtool.distill(teacher, method="kd", refiner="halve", **options)

    assert bool(made) is cached
