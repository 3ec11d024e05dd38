"""Ranges and batch-norms that are held at the end of a training in 8 bits."""

import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool import Network
from kdtool.models.architecture import Architecture, build
from kdtool.models.quantisation.fake import calibrate, quantised, quantiser_of
from kdtool.models.quantisation.places import find_places
from kdtool.training.epochs.held import HoldRanges, holding, plain_images
from kdtool.training.zeros import HoldZeros


class Images:
    """A split of random images that knows which of them were asked for."""

    def __init__(self, count):
        self.images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.images)

    def batches(self, batch_size, *, order):
        for part in order.split(batch_size):
            yield part, self.images[part], torch.zeros(len(part), dtype=torch.int64)


@pytest.fixture
def module():
    options = {"classes": 10, "in_channels": 1, "image_size": 8, "stem": "default"}
    architecture = Architecture(source="kdtool", name="resnet20", options=options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = Network(architecture, build(architecture))
    made = quantised(plain, find_places(plain)).module
    calibrate(made, [torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))])
    return made


def statistics(module):
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    return torch.cat([tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)])


def test_ranges_are_found_anew_before_the_last_quarter_and_held(module):
    split, hold = Images(300), HoldRanges(Images(300))
    hold.begin(module, 10, 8)
    module.train()(5 * split.images[:64])
    quantiser, followed = quantiser_of(module), copy.deepcopy(module)
    for epoch in range(1, 6):
        hold.after_epoch(module, epoch)
    assert torch.equal(quantiser.high, quantiser_of(followed).high)
    assert hold.state() == {"held": False}
    hold.after_epoch(module, 6)
    calibrate(followed, plain_images(split))
    assert torch.equal(quantiser.high, quantiser_of(followed).high)
    assert hold.state() == {"held": True}
    # From now on a step in train mode computes what the network will compute, and moves nothing of it.
    before, expected = statistics(module).clone(), module.eval()(split.images[:8])
    assert torch.equal(module.train()(split.images[:8]), expected)
    assert torch.equal(quantiser.low, quantiser_of(followed).low)
    assert torch.equal(statistics(module), before)


def test_a_resumed_phase_goes_on_with_held_ranges_and_another_phase_without(module):
    hold = HoldRanges(Images(64))
    hold.begin(module, 10, 4)
    hold.load({"held": True})
    assert quantiser_of(module).held
    HoldRanges(Images(64)).begin(module, 10, 4)
    assert not quantiser_of(module).held
    HoldRanges(Images(64)).load({"held": True})  # of a phase that is finished


def test_one_epoch_is_not_held(module):
    hold = HoldRanges(Images(64))
    hold.begin(module, 10, 1)
    before = quantiser_of(module).high.clone()
    hold.after_epoch(module, 1)
    assert not quantiser_of(module).held
    assert torch.equal(quantiser_of(module).high, before)


def test_256_images_of_the_whole_split_set_ranges():
    split = Images(1000)
    batches = list(plain_images(split))
    assert [len(batch) for batch in batches] == [64] * 4
    assert torch.equal(torch.cat(batches)[[0, 1, 255]], split.images[[0, 3, 996]])
    assert sum(len(batch) for batch in plain_images(Images(20))) == 20


def test_networks_in_float_hold_their_zeros_alone(module, digits):
    assert [type(callback) for callback in holding(module, digits, masked=True)] == [HoldZeros, HoldRanges]
    plain = torch.nn.Linear(2, 2)
    assert [type(callback) for callback in holding(plain, digits, masked=True)] == [HoldZeros]
    assert holding(plain, digits, masked=False) == []
