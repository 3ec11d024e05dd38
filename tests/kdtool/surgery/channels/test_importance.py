"""Scores of layers combined over a group of channels."""

import copy

import pytest
import torch
import torch_pruning as tp
from torch import nn

from kdtool.models.architecture import Architecture, Network
from kdtool.surgery.channels.groups import groups
from kdtool.surgery.channels.importance import (
    filters,
    over_filters,
    over_norms,
    relative,
    sum_over_filters,
    sum_over_parameters,
)


class Added(nn.Module):
    """Two convolutions that are added, one of them through batch-norm."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head((self.norm(self.first(x)) + self.second(x)).mean((2, 3)))


def all_groups(module, channels=1):
    architecture = Architecture("test", "net", {"classes": 3, "in_channels": channels, "image_size": 4})
    return groups(Network(architecture, module))


def graph_of(module):
    (group,) = all_groups(module)
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


class Coupled(nn.Module):
    """Convolutions of all kinds that pass the same channels, with a scale of each channel that is in no layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.depthwise, self.slopes = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.PReLU(4)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.side, self.rows = nn.ConvTranspose2d(2, 4, 1), nn.GroupNorm(1, 4)
        self.reader, self.back = nn.Conv2d(4, 6, 1), nn.ConvTranspose2d(4, 3, 2)
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        maps = self.slopes(self.depthwise(self.norm(self.stem(x)))) * self.scale + self.rows(self.side(x))
        return self.head(torch.cat([self.reader(maps).mean((2, 3)), self.back(maps).mean((2, 3))], 1))


def test_parameters_of_a_channel_are_those_that_torch_pruning_removes():
    module = Coupled().eval()
    names = {}
    for name, parameter in module.named_parameters():
        # Each element holds an index of its own; all indices are exact in float32.
        parameter.data = torch.arange(parameter.numel()).view_as(parameter).float() + 1000 * len(names)
        names[name] = parameter
    terms = {
        name: torch.rand(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
        for name, parameter in names.items()
    }
    term_of = {
        int(index): float(term)
        for name, parameter in names.items()
        for index, term in zip(parameter.flatten(), terms[name].flatten(), strict=True)
    }
    expected = []
    for channel in range(4):
        pruned = copy.deepcopy(module)
        graph = tp.DependencyGraph().build_dependency(
            pruned, torch.rand(1, 2, 4, 4), unwrapped_parameters=[(pruned.scale, 0)]
        )
        graph.get_pruning_group(pruned.stem, tp.prune_conv_out_channels, [channel]).prune()
        left = {int(index) for parameter in pruned.parameters() for index in parameter.flatten()}
        expected.append(sum(term for index, term in term_of.items() if index not in left))
    graph = next(group.graph for group in all_groups(module, channels=2) if group.size == 4)
    sums = sum_over_parameters(graph, lambda name, parameter: terms[name])
    assert sums.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_grouped_convolution_reads_a_channel_in_one_block():
    module = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(64, 3))
    graph = next(group.graph for group in all_groups(module) if group.graph[0].dep.target.module.in_channels == 1)
    scores = {
        "0.weight": torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1),
        # The first two filters read channels 0 and 1, the others read channels 2 and 3.
        "1.weight": torch.tensor([[10.0, 20.0], [100.0, 200.0], [30.0, 40.0], [300.0, 400.0]]).view(4, 2, 1, 1),
    }
    sums = sum_over_parameters(graph, lambda name, parameter: scores.get(name, torch.zeros_like(parameter)))
    assert sums.tolist() == [111.0, 222.0, 333.0, 444.0]
