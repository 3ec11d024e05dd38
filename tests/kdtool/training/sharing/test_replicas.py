"""Networks that are the same in all processes of a training."""

import torch
from torch import nn

from kdtool.training.sharing import replicas
from kdtool.training.sharing.replicas import Replica, synchronised_norms
from kdtool.utils.processes import together


def test_a_compiler_in_the_environment_changes_nothing(in_processes):
    def check():
        with together("cpu"):
            assert type(Replica(nn.Linear(2, 2)).module) is nn.parallel.DistributedDataParallel

    assert in_processes(check, ACCELERATE_DYNAMO_BACKEND="inductor") == [0, 0]


def test_on_the_cpu_batch_norms_stay_as_they_are_and_this_is_said(monkeypatch, capsys):
    """Also where the first one has no weights of its own."""
    monkeypatch.setattr(replicas, "count", lambda: 2)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4))
    with synchronised_norms([module], True):
        assert [type(part) for part in module] == [nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm2d]
        module(torch.zeros(2, 3, 2, 2))
    assert "--sync-batchnorm: torch has it on GPUs only" in capsys.readouterr().err
