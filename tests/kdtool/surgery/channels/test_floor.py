"""No layer becomes a bottleneck: each keeps a fraction of the channels that it had before the first step."""

import pytest
import torch
from torch import nn

import kdtool
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery.channels.importance import begins_with
from kdtool.surgery.channels.remove import remove_channels


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
