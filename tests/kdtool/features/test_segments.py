"""A network in segments: one after the other they are the network, and each costs itself alone."""

import pytest
import torch
from torch import nn

from kdtool.errors import Error
from kdtool.features.segments import Segment, cuttable, parts_of, segments, watched
from kdtool.features.taps import Tap, stage_taps, tap
from kdtool.models.architecture import Architecture, Network
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create


def network(spec, size=32):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=size), data=None)


@pytest.mark.parametrize(
    "spec",
    [
        "timm:test_resnet",
        "timm:test_vit",
        "timm:regnetx_002",
        pytest.param("torchvision:densenet121", marks=pytest.mark.slow),
        pytest.param("timm:vit_tiny_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_segments_make_the_network(spec):
    whole = network(spec, 64)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        x = images
        for segment in segments(whole, stage_taps(whole)):
            x, _ = segment.run(whole.module, x)
        torch.testing.assert_close(x, whole.module(images))


def test_what_is_before_a_segment_does_not_run():
    resnet = network("torchvision:resnet18")
    last = segments(resnet, stage_taps(resnet))[-1]
    ran = []
    for path, part in resnet.module.named_modules():
        part.register_forward_hook(lambda *_, path=path: ran.append(path))
    with torch.no_grad():
        last.run(resnet.module, torch.rand(2, 512, 1, 1))
    assert [path for path in ran if path.startswith(("layer1.", "layer3.", "layer4."))] == []
    assert "fc" in ran


def test_every_parameter_learns_in_one_part():
    vit = network("timm:vit_tiny_patch16_224", 64)
    parts = parts_of(vit, stage_taps(vit))
    assert sorted(name for part in parts for name in part.learns) == sorted(dict(vit.module.named_parameters()))
    # The embedding of positions stands behind the first tap: it is learnt with the blocks.
    assert parts[0].learns == ("patch_embed.proj.weight", "patch_embed.proj.bias")
    assert "pos_embed" in parts[1].learns
    assert parts[2].learns == ("head.weight", "head.bias")


class Bypass(nn.Module):
    """A network whose head reads two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, stride=2)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.first(x)
        y = self.second(x)
        return self.head(torch.cat([x.mean((2, 3)), y.mean((2, 3))], 1))


def test_a_bypass_cannot_be_cut():
    made = Network(Architecture("test", "bypass", {"classes": 10, "in_channels": 3, "image_size": 8}), Bypass().eval())
    taps = [tap(made, "first"), tap(made, "second")]
    assert [one.path for one in cuttable(made, taps)] == ["first"]
    with pytest.raises(Error, match="test:bypass: cannot be cut at second"):
        segments(made, taps)


def test_stages_whose_blocks_are_called_one_by_one():
    """timm's ResNets call the blocks of a stage and not the stage itself while they recompute their activations."""
    resnet = network("timm:test_resnet")
    taps = stage_taps(resnet)
    images = torch.rand(2, 3, 32, 32)
    resnet.module.eval()
    found = []
    for recomputing in (False, True):
        resnet.module.set_grad_checkpointing(recomputing)
        logits, maps = Segment().run(resnet.module, images, taps)
        (logits.sum() + sum(rows.square().sum() for rows in maps.values())).backward()
        found.append([logits, *maps.values(), *(weight.grad.clone() for weight in resnet.module.parameters())])
        resnet.module.zero_grad()
        x = images
        for segment in segments(resnet, taps):
            x, _ = segment.run(resnet.module, x)
        torch.testing.assert_close(x, logits)
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_stages_that_share_their_activation():
    """The output of a stage is not that of its last layer, where this runs in other places too."""
    relu = nn.ReLU()
    layers = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), relu), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), relu), nn.Flatten()
    )
    images = torch.rand(2, 3, 8, 8)
    first = Tap("0", (4, 6, 6), "nchw")
    with torch.no_grad():
        _, (maps,) = watched(layers, images, [first])
        end, _ = Segment(end=first).run(layers, images)
        rest, _ = Segment(begin=first, image=(3, 8, 8)).run(layers, end)
        assert torch.equal(maps, layers[0](images))
        assert torch.equal(end, maps)
        assert torch.equal(rest, layers(images))
