"""Magnitude pruning of a network in one step, in several steps, and again."""

import json

import pytest
import torch

import kdtool
from kdtool.training.zeros import prunable


def zeros(checkpoint):
    return {name: weight == 0 for name, weight in prunable(checkpoint.module).items()}


def sparsity(checkpoint):
    masks = torch.cat([mask.flatten() for mask in zeros(checkpoint).values()])
    return float(masks.float().mean())


@pytest.fixture
def pruned(teacher_path, tmp_path):
    return kdtool.prune(teacher_path, ratio=0.8, epochs=1, output=tmp_path / "pruned.pt")


def test_the_smallest_weights_of_all_layers_are_zero_after_retraining(teacher_path, pruned):
    weights = prunable(kdtool.load(teacher_path).module)
    flat = torch.cat([weight.abs().flatten() for weight in weights.values()])
    bound = flat.sort().values[round(0.8 * len(flat)) - 1]
    for name, mask in zeros(pruned).items():
        assert torch.equal(mask, weights[name].abs() <= bound)
    assert pruned.history[-1]["reached"] == {"of": "weights", "asked": 0.8, "removed": 0.8}


def test_the_rest_was_retrained(teacher_path, pruned):
    before, after = prunable(kdtool.load(teacher_path).module), prunable(pruned.module)
    assert any(not torch.equal(before[name][~mask], after[name][~mask]) for name, mask in zeros(pruned).items())


def test_several_steps_go_up_to_the_ratio_and_zeros_stay(teacher_path, tmp_path):
    made = kdtool.prune(teacher_path, ratio=0.8, steps=3, epochs=1, scope="layer", output=tmp_path / "gradual.pt")
    assert all(float(mask.float().mean()) == pytest.approx(0.8, abs=0.005) for mask in zeros(made).values())
    epochs = (tmp_path / "gradual.run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in epochs] == ["retrain 1 of 3", "retrain 2 of 3", "retrain 3 of 3"]


@pytest.mark.parametrize("again", [0.9, 0.5])
def test_pruning_again_keeps_the_zeros_that_are_there(pruned, tmp_path, again):
    made = kdtool.prune(pruned, ratio=again, epochs=1, output=tmp_path / "again.pt")
    assert sparsity(made) == pytest.approx(max(again, 0.8), abs=1e-3)
    assert all(bool((zeros(made)[name] | ~mask).all()) for name, mask in zeros(pruned).items())
    assert made.history[-1]["reached"]["removed"] == pytest.approx(max(again, 0.8), abs=1e-3)
