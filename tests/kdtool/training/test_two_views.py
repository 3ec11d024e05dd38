"""Two views of each image, and the names by which the cache keeps what the teacher makes of them."""

import pytest
import torch

import kdtool
from kdtool.models.checkpoint import read
from kdtool.training.batches import DistillationBatches
from kdtool.training.engine import engine_for
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan
from kdtool.training.two_views import TwoViews


def batches_of(objective, data, teacher_path):
    network, training = read(teacher_path).network, Training(device="cpu", precision="fp32")
    plan = FitPlan("phase", network, network, kdtool.make("distillers", objective), None, None, training)
    return plan.batches(data, engine_for(training, 64, network), None)[0]


@pytest.mark.parametrize("augment", ["standard", "trivial", "none"])
def test_the_weak_view_is_what_the_training_shows_without_a_strong_one(augment, digits, teacher_path):
    """So its outputs may be kept by the name of the split, and other phases of the run find the same pixels there."""
    data = digits.with_augmentation(augment, 0.0)
    both, plain = (batches_of(objective, data, teacher_path) for objective in ("crld", "kd"))
    assert isinstance(both, TwoViews)
    assert isinstance(plain, DistillationBatches)
    assert (both.weak.kept_as, plain.kept_as, both.strong.kept_as) == ("", "", "train-strong")
    assert (both.weak.split.spec.augment, both.strong.split.spec.augment) == (augment, "rand")
    order = torch.arange(8)
    shown, alone = (next(part.batches(8, order=order, view=1)).inputs for part in (both, plain))
    assert torch.equal(shown[:8], alone)
    assert not torch.equal(shown[8:], alone)


def test_two_views_that_would_be_the_same_are_refused(digits, teacher_path):
    with pytest.raises(kdtool.UsageError, match="^--augment rand: crld compares an image with what RandAugment makes"):
        batches_of("crld", digits.with_augmentation("rand", 0.0), teacher_path)
