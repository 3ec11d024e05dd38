"""Networks of other conventions: the conversion by hand, what keeps it, and what it is not in."""

import copy
import dataclasses
import sys

import pytest
import torch
from torch import nn

import kdtool
from kdtool.features.segments import Segment, segments
from kdtool.features.taps import stage_taps
from kdtool.models.architecture import Architecture, Network
from kdtool.models.checkpoint import Checkpoint, fingerprint, read
from kdtool.models.conversion import (
    Convention,
    Conversion,
    behaviour,
    conversion_of,
    converted,
    described,
    digest,
    expected_by,
    plain,
    seen_in,
)
from kdtool.models.options import NetworkOptions
from kdtool.models.reinit import reinitialize
from kdtool.models.sources import create
from kdtool.surgery.gates import gate_channels
from kdtool.surgery.refiner import refined

OWN = Convention((0.1, 0.2), (1.0, 0.5), ("c", "a", "b"))
RUN = Convention((0.5, 0.4), (0.2, 0.3), ("a", "b", "c"))


def network(name="timm:test_resnet", classes=3, channels=2, size=16, seed=0):
    options = NetworkOptions(classes=classes, in_channels=channels, image_size=size)
    return create(name, options=options, data=None, seed=seed)


def test_images_and_logits_by_hand():
    conversion = Conversion(OWN, RUN)
    pixels = torch.rand(2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = torch.stack([(pixels[:, 0] - 0.5) / 0.2, (pixels[:, 1] - 0.4) / 0.3], dim=1)
    own = torch.stack([pixels[:, 0] - 0.1, (pixels[:, 1] - 0.2) / 0.5], dim=1)
    torch.testing.assert_close(conversion.images(images), own, rtol=1e-12, atol=1e-12)
    # The network answers in the order c, a, b; the run's order is a, b, c.
    assert conversion.logits(torch.tensor([[3.0, 1.0, 2.0]])).tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("changed", [{"mean": RUN.mean, "std": RUN.std}, {"classes": RUN.classes}])
def test_what_is_alike_is_left_alone(changed):
    plain_network = network()
    own = dataclasses.replace(OWN, **changed)
    images = torch.randn(2, 2, 16, 16)
    conversion = Conversion(own, RUN)
    with torch.no_grad():
        inputs = images if "mean" in changed else conversion.images(images)
        logits = plain_network.module(inputs)
        expected = logits if "classes" in changed else logits[:, [1, 2, 0]]
        assert torch.equal(converted(plain_network, conversion).module(images), expected)
    assert converted(plain_network, Conversion(RUN, RUN)) is plain_network


def test_copies_keep_it_and_the_original_does_not_get_it():
    original = network()
    images = torch.randn(2, 2, 16, 16)
    with torch.no_grad():
        before = original.module(images)
        seen = converted(original, Conversion(OWN, RUN))
        assert torch.equal(original.module(images), before)
        again = copy.deepcopy(copy.deepcopy(seen.module))(images)
        assert torch.equal(again, seen.module(images))
        assert torch.equal(again, original.module(Conversion(OWN, RUN).images(images))[:, [1, 2, 0]])
        assert torch.equal(plain(seen).module(images), before)
    assert list(seen.module.state_dict()) == list(original.module.state_dict())
    assert fingerprint(seen.module.state_dict()) == fingerprint(original.module.state_dict())
    assert converted(seen, Conversion(OWN, RUN)) is seen
    twice = converted(seen, Conversion(dataclasses.replace(OWN, mean=(0.0, 0.0)), RUN))
    assert conversion_of(twice.module).own.mean == (0.0, 0.0)
    assert len(twice.module._forward_pre_hooks) == len(twice.module._forward_hooks) == 1


def test_a_digest_tells_conversions_apart():
    original = network()
    others = [dataclasses.replace(OWN, std=(1.0, 0.6)), dataclasses.replace(OWN, classes=("b", "c", "a"))]
    texts = {digest(converted(original, Conversion(own, RUN)).module) for own in (RUN, OWN, *others)}
    assert len(texts) == 4
    assert digest(original.module) == fingerprint(original.module.state_dict())
    members = [nn.ModuleList([converted(original, Conversion(own, RUN)).module]) for own in (OWN, *others)]
    assert len({digest(member) for member in members}) == 3


def test_a_network_that_is_cut_is_converted_at_its_ends_alone():
    original = network()
    seen = converted(original, Conversion(OWN, RUN))
    taps = stage_taps(seen)
    assert taps == stage_taps(original)
    images = torch.randn(2, 2, 16, 16)
    own_images = Conversion(OWN, RUN).images(images)
    with torch.no_grad():
        _, expected = Segment().run(original.module, own_images, taps)
        _, maps = Segment().run(seen.module, images, taps)
        for tap in taps:
            assert torch.equal(maps[tap.path], expected[tap.path])
        first, *_, last = segments(seen, taps[-1:])
        from_tap, _ = last.run(seen.module, maps[taps[-1].path])
        torch.testing.assert_close(from_tap, original.module(own_images)[:, [1, 2, 0]])
        torch.testing.assert_close(first.run(seen.module, images)[0], expected[taps[-1].path])


def test_what_is_made_of_a_network_is_not_converted():
    seen = converted(network("kdtool:lenet-5", size=28), Conversion(OWN, RUN))
    halve = kdtool.make("refiners", "halve")
    for made in (reinitialize(seen), refined(halve, seen, 0)):
        assert conversion_of(made.module) is None
    assert conversion_of(seen.module) is not None
    with pytest.raises(kdtool.UsageError, match="--mean, --std: the student is searched in kdtool:lenet-5"):
        gate_channels(seen)


def test_a_checkpoint_is_seen_in_the_convention_of_a_run(digits):
    reverse = dataclasses.replace(digits.spec, classes=digits.spec.classes[::-1], mean=(0.5,))
    original = network("kdtool:lenet-5", classes=10, channels=1, size=8)
    seen = seen_in(Checkpoint(original, reverse), digits.spec)
    assert seen.data == reverse
    assert described(seen.network, digits.spec) == reverse
    assert described(original, digits.spec) == digits.spec
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        shifted = (images * digits.spec.std[0] + digits.spec.mean[0] - 0.5) / digits.spec.std[0]
        torch.testing.assert_close(seen.module(images), original.module(shifted).flip(1))
    assert seen_in(Checkpoint(original, digits.spec), digits.spec).network is original
    assert seen_in(Checkpoint(original), digits.spec).network is original
    odd = dataclasses.replace(digits.spec, classes=("zero", *digits.spec.classes[1:]))
    with pytest.raises(kdtool.Error, match=r"its classes are not those of digits: it lacks '0'.* it adds 'zero'"):
        seen_in(Checkpoint(original, odd), digits.spec)


class Answer(nn.Module):
    """A network of one layer that calls a function of its module, as the code of a notebook does."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        """Return logits [images, 3]."""
        return activation(self.fc(images.flatten(1)))


def activation(logits):
    return logits.clamp(-5, 5)


def test_networks_that_compute_differently_behave_differently(monkeypatch):
    torch.manual_seed(0)
    architecture = Architecture("own", "answer", {"classes": 3, "in_channels": 1, "image_size": 2})
    module = Answer()
    first = behaviour(Network(architecture, module))
    assert behaviour(Network(architecture, copy.deepcopy(module))) == first
    found = {first}
    with monkeypatch.context() as mended:
        mended.setattr(sys.modules[__name__], "activation", lambda logits: logits)  # only large numbers tell
        found.add(behaviour(Network(architecture, module)))
        mended.setattr(sys.modules[__name__], "activation", torch.tanh)
        found.add(behaviour(Network(architecture, module)))
        mended.setattr(sys.modules[__name__], "activation", torch.linalg.inv)  # does not run
        found.add(behaviour(Network(architecture, module)))
    with torch.no_grad():
        module.fc.bias.add_(1)
    found.add(behaviour(Network(architecture, module)))
    assert len(found) == 5


def test_pretrained_weights_expect_what_their_source_says(digits, tmp_path):
    weights = tmp_path / "w.pth"
    torch.save(network("kdtool:lenet-5", classes=10, channels=1, size=28).module.state_dict(), weights)
    made = kdtool.teacher(
        "kdtool:lenet-5", weights=weights, classes=10, in_channels=1, image_size=28, output=tmp_path / "t.pt"
    )
    expected = expected_by(made)
    assert len(expected["mean"]) == len(expected["std"]) == 1
    spec = dataclasses.replace(digits.spec, image_size=28)
    assert conversion_of(seen_in(read(made.path), spec).module).own.mean == expected["mean"]
    assert expected_by(Checkpoint(made.network)) == {}
