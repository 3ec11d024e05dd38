"""Group norms by hand, and the channels that are left, compared with torch_pruning's isomorphic pruner."""

import copy
from functools import partial

import pytest
import torch
import torch_pruning as tp
from torch import nn

import kdtool
from kdtool.models.architecture import Architecture, Network
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import remove_channels
from kdtool.surgery.channels.groups import groups
from kdtool_pruners.isomorphic import group_norm


@pytest.mark.parametrize(
    ("power", "sums"),
    [
        # Filters, scales of the norm, and the two weights that read a channel; biases do not count.
        (1, [2 + 3 + 1 + 4, 1 + 1 + 2 + 2]),
        (2, [4 + 9 + 1 + 16, 1 + 1 + 4 + 4]),
    ],
)
def test_norms_go_over_all_coupled_weights(power, sums):
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2)).eval()
    module[0].weight.data.copy_(torch.tensor([-2.0, 1.0]).view(2, 1, 1, 1))
    module[1].weight.data.copy_(torch.tensor([3.0, -1.0]))
    module[1].bias.data.fill_(100.0)
    module[3].weight.data.copy_(torch.tensor([[1.0, 2.0], [-4.0, 2.0]]))
    architecture = Architecture("test", "net", {"classes": 2, "in_channels": 1, "image_size": 1})
    (group,) = groups(Network(architecture, module))
    expected = [value * 2 / sum(sums) for value in sums]
    assert group_norm(group.graph, power).tolist() == pytest.approx(expected)


def widths(module):
    return {path: len(part.weight) for path, part in module.named_modules() if isinstance(part, CONV_LINEAR)}


@pytest.mark.parametrize(
    ("spec", "ratio"),
    [
        ("kdtool:resnet20b", 0.25),
        ("kdtool:wrn-16-1", 0.5),
        pytest.param("kdtool:resnet20b", 0.5, marks=pytest.mark.slow),
        pytest.param("kdtool:wrn-16-1", 0.25, marks=pytest.mark.slow),
    ],
)
def test_the_channels_left_are_those_of_torch_pruning(spec, ratio):
    net = create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=32), data=None, own={})
    theirs = copy.deepcopy(net.module)
    tp.pruner.BasePruner(
        theirs,
        torch.zeros(1, 3, 32, 32),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        isomorphic=True,
        pruning_ratio=ratio,
        ignored_layers=[theirs.fc],
    ).step()
    expected = widths(theirs)
    removed = 1 - sum(expected.values()) / sum(widths(net.module).values())
    ours = remove_channels(
        net, ratio=removed, of="channels", importance=partial(group_norm, power=2), scope="isomorphic", round_to=1
    )
    assert widths(ours.network.module) == expected
    for path, layer in ours.network.module.named_modules():
        if isinstance(layer, CONV_LINEAR):
            assert torch.equal(layer.weight, theirs.get_submodule(path).weight), path


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("kdtool:resnet20", 8),
        *(pytest.param(spec, 32, marks=pytest.mark.slow) for spec in ("timm:test_convnext", "timm:test_vit")),
    ],
)
def test_networks_of_several_kinds_lose_the_ratio(tmp_path, spec, size):
    teacher = kdtool.teacher(
        spec, data="digits", augment="none", subset=0.05, epochs=0, image_size=size, output=tmp_path / "teacher.pt"
    )
    pruned = kdtool.prune(
        teacher, "isomorphic", ratio=0.3, of="macs", round_to=1, batches=2, epochs=0, output=tmp_path / "small.pt"
    )
    assert pruned.history[-1]["reached"]["removed"] == pytest.approx(0.3, abs=0.01)
    assert kdtool.load(tmp_path / "small.pt").module(torch.zeros(1, 1, size, size)).shape == (1, 10)


def test_only_taylor_wants_data(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "teacher.pt")
    with pytest.raises(kdtool.UsageError, match="--data"):
        kdtool.prune(teacher, "isomorphic", epochs=0, output=tmp_path / "small.pt")
    pruned = kdtool.prune(teacher, "isomorphic", score="l1", round_to=1, epochs=0, output=tmp_path / "small.pt")
    assert pruned.history[-1]["reached"]["removed"] == pytest.approx(0.3, abs=0.01)


def test_other_pruners_take_the_scope(tmp_path):
    teacher = kdtool.teacher("kdtool:resnet20", classes=10, output=tmp_path / "teacher.pt")
    for path, part in teacher.module.named_modules():
        if path.endswith("bn1"):  # inside of blocks all scales are small
            part.weight.data.mul_(torch.linspace(0.01, 0.02, len(part.weight)))
    made = [
        kdtool.prune(teacher, "bn-scale", scope=scope, of="channels", ratio=0.2, round_to=1, epochs=0, output=path)
        for scope in ("global", "isomorphic")
        for path in [tmp_path / f"{scope}.pt"]
    ]
    whole, everywhere, in_classes = (widths(each.module) for each in (teacher, *made))
    residual = [path for path in whole if path.endswith("conv2")]
    assert all(everywhere[path] == whole[path] for path in residual)
    assert all(in_classes[path] < whole[path] for path in residual)


def test_an_unknown_scope_or_score_is_refused(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "teacher.pt")
    for options in ({"scope": "blocks"}, {"score": "l3"}):
        with pytest.raises(kdtool.UsageError, match="is not a choice"):
            kdtool.prune(teacher, "isomorphic", epochs=0, output=tmp_path / "small.pt", **options)
    assert not (tmp_path / "small.pt").exists()
