"""Several teachers: the mean of their probabilities, their weights, their images; and what is refused."""

import json
import math

import numpy as np
import pytest
import torch

import kdtool
from kdtool.models.checkpoint import read
from kdtool_distillers.ensemble import EnsembleLoss, by_loss
from kdtool_distillers.mean_of import log_mean, mean_of


def test_its_logits_are_those_of_the_weighted_mean(numbers):
    logits, weights = numbers(3, 4, 5), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    exponentials = np.exp(logits.numpy())
    probabilities = exponentials / exponentials.sum(axis=2, keepdims=True)
    expected = np.einsum("n,nbc->bc", weights.numpy(), probabilities)
    np.testing.assert_allclose(log_mean(logits, weights).softmax(dim=1).numpy(), expected, rtol=1e-12)


def test_two_sure_teachers_by_hand():
    # One says the first class with 0.9, one the second with 0.9: half each.
    logits = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]], dtype=torch.float64).log()
    for weights, first in (((0.5, 0.5), 0.5), ((0.75, 0.25), 0.7)):
        mean = log_mean(logits, torch.tensor(weights, dtype=torch.float64)).exp()
        assert mean.flatten().tolist() == pytest.approx([first, 1 - first])


def test_weights_by_validation_loss():
    # exp(-0.5) = 0.60653, exp(-1) = 0.36788: 0.62246 and 0.37754.
    assert by_loss([0.5, 1.0]) == pytest.approx([0.622459, 0.377541], abs=1e-6)
    assert by_loss([2000.0, 2000.0, 3000.0]) == pytest.approx([0.5, 0.5, 0.0])


@pytest.fixture(scope="module")
def second_path(tmp_path_factory):
    """A teacher of another seed, whose images are normalised in another way."""
    path = tmp_path_factory.mktemp("second") / "second.pt"
    kdtool.teacher("kdtool:lenet-300-100", data="digits", epochs=2, seed=1, mean=(0.5,), std=(0.25,), output=path)
    return path


def test_a_student_of_two_teachers(teacher_path, second_path, tmp_path):
    student = kdtool.distill(
        [teacher_path, second_path],
        "ensemble",
        student="kdtool:lenet-300-100",
        weights="validation",
        epochs=1,
        output=tmp_path / "s.pt",
    )
    rows = {row["model"]: row for row in student.history[-1]["rows"]}
    assert list(rows) == ["teacher 1", "teacher 2", "all teachers", "student"]
    teachers = [read(path) for path in (teacher_path, second_path)]
    for number, teacher in enumerate(teachers, start=1):
        assert rows[f"teacher {number}"]["error"] == teacher.metric("test", "error")
    losses = [teacher.metric("val", "loss") for teacher in teachers]
    shares = [math.exp(-loss) for loss in losses]
    weights = [rows[f"teacher {number}"]["weight"] for number in (1, 2)]
    assert weights == pytest.approx([share / sum(shares) for share in shares], rel=1e-5)
    assert [checkpoint["role"] for checkpoint in student.history[-1]["inputs"]] == ["checkpoint", "teacher 2"]
    assert f"distill {teacher_path} {second_path} --method ensemble" in student.history[-1]["line"]


def test_together_they_answer_with_the_mean(teacher_path, second_path):
    networks = [read(path).network for path in (teacher_path, second_path)]
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.stack([network.module(images).softmax(dim=1) for network in networks]).mean(dim=0)
        torch.testing.assert_close(mean_of(networks).module(images).exp(), expected)


@pytest.fixture(scope="module")
def headless(tmp_path_factory):
    """Two networks with untrained classifiers, whose images are normalised in different ways."""
    place, common = tmp_path_factory.mktemp("headless"), {"data": "digits", "image_size": 32, "epochs": 0}
    return [
        kdtool.teacher("timm:test_resnet", output=place / "cnn.pt", **common).path,
        kdtool.teacher("timm:test_vit", mean=(0.5,), std=(0.25,), output=place / "vit.pt", **common).path,
    ]


def distilled(headless, output, objective, **options):
    return kdtool.distill(
        headless, "ensemble", student="timm:test_resnet", objective=objective, output=output, **{"epochs": 1, **options}
    )


