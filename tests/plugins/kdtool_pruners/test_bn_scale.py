"""The scales of batch-norms, the effect of the penalty on them, and networks without batch-norm."""

import pytest
import torch
from torch import nn

import kdtool
from kdtool.models.architecture import Architecture, Network
from kdtool.surgery.channels.groups import groups
from kdtool_pruners.bn_scale import ScalePenalty, scales, scales_of


def test_a_channel_scores_its_scale():
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    module[1].weight.data.copy_(torch.tensor([-2.0, 0.5, 1.0]))
    architecture = Architecture("test", "net", {"classes": 3, "in_channels": 1, "image_size": 4})
    (group,) = groups(Network(architecture, module))
    assert scales_of(group.graph).tolist() == [2.0, 0.5, 1.0]


def test_the_penalty_is_the_sum_of_the_absolute_scales():
    norms = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(1))
    norms[0].weight.data.copy_(torch.tensor([-2.0, 0.5]))
    assert ScalePenalty(0.1).penalty(norms).item() == pytest.approx(0.1 * 3.5)


def test_a_network_without_batch_norm_is_refused(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "teacher.pt")
    with pytest.raises(kdtool.Error, match="no batch-norm with scales; use filter-l1"):
        kdtool.prune(teacher, "bn-scale", epochs=0, output=tmp_path / "small.pt")


def test_the_penalty_makes_scales_small_before_the_channels_go(tmp_path):
    options = {"data": "digits", "augment": "none", "subset": 0.3, "batch_size": 32}
    teacher = kdtool.teacher("kdtool:wrn-16-1", epochs=1, output=tmp_path / "teacher.pt", **options)
    means = []
    for penalty in (1e-6, 0.1):
        pruned = kdtool.prune(
            teacher,
            "bn-scale",
            ratio=0.3,
            epochs=0,
            sparse_epochs=1,
            lr=0.01,
            penalty=penalty,
            output=tmp_path / f"{penalty}.pt",
        )
        # The two trainings remove different channels: compare the means of those that stay.
        means.append(torch.cat([scale.detach().abs() for scale in scales(pruned.module)]).mean())
        assert pruned.history[-1]["reached"]["removed"] == pytest.approx(0.3, abs=0.1)
    assert means[1] < 0.95 * means[0]
