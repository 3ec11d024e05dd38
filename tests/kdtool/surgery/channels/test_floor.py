"""No layer becomes a bottleneck: each keeps a fraction of the channels that it had before the first step."""

import pytest
import torch
from torch import nn

import kdtool
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.plugins.registry import method_class
from kdtool.plugins.trust import trusted_meanwhile
from kdtool.surgery import filters, over_filters, relative
from kdtool.surgery.channels.importance import begins_with
from kdtool.surgery.channels.remove import remove_channels
from kdtool.training.options import Training
from kdtool.training.run import Run


def widths(network):
    return {path: part.out_channels for path, part in network.module.named_modules() if isinstance(part, nn.Conv2d)}


def test_a_layer_whose_scores_are_low_keeps_its_part_over_several_removals():
    options = NetworkOptions(classes=10, in_channels=1, image_size=8)
    net = create("kdtool:vgg8", options=options, data=None)
    last = list(widths(net))[-1]

    def scores(group):
        size = len(group[0].idxs)
        return (1e-6 if begins_with(group) == last else 1.0) + 1e-9 * torch.arange(size)

    how = {"ratio": 0.8, "of": "params", "importance": scores, "round_to": 1}
    whole = widths(net)[last]
    assert widths(remove_channels(net, **how).network)[last] == 1
    once = remove_channels(net, floor=0.25, **how)
    assert widths(once.network)[last] == whole // 4
    again = remove_channels(once.network, floor=0.25, before=once.before, **how)
    assert widths(again.network)[last] == whole // 4
    assert again.before == once.before


BRANCHES = """
import torch
from torch import nn


class Branches(nn.Module):
    def __init__(self, classes, in_channels):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 32, 3, padding=1)
        self.c, self.a, self.b = (nn.Conv2d(32, width, 3, padding=1) for width in (64, 16, 48))
        self.last, self.head = nn.Conv2d(64, 32, 3, padding=1), nn.Linear(32, classes)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (self.c(x) + torch.cat([self.a(x), self.b(x)], 1)).relu()
        return self.head(self.last(x).relu().mean((2, 3)))
"""
# Two branches put out parts of what they are added to: one group of 64 channels, of which `a` has 16.


@pytest.mark.parametrize(("floor", "ratio"), [(0.5, 0.3), (0.5, 0.9), (0.25, 0.5), (0.0, 0.9)])
def test_a_layer_that_puts_out_a_part_of_a_group_keeps_its_part_too(floor, ratio, tmp_path, site):
    (tmp_path / "branching.py").write_text(BRANCHES)
    torch.manual_seed(0)
    with trusted_meanwhile("branching"):
        check_the_floor(floor, ratio)


def check_the_floor(floor, ratio):
    network = create("branching:Branches", options=NetworkOptions(classes=10, in_channels=1, image_size=8), data=None)
    module = network.module
    with torch.no_grad():  # all but one channel of the branch are the least of all
        module.a.weight[1:] *= 0.01
        module.c.weight[1:16] *= 0.01

    def scores(group):
        return over_filters(group, lambda path, layer: relative(filters(layer).abs().sum(1)))

    how = {"of": "params", "importance": scores, "round_to": 1, "floor": floor}
    once = remove_channels(network, ratio=ratio, **how)
    assert once.removed == pytest.approx(ratio, abs=0.02) or once.capped
    before = widths(network)
    again = remove_channels(once.network, ratio=0.2, before=once.before, **how) if floor == 0.25 else once
    for removal in (once, again):
        after = widths(removal.network)
        assert all(after[path] >= max(1, floor * width) for path, width in before.items()), after
        assert after["a"] + after["b"] == after["c"]


def test_what_compress_cuts_keeps_the_part_too(digits, tmp_path):
    training = Training(epochs=1, device="cpu")
    options = NetworkOptions(classes=10, in_channels=1, image_size=8)
    network = create("kdtool:vgg8", options=options, data=None)
    run = Run(tmp_path, data=digits, training=training, parent=None, entry=None, teachers=[])
    cut = method_class("pruners", "filter-l1").cutter(run, network)
    how = {"of": "params", "ratio": 0.9, "round_to": 1, "scope": "global"}
    for floor in (0.1, 0.25):
        after = widths(cut({**how, "floor": floor}))
        assert all(after[path] >= floor * width for path, width in widths(network).items())
    assert any(after[path] < 0.3 * width for path, width in widths(network).items())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("floor") / "teacher.pt"
    return kdtool.teacher("kdtool:resnet20", data="digits", subset=0.1, epochs=0, output=path)


@pytest.mark.parametrize("steps", [1, 3])
def test_pruners_leave_a_tenth_of_every_layer(teacher, tmp_path, steps):
    how = {"of": "macs", "ratio": 0.9, "round_to": 1, "steps": steps, "epochs": 0}
    before = widths(teacher.network)
    for floor in (0.1, 0.25):
        pruned = kdtool.prune(teacher, "taylor", floor=floor, output=tmp_path / f"{floor}.pt", **how)
        after = widths(pruned.network)
        assert all(after[path] >= floor * width for path, width in before.items())


def test_a_ratio_that_removes_nothing_is_refused(teacher, tmp_path):
    with pytest.raises(kdtool.Error, match="the least that --round-to 16 can remove is more than 0.50% of the params"):
        kdtool.prune(teacher, "filter-l1", ratio=0.005, epochs=0, output=tmp_path / "pruned.pt")
