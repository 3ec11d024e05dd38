"""What a frozen network makes of images: computed once, from the nearest map that is there."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from kdtool.features.segments import segments
from kdtool.features.taps import stage_taps
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.engine import Engine
from kdtool.training.frozen_network import LOGITS, FrozenNetwork
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache


@pytest.fixture
def resnet():
    return create("torchvision:resnet18", options=NetworkOptions(classes=10, image_size=32), data=None)


def frozen(network, cache, precision="fp32"):
    taps = stage_taps(network)
    keys = {name: "key" for name in (*(tap.path for tap in taps), LOGITS)}
    engine = Engine(Training(device="cpu", precision=precision), 0)
    return FrozenNetwork(network.module, keys, engine, cache, cut=segments(network, taps)), taps


def ask(network, wanted, images):
    look = network.look(wanted, split="train", images=len(images), view=None)
    rows = [look(chunk, images[chunk]) for chunk in torch.arange(len(images)).split(3)]
    look.close()
    return look, [torch.cat(parts) for parts in zip(*rows, strict=True)]


def test_maps_and_logits_are_those_of_the_network(resnet, tmp_path):
    images = torch.rand(7, 3, 32, 32)
    network, taps = frozen(resnet, Cache(tmp_path, 10**8))
    with torch.no_grad():
        logits = resnet.module(images)
        meant = nn.Sequential(*list(resnet.module.children())[:6])(images)  # up to layer2
    for again in range(2):
        look, (layer2, out) = ask(network, [taps[2], LOGITS], images)
        assert bool(look.missing) == (again == 0)
        torch.testing.assert_close(layer2, meant, rtol=1e-3, atol=1e-3)
        # The maps on the way are rounded, whether they are kept or not.
        torch.testing.assert_close(out, logits, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_kept_as_it_comes_with_the_channels_last(resnet, tmp_path):
    images = torch.rand(7, 3, 32, 32)
    network, taps = frozen(resnet, Cache(tmp_path, 10**8), "bf16")
    meant = network.run(None, taps[2], images, [taps[2]])[0]
    for again in range(2):
        look, (layer2,) = ask(network, [taps[2]], images)
        assert bool(look.missing) == (again == 0)
        assert layer2.dtype == torch.bfloat16
        torch.testing.assert_close(layer2, meant, rtol=2e-2, atol=2e-2)
    (file,) = tmp_path.glob("*.npy")
    assert np.load(file).shape == (7, 4, 4, 128)
    rows = look(torch.tensor([5, 2]), None)[0]
    assert torch.equal(rows, layer2[[5, 2]])
    assert rows.is_contiguous(memory_format=torch.channels_last)


def test_a_map_in_bf16_is_not_read_in_fp32(resnet, tmp_path):
    images = torch.rand(3, 3, 32, 32)
    for precision in ("bf16", "fp32"):
        network, taps = frozen(resnet, Cache(tmp_path, 10**8), precision)
        assert ask(network, [taps[2]], images)[0].missing


def test_the_next_map_is_computed_from_the_last(resnet, tmp_path):
    images = torch.rand(7, 3, 32, 32)
    network, taps = frozen(resnet, Cache(tmp_path, 10**8))
    ask(network, [taps[1]], images)
    ran = []
    for path, part in resnet.module.named_modules():
        part.register_forward_hook(lambda *_, path=path: ran.append(path))
    look, _ = ask(network, [taps[2]], images)
    assert not look.needs_images
    assert {path.partition(".")[0] for path in ran if "." in path} == {"layer2"}


def test_without_a_cache_it_runs_every_time(resnet):
    images = torch.rand(3, 3, 32, 32)
    network, taps = frozen(resnet, None)
    first, second = (ask(network, [taps[0]], images) for _ in range(2))
    assert second[0].missing
    assert torch.equal(first[1][0], second[1][0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_cache_changes_no_bit_on_off_or_lost_in_the_middle(resnet, tmp_path, precision):
    """What is computed from the images, from any cached map, or read back is the same, in any state of the cache."""
    images = torch.rand(7, 3, 32, 32)
    without, taps = frozen(resnet, None, precision)
    wanted = [taps[1], taps[3], LOGITS]
    expected = ask(without, wanted, images)[1]
    cached = frozen(resnet, Cache(tmp_path, 10**8), precision)[0]
    ask(cached, [taps[2]], images)
    for lost in ("nothing", "layer1", "layer3", "logits", "layer2", "layer"):
        for file in tmp_path.glob(f"*{lost}*.npy"):
            file.unlink()
        for again in range(2):
            found = ask(cached, wanted, images)[1]
            for ours, theirs in zip(found, expected, strict=True):
                assert torch.equal(ours, theirs), (lost, again)
                assert ours.stride() == theirs.stride(), (lost, again)


def test_a_network_that_is_cut_shares_no_logits_with_one_that_is_not(resnet, tmp_path):
    images = torch.rand(3, 3, 32, 32)
    cut, _ = frozen(resnet, Cache(tmp_path, 10**8))
    ask(cut, [LOGITS], images)
    whole = FrozenNetwork(resnet.module, cut.keys, cut.engine, cut.cache)
    look, (logits,) = ask(whole, [LOGITS], images)
    assert look.missing
    with torch.no_grad():
        torch.testing.assert_close(logits, resnet.module(images), rtol=1e-5, atol=1e-6)


def test_logits_of_other_numbers_of_images_views_and_layouts_are_kept_apart(tmp_path):
    cache = Cache(tmp_path, 10**6)
    for channels_last, count, view in itertools.product((False, True), (4, 5), (None, 0)):
        engine = Engine(Training(device="cpu"), 0, channels_last=channels_last)
        network = FrozenNetwork(nn.Flatten(), {LOGITS: "key"}, engine, cache)
        for again in range(2):
            look = network.look([LOGITS], split="train", images=count, view=view)
            assert bool(look.missing) == (again == 0)
            look(torch.arange(count), torch.ones(count, 1, 2, 2))
            look.close()
