"""Scores of layers combined over a group of channels."""

import torch
from torch import nn

from kdtool.models.architecture import Architecture, Network
from kdtool.surgery.channels.groups import groups
from kdtool.surgery.channels.importance import filters, over_filters, over_norms, relative, sum_over_filters


class Added(nn.Module):
    """Two convolutions that are added, one of them through batch-norm."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head((self.norm(self.first(x)) + self.second(x)).mean((2, 3)))


def graph_of(module):
    architecture = Architecture("test", "net", {"classes": 3, "in_channels": 1, "image_size": 4})
    (group,) = groups(Network(architecture, module))
    return group.graph


def test_layers_that_are_added_are_averaged_or_summed():
    scores = {"first": torch.tensor([1.0, 2.0]), "second": torch.tensor([5.0, 3.0])}
    graph = graph_of(Added())
    torch.testing.assert_close(over_filters(graph, lambda path, layer: scores[path]), torch.tensor([3.0, 2.5]))
    torch.testing.assert_close(sum_over_filters(graph, lambda path, layer: scores[path]), torch.tensor([6.0, 5.0]))


def test_scores_may_have_rows():
    rows = {"first": torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "second": torch.tensor([[3.0, 3.0], [1.0, 1.0]])}
    sums = sum_over_filters(graph_of(Added()), lambda path, layer: rows[path])
    torch.testing.assert_close(sums, torch.tensor([[4.0, 5.0], [1.0, 2.0]]))


def test_norms_are_those_that_the_channels_go_through():
    means = over_norms(graph_of(Added()), lambda path, layer: torch.tensor([4.0, 8.0]))
    torch.testing.assert_close(means, torch.tensor([4.0, 8.0]))


def test_channels_in_no_norm_have_none():
    plain = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(64, 3))
    assert over_norms(graph_of(plain), lambda path, layer: torch.ones(4)) is None


def test_filters_are_rows_of_outputs():
    assert filters(nn.Conv2d(3, 5, 2)).shape == (5, 12)
    transposed = nn.ConvTranspose2d(3, 5, 2)
    assert torch.equal(filters(transposed)[1], transposed.weight[:, 1].flatten())
    assert torch.equal(filters(nn.Linear(4, 2), torch.ones(2, 4)), torch.ones(2, 4))


def test_relative_scores_have_the_mean_one():
    assert relative(torch.tensor([1.0, 3.0])).tolist() == [0.5, 1.5]
    assert relative(torch.zeros(2)).tolist() == [0.0, 0.0]