def test_headless_teachers_teach_at_once_each_by_its_maps(headless, tmp_path, monkeypatch):
    """The loss of the first step, from the teachers' own maps, beside numpy."""
    seen, loss_of = [], EnsembleLoss.loss

    def remember(self, step):
        loss = loss_of(self, step)
        seen.append((step, loss.item(), self))
        return loss

    monkeypatch.setattr(EnsembleLoss, "loss", remember)
    student = distilled(
        headless, tmp_path / "s.pt", "fitnets", subset=0.1, augment="none", cache="off", precision="fp32"
    )
    step, loss, objective = seen[0]
    teachers = objective.networks
    assert objective.shares == (0.5, 0.5)
    expected = step.cross_entropy().item()
    for (student_map, teacher_map), network in zip(step.maps, teachers, strict=True):
        (pair,) = objective.objective.watch(student.network, network)
        kept = []
        with network.module.get_submodule(pair.teacher.path).register_forward_hook(
            lambda _, __, output, kept=kept: kept.append(output)
        ):
            network.module.eval()(step.images)
        own = pair.of_teacher(kept[0]).detach().numpy()
        np.testing.assert_allclose(teacher_map.numpy(), own, rtol=2e-3, atol=1e-3 * np.abs(own).max())
        difference = student_map.detach().numpy().astype(float) - teacher_map.numpy()
        expected += 0.5 * 100 * np.mean(difference**2)
    assert loss == pytest.approx(expected, rel=1e-5)
    # Each teacher has an adapter of its own, to its own channels.
    assert [taught.shape[1] for _, taught in step.maps] == [pair[0].shape[1] for pair in step.maps]
    assert len({taught.shape[1:] for _, taught in step.maps}) == 2
    with torch.no_grad():
        assert bool(torch.isfinite(student.module(torch.zeros(1, 1, 32, 32))).all())


@pytest.mark.parametrize("objective", ["rkd", "none:0.5+at:10+kd:0.5"])
def test_sums_and_relations_of_several_teachers(headless, tmp_path, objective):
    student = distilled(headless, tmp_path / "s.pt", objective, subset=0.05)
    assert [row["model"] for row in student.history[-1]["rows"]] == [
        "teacher 1",
        "teacher 2",
        "all teachers",
        "student",
    ]


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_a_cut_run_goes_on_bit_for_bit(headless, tmp_path, cut_after, cache):
    options = {"objective": "fitnets+at", "subset": 0.05, "augment": "none", "cache": cache, "epochs": 2}
    whole = distilled(headless, tmp_path / "whole.pt", **options)
    with cut_after("ensemble", 1):
        distilled(headless, tmp_path / "cut.pt", **options)
    cut = distilled(headless, tmp_path / "cut.pt", resume=True, **options)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, cut.module.state_dict()[name]), name


def test_the_loss_of_equal_teachers_is_that_of_one(tmp_path):
    """Twice the same teacher, without adapters: half of its loss from each."""
    teacher = kdtool.teacher("kdtool:lenet-5", data="digits", image_size=16, epochs=0, output=tmp_path / "t.pt")
    metrics = []
    for name, teachers in (("two", [teacher] * 2), ("one", teacher)):
        method = {"method": "ensemble", "objective": "sp"} if name == "two" else {"method": "sp"}
        options = {"student": "kdtool:lenet-5", "epochs": 2, "subset": 0.1, "augment": "none"}
        kdtool.distill(teachers, **method, **options, output=tmp_path / f"{name}.pt")
        lines = (tmp_path / f"{name}.run" / "metrics.jsonl").read_text().splitlines()
        metrics.append([json.loads(line)["loss"] for line in lines])
    assert metrics[0] == pytest.approx(metrics[1], rel=3e-3)  # maps are rounded at the cuts of the one


def test_what_makes_no_sense_is_refused(teacher_path, second_path, tmp_path):
    options = {"student": "kdtool:lenet-300-100", "epochs": 1, "output": tmp_path / "s.pt"}
    with pytest.raises(kdtool.UsageError, match="ensemble learns from several teachers"):
        kdtool.distill(teacher_path, "ensemble", **options)
    with pytest.raises(kdtool.UsageError, match="wkd: needs the final classifier of one fixed teacher, which ensemble"):
        kdtool.distill([teacher_path, second_path], "ensemble", objective="wkd", **options)
    with pytest.raises(kdtool.UsageError, match="one teacher, not 2; for several teachers use --method ensemble"):
        kdtool.distill([teacher_path, second_path], "kd", **options)
    other = kdtool.teacher("kdtool:lenet-5", classes=7, in_channels=1, image_size=8, output=tmp_path / "seven.pt")
    with pytest.raises(kdtool.Error, match=r"seven.pt: has 7 classes and the first teacher 10; they must be the same"):
        kdtool.distill([teacher_path, other.path], "ensemble", **options)
    large = kdtool.teacher("kdtool:lenet-5", classes=10, in_channels=1, image_size=28, output=tmp_path / "large.pt")
    with pytest.raises(kdtool.Error, match=r"large.pt: takes images of \(1, 28, 28\)"):
        kdtool.distill([teacher_path, large.path], "ensemble", **options)
    assert not (tmp_path / "s.pt").exists()
