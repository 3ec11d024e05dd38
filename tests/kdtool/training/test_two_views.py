"""Two views of each image, and the names by which the cache keeps what the teacher makes of them."""

import pytest

import kdtool
from kdtool.models.checkpoint import read
from kdtool.training.batches import DistillationBatches
from kdtool.training.engine import engine_for
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan
from kdtool.training.two_views import TwoViews


@pytest.mark.parametrize(("augment", "name"), [("standard", ""), ("trivial", "train-weak"), ("none", "")])
def test_a_weak_view_that_is_not_the_runs_own_has_a_name_of_its_own(augment, name, digits, teacher_path):
    """Another phase of the run, with its own augmentation, keeps the outputs of other pixels as those of the split."""
    network, data = read(teacher_path).network, digits.with_augmentation(augment, 0.0)
    training = Training(device="cpu", precision="fp32")
    engine = engine_for(training, 64, network)

    def batches(objective):
        plan = FitPlan("phase", network, network, kdtool.make("distillers", objective), None, None, training)
        return plan.batches(data, engine, None)[0]

    both, plain = batches("crld"), batches("kd")
    assert isinstance(both, TwoViews)
    assert isinstance(plain, DistillationBatches)
    assert (both.weak.kept_as, plain.kept_as) == (name, "")
    assert both.strong.kept_as == "train-strong"
    assert (both.weak.split.spec.augment == data.spec.augment) is (name == "")
