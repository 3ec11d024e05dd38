"""Training without a teacher, beside losses whose teacher has no weight."""

import pytest
import torch

import kdtool


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("none") / "teacher.pt"
    return kdtool.teacher("kdtool:lenet-300-100", data="digits", subset=0.3, epochs=1, output=path).path


@pytest.mark.parametrize(("method", "options"), [("kd", {"alpha": 0}), ("dist", {"beta": 0, "gamma": 0})])
def test_a_loss_without_its_teacher_is_the_same_training_to_the_bit(method, options, teacher, tmp_path):
    common = {"refiner": "halve", "subset": 0.3, "epochs": 3, "views": 2}
    alone, taught = (
        kdtool.distill(teacher, name, output=tmp_path / f"{name}.pt", **common, **more).network.module.state_dict()
        for name, more in (("none", {}), (method, options))
    )
    assert all(torch.equal(weights, taught[name]) for name, weights in alone.items())


def test_views_that_were_asked_for_recur_without_a_teacher(teacher, tmp_path):
    fresh, recurring = (
        kdtool.distill(teacher, "none", output=tmp_path / f"{views}.pt", refiner="halve", epochs=2, views=views)
        for views in (0, 1)
    )
    again = kdtool.distill(teacher, "none", output=tmp_path / "default.pt", refiner="halve", epochs=2)
    weights = [next(result.network.module.parameters()) for result in (fresh, recurring, again)]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
