"""The contract of pruners: the loss of the retraining."""

import pytest

import kdtool
from kdtool.models.checkpoint import read
from kdtool.plugins.defaults import RETRAINING_LOSS
from kdtool.plugins.entry_points import names
from kdtool.plugins.registry import method_class


@pytest.mark.parametrize("name", names("pruners"))
def test_pruners_retrain_with_the_default_loss(name):
    objective = next(info for info in method_class("pruners", name).describe() if info.name == "objective")
    assert (objective.default, objective.help) == (RETRAINING_LOSS, "loss of the retraining with a teacher")
    assert kdtool.make("pruners", name).objective == kdtool.make("distillers", RETRAINING_LOSS)


def test_the_history_records_the_loss(teacher_path, tmp_path):
    options = {"epochs": 0, "device": "cpu"}
    kdtool.prune(teacher_path, "magnitude", output=tmp_path / "default.pt", **options)
    kdtool.prune(teacher_path, "magnitude", objective="dist", output=tmp_path / "dist.pt", **options)
    default, dist = (read(tmp_path / f"{name}.pt").history[-1]["options"]["objective"] for name in ("default", "dist"))
    assert default == {"name": "kd", **kdtool.make("distillers", "kd").as_data()}
    assert dist["name"] == "dist"
