"""Who teaches which generation, which one is the result, and their ensemble."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import kdtool
from kdtool.data.opening import open_spec
from kdtool.models.checkpoint import read


def test_generations_and_their_ensemble(teacher_path, tmp_path):
    result = kdtool.distill(teacher_path, "born-again", generations=3, epochs=2, lr=3e-3, output=tmp_path / "s.pt")
    rows = {row["model"]: row for row in result.history[-1]["rows"]}
    assert [(name, row["taught_by"]) for name, row in rows.items()] == [
        ("generation 1", "teacher"),
        ("generation 2", "generation 1"),
        ("generation 3", "generation 2"),
        ("ensemble", ""),
    ]
    generations = [read(tmp_path / "s.run" / f"generation-{number}.pt") for number in (1, 2, 3)]
    assert {generation.architecture.spec for generation in generations} == {"kdtool:lenet-300-100"}
    best = max(generations, key=lambda made: (made.metric("val", "accuracy"), -made.metric("val", "loss")))
    assert all(
        torch.equal(tensor, result.module.state_dict()[name]) for name, tensor in best.module.state_dict().items()
    )
    # The ensemble's error is that of the mean of the probabilities.
    test = open_spec(result.data).test
    wrong = 0
    for _, images, labels in test.batches(64):
        with torch.no_grad():
            mean = torch.stack([made.module(images).softmax(dim=1) for made in generations]).mean(dim=0)
        wrong += int((mean.argmax(1) != labels).sum())
    assert rows["ensemble"]["error"] == pytest.approx(wrong / len(test))


def test_the_default_objective_counts_labels_and_teacher_alike():
    objective = kdtool.make("distillers", "born-again").objective
    assert (objective.none.weight, objective.kd.alpha, objective.kd.temperature) == (1.0, 1.0, 1.0)


def test_the_default_loss_by_numpy(numbers, step_of):
    """Furlanello et al.: the cross-entropy of the labels, and KL(teacher || student) at a temperature of 1."""
    student, teacher, target = 2 * numbers(5, 4), 2 * numbers(5, 4), torch.tensor([0, 3, 1, 1, 2])
    p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (student.numpy(), teacher.numpy()))
    expected = -np.log(p[np.arange(5), target.numpy()]).mean() + (q * np.log(q / p)).sum() / 5
    loss = kdtool.make("distillers", "born-again").objective.loss(
        step_of(student=student, teacher=teacher, target=target)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_generations_begin_apart_and_another_structure_may_be_born(teacher_path, tmp_path):
    kdtool.distill(
        teacher_path, "born-again", student="kdtool:lenet-5", generations=2, epochs=0, output=tmp_path / "s.pt"
    )
    first, second = (read(tmp_path / "s.run" / f"generation-{number}.pt") for number in (1, 2))
    assert first.architecture.spec == "kdtool:lenet-5"
    name = next(name for name in first.module.state_dict() if name.endswith("weight"))
    assert not torch.equal(first.module.state_dict()[name], second.module.state_dict()[name])


def test_the_result_is_the_best_by_what_select_says():
    scores = [
        {"accuracy": 0.9, "balanced_accuracy": 0.5, "loss": 1.0},
        {"accuracy": 0.8, "balanced_accuracy": 0.7, "loss": 1.0},
    ]

    class Trained:
        """A run in which generation i has the i-th score."""

        def __getattr__(self, name):
            return lambda *_, **__: None

        def fit(self, name, network, **_):
            return SimpleNamespace(network=SimpleNamespace(number=int(name.split()[1]), architecture="", module=None))

        def evaluate(self, network):
            return scores[network.number - 1]

    made = kdtool.make("distillers", "born-again", generations=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdtool_distillers.mean_of.mean_of", lambda networks: None)
        assert made.distill(Trained(), "teacher", None).number == 2
