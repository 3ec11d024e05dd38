"""Fixtures: steps built by hand in float64."""

import pytest
import torch

from kdtool import Step


@pytest.fixture
def step_of():
    """A function that makes a step from maps; by default all logits are 0, for three classes."""

    def make(maps=(), *, student=None, teacher=None, target=None, images=None, **about):
        count = len(maps[0][0]) if maps else len(student)
        zeros = torch.zeros(count, 3, dtype=torch.float64)
        return Step(
            student=zeros if student is None else student,
            teacher=zeros if teacher is None else teacher,
            target=torch.zeros(count, dtype=torch.long) if target is None else target,
            images=torch.zeros(count, 1, 4, 4) if images is None else images,
            maps=maps,
            **about,
        )

    return make


@pytest.fixture
def numbers():
    """A function that draws random float64 tensors, the same ones in every run."""
    chance = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=chance, dtype=torch.float64)
