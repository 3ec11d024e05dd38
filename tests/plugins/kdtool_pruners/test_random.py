"""Random weights: the requested fraction, reproducible by the seed, and independent of the magnitudes."""

import pytest
import torch

import kdtool
from kdtool.training.zeros import prunable


def zeros(path, seed, output):
    pruned = kdtool.prune(path, "random", ratio=0.5, epochs=0, seed=seed, output=output)
    return torch.cat([(weight == 0).flatten() for weight in prunable(pruned.module).values()])


def test_random_weights_go(teacher_path, tmp_path):
    first, again, other = (zeros(teacher_path, seed, tmp_path / f"{index}.pt") for index, seed in enumerate((0, 0, 1)))
    assert float(first.float().mean()) == pytest.approx(0.5, abs=1e-4)
    assert torch.equal(first, again)
    # Two independent halves have a quarter in common.
    assert float((first & other).float().mean()) == pytest.approx(0.25, abs=0.01)
    weights = torch.cat([weight.abs().flatten() for weight in prunable(kdtool.load(teacher_path).module).values()])
    assert float(weights[first].mean()) == pytest.approx(float(weights.mean()), rel=0.02)
