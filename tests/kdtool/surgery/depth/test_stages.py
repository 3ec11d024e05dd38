from functools import partial

import pytest
import timm
import torch
from packaging.version import Version
from torch import nn

from kdtool import Error
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery.depth.stages import stages, stages_of

slow = partial(pytest.param, marks=pytest.mark.slow)


def stages_of_spec(spec, image_size):
    net = create(spec, options=NetworkOptions(classes=10, image_size=image_size), data=None)
    return stages(net.module, net.architecture.input)


@pytest.mark.parametrize(
    ("spec", "image_size", "expected"),
    [
        ("torchvision:resnet18", 32, [2, 2, 2, 2]),
        ("torchvision:regnet_y_400mf", 32, [3, 6, 6]),
        slow("torchvision:convnext_tiny", 32, [3, 3, 9, 3]),
        ("timm:test_convnext", 32, [2, 4, 2]),
        ("timm:regnetx_002", 32, [4, 7]),
        slow("timm:swin_tiny_patch4_window7_224", 64, [2, 2, 6, 2]),
        slow("timm:efficientnet_b0", 32, [2, 2, 3, 3, 4]),
        ("torchvision:densenet121", 32, [6, 12, 24, 16]),
        ("timm:poolformerv2_s12", 32, [2, 2, 6, 2]),  # blocks that pool their input
        slow("timm:efficientformer_l1", 224, [3, 2, 6, 3]),  # blocks that pool their input and subtract it
        ("timm:efficientvim_m1", 64, [2, 2, 2]),  # blocks that return more values than they receive
        slow("timm:ghostnet_100", 32, [2, 2, 3, 2, 4]),
        slow("timm:dla34", 32, [2, 2, 2, 2, 2, 2]),  # blocks that are called by name
        slow("timm:legacy_xception", 64, [9]),
        ("timm:efficientvit_m0", 64, [2, 2, 2, 2, 2, 3]),  # parts of blocks that are called by name
        ("torchvision:squeezenet1_1", 32, []),
        ("torchvision:googlenet", 64, []),
    ],
)
def test_stages_of_known_networks(spec, image_size, expected):
    if spec.startswith("timm:") and not timm.is_model(spec.removeprefix("timm:")):
        pytest.skip(f"timm {timm.__version__} has no such network yet")
    assert [len(stage.blocks) for stage in stages_of_spec(spec, image_size)] == expected


def test_a_stage_knows_its_blocks_and_their_sizes():
    stage = stages_of_spec("torchvision:resnet18", 32)[1]
    assert (stage.name, stage.blocks) == ("layer2", ("layer2.0", "layer2.1"))
    assert stage.parameters == (230_144, 295_424)
    assert not stage.dense


def test_the_layers_of_a_densenet_are_dense():
    assert all(stage.dense for stage in stages_of_spec("kdtool:densenet-bc-100-12", 8))


class Plain(nn.Module):
    def __init__(self, skip):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.skip = skip

    def forward(self, x):
        return torch.relu(self.conv(x)) + (x if self.skip else 0)


@pytest.mark.parametrize(("skip", "expected"), [(True, [3]), (False, [])])
def test_only_residual_blocks_make_a_stage(skip, expected):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(*(Plain(skip) for _ in range(3))))
    assert [len(stage.blocks) for stage in stages(module, (3, 8, 8))] == expected


def test_a_block_that_runs_twice_stays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Plain(True), Plain(True)])

        def forward(self, x):
            return self.blocks[1](self.blocks[1](self.blocks[0](x)))

    assert stages(Twice(), (4, 8, 8)) == []


class Named(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.one, self.two, self.three = blocks

    def forward(self, x):
        return self.three(self.two(self.one(x)))


class Wide(Plain):
    def __init__(self, skip):
        super().__init__(skip)
        self.conv = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1))


def test_blocks_called_by_name_are_told_from_the_parts_of_a_block():
    assert [stage.blocks for stage in stages(Named(Plain(False), Plain(True), Plain(True)), (4, 8, 8))] == [
        ("one", "two", "three")
    ]
    wide = Wide(True)
    wide.__class__ = Plain
    assert stages(Named(Plain(False), Plain(True), wide), (4, 8, 8)) == []


def test_blocks_that_the_network_counts_are_no_stage():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Plain(True) for _ in range(4)])

        def forward(self, x):
            for i, block in enumerate(self.blocks):
                x = block(x).flip(1) if i == 2 else block(x)
            return x

    assert stages(Counts(), (4, 8, 8)) == []


def test_looking_for_stages_changes_nothing():
    module = nn.Sequential(Plain(True), Plain(True)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert len(stages(module, (4, 8, 8))) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(part.training for part in module.modules())
    assert not any("forward" in vars(part) for part in module.modules())


@pytest.mark.skipif(Version(timm.__version__) < Version("1.0.31"), reason="no stages are found in it")
def test_blocks_that_add_and_put_channels_beside_it_at_once_are_refused_by_name():
    with pytest.raises(Error, match=r"timm:dpn48b: its blocks, such as features.conv2_2, both add .* use a refiner"):
        stages_of(create("timm:dpn48b", options=NetworkOptions(classes=10, image_size=32), data=None))
