"""Layers that output only a part of a group of channels, as before a concatenation, keep an open gate too."""

import pytest
import torch
from torch import nn

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.plugins.trust import trusted_meanwhile
from kdtool.surgery.gates import GateCosts, gate_channels, keep_last, minimal_gates, remove_closed

NETWORK = """
import torch
from torch import nn


class Joined(nn.Module):
    def __init__(self, classes, in_channels):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.c, self.a, self.b = (nn.Conv2d(8, width, 3, padding=1) for width in (16, 4, 12))
        self.last, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Linear(8, classes)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (self.c(x) + torch.cat([self.a(x), self.b(x)], 1)).relu()
        return self.head(self.last(x).relu().mean((2, 3)))
"""


@pytest.fixture
def gated(tmp_path, site):
    """The network with gates on three groups: 8 channels of the stem, 8 of `last` and 16 of `c`, of which `a` has 4."""
    (tmp_path / "joining.py").write_text(NETWORK)
    torch.manual_seed(0)
    with trusted_meanwhile("joining"):
        options = NetworkOptions(classes=10, in_channels=1, image_size=8)
        yield gate_channels(create("joining:Joined", options=options, data=None))


def widths(network):
    return {path: part.out_channels for path, part in network.module.named_modules() if isinstance(part, nn.Conv2d)}


def test_each_part_of_a_group_has_a_number(gated):
    places = gated.module.places
    (part,) = places.parts
    of_a = torch.isin(places.units, places.outputs["a"])
    of_b = torch.isin(places.units, places.outputs["b"])
    assert (of_a.count_nonzero(), of_b.count_nonzero(), len(part)) == (4, 12, 32)
    # `a`, `b`, and the groups of the stem and of `last`.
    for own in (of_a, of_b, *(places.groups == group for group in places.groups[~(of_a | of_b)].unique())):
        assert len(part[own].unique()) == 1
    assert len(part.unique()) == 4


def test_the_part_of_least_use_keeps_its_best_gate(gated):
    places = gated.module.places
    costs = GateCosts(gated.module, (1, 8, 8), "macs", 1)
    values = torch.rand(places.count) + 1
    of_a = torch.isin(places.units, places.outputs["a"])
    values[of_a] *= 0.01
    stays = minimal_gates(values, costs)
    # One of each group, of which that of `c` is in `b`, and one of `a`: those with the largest values.
    assert stays.count_nonzero() == 4
    assert of_a.nonzero().flatten()[values[of_a].argmax()] in stays.nonzero().flatten()
    before, closed = torch.ones(places.count), torch.where(of_a, 0.0, 1.0)
    kept = keep_last(closed, before, values - 10, costs)
    assert (kept - closed).nonzero().flatten().tolist() == (of_a & stays).nonzero().flatten().tolist()
    with torch.no_grad():
        gated.module.gates.copy_(kept)
    small = remove_closed(gated, kept > 0)
    assert widths(small) == {"stem": 8, "c": 13, "a": 1, "b": 12, "last": 8}


def test_a_network_whose_layers_output_whole_groups_has_no_parts():
    options = NetworkOptions(classes=10, in_channels=1, image_size=8)
    for spec in ("kdtool:resnet20", "kdtool:vgg8", "kdtool:densenet-bc-100-12"):
        assert gate_channels(create(spec, options=options, data=None)).module.places.parts == []
