"""Deep mutual learning against numpy, and who is kept."""

import numpy as np
import pytest
import torch

import kdtool
from kdtool.models.checkpoint import read
from kdtool_distillers.mutual import Mutual, MutualLoss


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def by_hand(logits, target):
    """The sum over i of CE_i + 1 / (K - 1) * sum over j != i of KL(p_j || p_i)."""
    total, count = 0.0, len(target)
    probabilities = [softmax(own) for own in logits]
    for i, own in enumerate(probabilities):
        total -= np.log(own[np.arange(count), target]).mean()
        others = [other for j, other in enumerate(probabilities) if j != i]
        total += sum((other * np.log(other / own)).sum() / count for other in others) / len(others)
    return total


@pytest.mark.parametrize("count", [2, 3])
def test_the_loss_is_the_papers(step_of, numbers, count):
    everyone, target = [numbers(5, 4) for _ in range(count)], torch.tensor([0, 1, 2, 3, 0])
    step = step_of(student=everyone[0], target=target, auxiliary=everyone[1:])
    expected = by_hand([logits.numpy() for logits in everyone], target.numpy())
    assert MutualLoss(objective=Mutual().objective).loss(step).item() == pytest.approx(expected, rel=1e-12)


def test_each_learns_from_the_others_and_teaches_without_a_gradient(step_of, numbers):
    everyone, target = [numbers(5, 4).requires_grad_() for _ in range(3)], torch.tensor([0, 1, 2, 3, 0])
    MutualLoss(objective=Mutual().objective).loss(
        step_of(student=everyone[0], target=target, auxiliary=everyone[1:])
    ).backward()
    p = [softmax(logits.detach().numpy()) for logits in everyone]
    right = np.eye(4)[target.numpy()]
    for i, logits in enumerate(everyone):
        # The derivative of CE is p - y, that of KL(p_j || p_i) by the logits of i is p_i - p_j.
        others = [p[j] for j in range(3) if j != i]
        expected = (p[i] - right + sum(p[i] - other for other in others) / 2) / 5
        np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-10)


def test_the_peers_begin_apart_and_are_kept(teacher_path, tmp_path):
    student = kdtool.distill(
        teacher_path, "mutual", student="kdtool:lenet-300-100", peers=3, epochs=2, output=tmp_path / "s.pt"
    )
    rows = {row["model"]: row for row in student.history[-1]["rows"]}
    assert [(name, row["taught_by"]) for name, row in rows.items()] == [
        ("student", "peer 2, peer 3"),
        ("peer 2", "student, peer 3"),
        ("peer 3", "student, peer 2"),
    ]
    kept = {name: read(tmp_path / "s.run" / f"{name.replace(' ', '-')}.pt") for name in rows}
    for name, network in kept.items():
        assert network.metric("test", "error") == rows[name]["error"] < 0.5
    weights = [network.module.state_dict() for network in kept.values()]
    assert all(torch.equal(tensor, student.module.state_dict()[name]) for name, tensor in weights[0].items())
    assert not any(torch.equal(weights[0][name], other[name]) for name in weights[0] for other in weights[1:])


def test_the_teacher_may_learn_too(teacher_path, tmp_path):
    before = read(teacher_path)
    student = kdtool.distill(
        before, "mutual", student="kdtool:lenet-5", peers=1, teacher_learns=True, epochs=1, output=tmp_path / "s.pt"
    )
    assert [row["model"] for row in student.history[-1]["rows"]] == ["student", "teacher"]
    after = read(tmp_path / "s.run" / "teacher.pt")
    assert after.architecture.spec == before.architecture.spec
    weights = read(teacher_path).module.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in before.module.state_dict().items())
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in after.module.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peers": 1}, "--peers 1: the student has no peer to learn from"),
        ({"objective": "at"}, "--objective at: compares layers"),
        ({"objective": "crld"}, "--objective crld: needs two views of every image, which mutual does not have"),
        ({"objective": "wkd"}, "--objective wkd: needs the final classifier of one fixed teacher, which mutual does"),
        ({"student": None}, "--method mutual needs a student"),
    ],
)
def test_what_makes_no_sense_is_refused(teacher_path, tmp_path, options, message):
    settings = {"student": "timm:test_resnet", "epochs": 1, **options}
    teacher = kdtool.teacher("timm:test_resnet", classes=10, in_channels=1, image_size=32, output=tmp_path / "t.pt")
    with pytest.raises(kdtool.UsageError, match=message):
        kdtool.distill(teacher, "mutual", data="digits", output=tmp_path / "s.pt", **settings)
    assert not (tmp_path / "s.pt").exists()
    assert not (tmp_path / "s.run").exists()
