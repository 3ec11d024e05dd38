"""CRLD against the authors' loss, in numpy, and its two views in a training."""

import numpy as np
import pytest
import torch

import kdtool
from kdtool import UsageError
from kdtool.testing import checks
from kdtool_distillers.crld import CRLD


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kd(student, teacher, temperature):
    p, q = softmax(student / temperature), softmax(teacher / temperature)
    return (q * np.log(q / p)).sum(axis=1) * temperature**2


def authors(student, teacher, target, weak_tau, strong_tau, weights):
    """The loss of the authors' repository; the pairs are of the weak and the strong view."""
    labels, within, across = weights
    rows = np.arange(len(target))
    mask_w = softmax(teacher[0]).max(axis=1) >= weak_tau
    mask_s = softmax(teacher[1]).max(axis=1) >= strong_tau
    ce = sum(-np.log(softmax(view)[rows, target]).mean() for view in student)
    own = ((kd(student[0], teacher[0], 4) + kd(student[1], teacher[1], 4)) * mask_w).mean()
    other = ((kd(student[1], teacher[0], 4) + kd(student[0], teacher[1], 4)) * mask_s).mean()
    return labels * ce + within * own + across * other


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_authors_loss(seed, step_of):
    chance = np.random.default_rng(seed)
    student, teacher = 3 * chance.normal(size=(2, 6, 5)), 3 * chance.normal(size=(2, 6, 5))
    target = chance.integers(0, 5, 6)
    step = step_of(
        student=torch.from_numpy(np.concatenate(student)),
        teacher=torch.from_numpy(np.concatenate(teacher)),
        target=torch.from_numpy(np.tile(target, 2)),
    )
    loss = CRLD(confidence_weak=0.8, confidence_strong=0.6, labels=0.5, within=2.0, across=3.0).loss(step)
    assert loss.item() == pytest.approx(authors(student, teacher, target, 0.8, 0.6, (0.5, 2.0, 3.0)), rel=1e-11)


def test_every_image_is_shown_in_both_views(teacher_path, tmp_path, monkeypatch):
    seen, kept = [], set()
    real = CRLD.loss

    def watch(self, step):
        seen.append((step.indices, step.target, step.images))
        kept.update(path.name for path in tmp_path.glob("s.run/cache/*"))
        return real(self, step)

    monkeypatch.setattr(CRLD, "loss", watch)
    options = {"refiner": "halve", "epochs": 1, "views": 2, "cache": "on"}
    kdtool.distill(teacher_path, "crld", **options, output=tmp_path / "s.pt")
    (weak, strong), (first, second) = seen[0][0].chunk(2), seen[0][1].chunk(2)
    assert torch.equal(weak, strong)
    assert torch.equal(first, second)
    plain, changed = seen[0][2].chunk(2)
    assert not torch.equal(plain, changed)
    assert {"-strong" in name for name in kept} == {True, False}  # each view has outputs of its own


@pytest.mark.parametrize("method", ["stagewise", "ensemble"])
def test_a_strategy_that_trains_on_its_objective_itself_shows_both_views(method, tmp_path, monkeypatch):
    seen = []
    real = CRLD.loss

    def watch(self, step):
        seen.append(step.indices)
        return real(self, step)

    monkeypatch.setattr(CRLD, "loss", watch)
    path = tmp_path / "t.pt"
    kdtool.teacher("kdtool:lenet-5", data="digits", subset=0.05, epochs=0, output=path)
    teachers = [path, path] if method == "ensemble" else path
    options = {"student": "kdtool:lenet-5", "objective": "crld", "epochs": 1}
    kdtool.distill(teachers, method, output=tmp_path / "s.pt", **options)
    assert seen
    assert all(torch.equal(*indices.chunk(2)) for indices in seen)


def test_what_has_no_meaning_is_refused(teacher_path, tmp_path):
    with pytest.raises(UsageError, match="--mixup: crld compares two views of the same image"):
        kdtool.distill(teacher_path, "crld", refiner="halve", mixup=0.2, epochs=1, output=tmp_path / "s.pt")
    with pytest.raises(UsageError, match="crld shows each image twice and cannot be summed"):
        kdtool.distill(teacher_path, "crld+at", refiner="halve", epochs=1, output=tmp_path / "s.pt")
    assert checks
