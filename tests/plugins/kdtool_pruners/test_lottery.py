"""Lottery tickets: their early weights, what each round removes, and what the pruner needs."""

import dataclasses
import json

import pytest
import torch

import kdtool
from kdtool.training.zeros import prunable
from kdtool_pruners.lottery import Lottery


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "teacher.pt"
    return kdtool.teacher("kdtool:lenet-300-100", data="digits", epochs=2, keep_init=True, output=path)


def test_every_round_takes_the_same_part_of_what_is_left():
    # 0.2^(1/3) = 0.5848: the cube root of the fraction that stays.
    assert Lottery(ratio=0.8, steps=3).sparsities(0.0) == pytest.approx([0.41520, 0.65801, 0.8], abs=1e-5)
    assert Lottery(ratio=0.75, steps=2).sparsities(0.0) == pytest.approx([0.5, 0.75])
    # Half of the weights that are not zero yet, then half of the rest.
    assert Lottery(ratio=0.875, steps=2).sparsities(0.5) == pytest.approx([0.75, 0.875])


def test_the_ticket_begins_with_the_first_weights_under_the_mask_of_the_trained(kept, tmp_path, monkeypatch):
    starts = []

    def remember(self, run, pruned, teacher, name=""):
        starts.append(prunable(pruned.module))
        return pruned

    monkeypatch.setattr(Lottery, "retrain", remember)
    kdtool.prune(kept, "lottery", ratio=0.8, steps=1, epochs=1, output=tmp_path / "ticket.pt")
    trained = torch.cat([weight.abs().flatten() for weight in prunable(kept.module).values()])
    bound = trained.sort().values[round(0.8 * len(trained)) - 1]
    for name, weight in starts[0].items():
        stays = prunable(kept.module)[name].abs() > bound
        assert torch.equal(weight, kept.early.weights[name] * stays)


def test_rounds_are_trained_on_the_labels_and_reach_the_ratio(kept, tmp_path):
    pruned = kdtool.prune(kept, "lottery", ratio=0.9, steps=2, epochs=1, output=tmp_path / "ticket.pt")
    zeros = torch.cat([(weight == 0).flatten() for weight in prunable(pruned.module).values()])
    assert float(zeros.float().mean()) == pytest.approx(0.9, abs=1e-3)
    assert pruned.history[-1]["options"]["teacher"] is False
    epochs = (tmp_path / "ticket.run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in epochs] == ["round 1 of 2", "round 2 of 2"]


def test_without_early_weights_it_says_how_to_keep_them(teacher_path, tmp_path):
    with pytest.raises(kdtool.Error, match="--keep-init"):
        kdtool.prune(teacher_path, "lottery", epochs=1, output=tmp_path / "ticket.pt")
    assert list(tmp_path.iterdir()) == []


def test_early_weights_of_another_width_are_none(kept, tmp_path):
    half = kdtool.refine(kept, "halve", output=tmp_path / "half.pt")
    half = dataclasses.replace(half, early=kept.early)
    with pytest.raises(kdtool.Error, match="keeps no early weights"):
        kdtool.prune(half, "lottery", epochs=1, output=tmp_path / "ticket.pt")


def test_without_epochs_there_is_no_round(kept, tmp_path):
    with pytest.raises(kdtool.UsageError, match="--epochs"):
        kdtool.prune(kept, "lottery", epochs=0, output=tmp_path / "ticket.pt")
