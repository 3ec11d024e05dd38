"""Online distillation: the loss by hand, a teacher that learns as if it were alone, and all kinds of objectives."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import kdtool
from kdtool.models.checkpoint import read
from kdtool_distillers.at import AT
from kdtool_distillers.kd import KD
from kdtool_distillers.online import OnlineLoss


def test_the_loss_by_hand(step_of, numbers):
    student, teacher, target = numbers(5, 4), numbers(5, 4), torch.tensor([0, 1, 2, 3, 0])
    found = OnlineLoss(objective=KD(alpha=0.3, temperature=2.0)).loss(
        step_of(student=student, target=target, auxiliary=[teacher])
    )
    log_p, log_q = (F.log_softmax(logits / 2, dim=1).double().numpy() for logits in (teacher, student))
    soft = 4 * (np.exp(log_p) * (log_p - log_q)).sum() / 5
    expected = F.cross_entropy(teacher, target) + 0.7 * F.cross_entropy(student, target) + 0.3 * soft
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_teacher_learns_from_the_labels_alone(step_of, numbers):
    student, teacher, target = numbers(5, 4), numbers(5, 4).requires_grad_(), torch.tensor([0, 1, 2, 3, 0])
    maps = [numbers(5, 3, 2, 2).requires_grad_() for _ in range(2)]
    loss = OnlineLoss(objective=AT(), owners=("",))
    loss.loss(step_of(student=student, target=target, auxiliary=[teacher, *maps])).backward()
    expected = (F.softmax(teacher, dim=1) - F.one_hot(target, 4)) / 5
    torch.testing.assert_close(teacher.grad, expected.detach())
    assert maps[0].grad.abs().sum() > 0
    assert maps[1].grad is None


@pytest.mark.parametrize("clip", ["1", "auto"])
def test_clipping_does_not_let_the_teacher_learn_from_the_student(clip, teacher_path, tmp_path):
    options = {"student": "kdtool:lenet-300-100", "epochs": 1, "subset": 0.3, "clip": clip, "lr": 0.01}
    for alpha in (0.1, 0.9):
        objective = {"name": "kd", "alpha": alpha}
        kdtool.distill(teacher_path, "online", objective=objective, output=tmp_path / f"{alpha}.pt", **options)
    one, other = (read(path).module.state_dict() for path in tmp_path.glob("*.run/teacher.pt"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    "objective",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("kd", "fitnets", "rkd")), "kd:1+at:100"],
)
def test_any_kind_of_objective(objective, tmp_path):
    options = {"student": "kdtool:conv4-fc2", "epochs": 1, "subset": 0.03, "objective": objective}
    untrained = kdtool.teacher("kdtool:conv4-fc2", data="digits", epochs=0, output=tmp_path / "t.pt")
    made = kdtool.distill(untrained, "online", output=tmp_path / "s.pt", **options)
    assert [(row["model"], row["taught_by"]) for row in made.history[-1]["rows"]] == [
        ("student", "teacher"),
        ("teacher", "labels"),
    ]
    teacher = read(tmp_path / "s.run" / "teacher.pt")
    assert teacher.architecture.spec == "kdtool:conv4-fc2"
    before = untrained.module.state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in teacher.module.state_dict().items())


def test_the_teacher_may_go_on_with_its_weights(teacher_path, tmp_path):
    options = {"student": "kdtool:lenet-300-100", "epochs": 1, "lr": 1e-9}
    kdtool.distill(teacher_path, "online", fresh=False, output=tmp_path / "a.pt", **options)
    kdtool.distill(teacher_path, "online", output=tmp_path / "b.pt", **options)
    weights = [read(path).module.fc1.weight for path in (teacher_path, *sorted(tmp_path.glob("*.run/teacher.pt")))]
    torch.testing.assert_close(weights[1], weights[0], atol=1e-6, rtol=0)
    assert (weights[2] - weights[0]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("objective", "message"),
    [("crld", "needs two views of every image"), ("wkd", "needs the final classifier of one fixed teacher")],
)
def test_what_makes_no_sense_is_refused(teacher_path, tmp_path, objective, message):
    options = {"student": "kdtool:lenet-300-100", "objective": objective, "output": tmp_path / "s.pt"}
    with pytest.raises(kdtool.UsageError, match=f"--objective {objective}: {message}"):
        kdtool.distill(teacher_path, "online", **options)
