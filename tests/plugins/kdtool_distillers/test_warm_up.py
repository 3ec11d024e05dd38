"""The warm-up of a loss: the authors' 20 epochs, and half of shorter trainings."""

import pytest
import torch

from kdtool import make
from kdtool_distillers.warm_up import warmed_up


def test_the_authors_warm_up():
    # megvii-research/mdistiller: min(epoch / 20, 1) with epochs from 1 on, in 240 epochs.
    for epoch in range(240):
        expected = pytest.approx(min((epoch + 1) / 20, 1))
        assert warmed_up(epoch, 240, None) == expected
        assert warmed_up(epoch, 10, 20) == expected


@pytest.mark.parametrize(
    ("epochs", "parts"),
    [(1, [1.0]), (2, [1.0, 1.0]), (4, [0.5, 1.0, 1.0]), (10, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]), (40, [0.05, 0.1])],
)
def test_at_most_half_of_a_short_training(epochs, parts):
    assert [warmed_up(epoch, epochs, None) for epoch in range(len(parts))] == pytest.approx(parts)


def test_no_warm_up():
    assert warmed_up(0, 240, 0) == 1.0


@pytest.mark.parametrize(("method", "labels"), [("dist", 1.0), ("mlkd", 0.2), ("dkd", 1.0)])
@pytest.mark.parametrize(("epoch", "part"), [(0, 0.05), (9, 0.5), (19, 1.0), (200, 1.0)])
def test_the_terms_of_the_teacher_grow(numbers, step_of, method, labels, epoch, part):
    logits, target = {"student": 3 * numbers(5, 3), "teacher": 3 * numbers(5, 3)}, torch.tensor([0, 2, 1, 1, 0])
    step = step_of(**logits, target=target, epoch=epoch, epochs=240)
    hard = labels * step.cross_entropy()
    taught = make("distillers", method, teacher_warmup=0).loss(step) - hard
    assert make("distillers", method).loss(step).item() == pytest.approx((hard + part * taught).item(), rel=1e-10)


def test_the_maps_of_wkd_grow(numbers, step_of):
    maps = [(numbers(2, 3, 4, 4), numbers(2, 3, 4, 4))]
    step = step_of(maps, epoch=4, epochs=240)
    first, whole = (
        make("distillers", "wkd", logit_weight=0, feature_weight=1.0, **options).loss(step) - step.cross_entropy()
        for options in ({}, {"teacher_warmup": 0})
    )
    assert first.item() == pytest.approx(whole.item() / 4, rel=1e-10)
