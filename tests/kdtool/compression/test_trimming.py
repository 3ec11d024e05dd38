"""Candidates between two steps of a coarse ladder, within five per cent below the budget."""

from dataclasses import replace

import pytest

from kdtool.compression.candidates import FLOAT, Ladder
from kdtool.compression.costs import Cost, Limits
from kdtool.compression.sizing import size
from kdtool.compression.trimming import trim
from kdtool.compression.ways import Way
from kdtool.models.architecture import Network
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.plugins.registry import make as made, method_class
from kdtool.surgery.refiner import refined


@pytest.fixture(scope="module")
def network():
    options = NetworkOptions(classes=10, in_channels=1, image_size=8)
    return create("kdtool:resnet20", options=options, data=None)


def macs_of(network):
    return measure(network)["macs"]


def costs(network, limits):
    """The costs that depend on the structure alone; a file in float32 has about four bytes for each parameter."""
    counted = measure(network)
    return Cost(counted["macs"], counted["parameters"], 4 * counted["parameters"])


def sized(network, method, steps, limits):
    load = limits.load(costs(network, limits))
    return size(
        steps, lambda options: refined(made("refiners", method, **options), network, 0), costs, limits, whole=load
    )


HALVED = [{"ratio": ratio, "round_to": 8} for ratio in (0.75, 0.5, 0.25)]
BLOCKS = [{"blocks": blocks} for blocks in range(8, 2, -1)]


@pytest.mark.parametrize(
    ("method", "steps", "share", "limit"),
    [
        ("halve", HALVED, 0.4, "file_bytes"),
        pytest.param("halve", HALVED, 0.4, "macs", marks=pytest.mark.slow),
        pytest.param("depth", BLOCKS, 0.5, "macs", marks=pytest.mark.slow),
    ],
)
def test_a_coarse_ladder_comes_within_five_per_cent_of_the_budget(network, method, steps, share, limit):
    whole = costs(network, None)
    limits = Limits(**{limit: share * getattr(whole, limit)})
    coarse = sized(network, method, steps, limits)
    assert coarse.best.load < 0.95
    trimmed, part = trim(coarse, costs, limits)
    assert trim(coarse, costs, limits, close=coarse.best.load) is None
    assert 0.95 <= trimmed.load <= 1
    # The weights of the ladder are fresh, so that nothing says of which channels of the network these consist.
    assert type(trimmed.network) is Network
    # It has learnt nothing of its load from us: counted anew, and run.
    assert getattr(costs(trimmed.network, limits), limit) <= share * getattr(whole, limit)
    assert macs_of(trimmed.network) == pytest.approx((1 - part) * macs_of(coarse.above.network))
    assert macs_of(trimmed.network) > macs_of(coarse.best.network)


def test_a_ladder_that_ends_just_above_the_budget_is_trimmed_to_it(network):
    whole, least = costs(network, None), refined(made("refiners", "depth", blocks=3), network, 0)
    limits = Limits(macs=0.85 * macs_of(least))
    ends = sized(network, "depth", BLOCKS, limits)
    assert ends.best is None
    trimmed, _ = trim(ends, costs, limits)
    assert 0.95 <= trimmed.load <= 1
    assert trimmed.options == {"blocks": 3}
    assert whole.macs > macs_of(least) > macs_of(trimmed.network)


def test_a_cost_that_jumps_is_not_measured_in_between(network):
    def jumping(made, limits):
        return Cost(macs_of(made), 1, None, 1.2 if macs_of(made) > 0.5 * macs_of(network) else 0.4)

    def unasked(made, limits):
        raise AssertionError("it was measured")

    halved = size(
        [{"ratio": 0.75}, {"ratio": 0.65}],
        lambda options: refined(made("refiners", "halve", **options), network, 0),
        jumping,
        Limits(latency_ratio=1.0),
        whole=1.5,
    )
    assert (halved.best.load, halved.above.load) == (0.4, 1.2)
    assert trim(halved, unasked, Limits(latency_ratio=1.0)) is None


def test_what_is_near_enough_or_too_far_is_not_trimmed(network):
    halved = refined(made("refiners", "halve"), network, 0)
    limits = Limits(macs=macs_of(halved) / 0.96)
    fine = sized(network, "halve", [{"ratio": 0.75}, {"ratio": 0.5}], limits)
    assert fine.best.load == pytest.approx(0.96)
    assert trim(fine, costs, limits) is None
    # A third of the smallest step's MACs at most: what needs more is another method's to make.
    far = sized(network, "depth", BLOCKS, Limits(macs=0.05 * macs_of(network)))
    assert far.best is None
    assert trim(far, costs, Limits(macs=0.05 * macs_of(network))) is None


class Counted:
    """Measures costs that depend on the structure alone."""

    def __init__(self):
        self.seen = []

    def cost(self, network, limits=None):
        self.seen.append(network)
        return costs(network, limits)


def family_of(network, share):
    """Return a way through the smaller members of a network's family, its meter and limits of MACs."""
    like = method_class("refiners", "like")
    (steps,) = like.ladders(network)
    ladder = Ladder("refiners", "like", steps, lambda options: refined(like(**options), network, 0), False, False)
    meter, whole = Counted(), costs(network, None)
    return Way(ladder, FLOAT, meter, whole), meter, Limits(macs=share * whole.macs)


def test_between_two_members_of_a_family_the_larger_one_is_narrowed_beside_the_smaller():
    options = NetworkOptions(classes=10, in_channels=1, image_size=8)
    network = create("kdtool:resnet44", options=options, data=None)
    way, _, limits = family_of(network, 0.6)
    found = way.sized(limits)
    member = way.candidate(found)
    assert member.options == {"arch": "kdtool:resnet20"}
    assert limits.load(member.cost) < 0.8
    assert not member.may_shrink
    narrowing, between = way.between(found, limits)
    narrowed = narrowing.candidate(between)
    assert narrowed.options == {"arch": "kdtool:resnet32"}
    assert 0.95 <= limits.load(narrowed.cost) <= 1
    assert narrowed.trimmed == pytest.approx(1 - narrowed.cost.macs / macs_of(way.ladder.make(narrowed.options)))
    assert narrowed.may_shrink
    assert narrowed.name != member.name
    # Sized for less, it stays a network between the two.
    smaller = narrowing.candidate(narrowing.sized(replace(limits, macs=0.9 * limits.macs)))
    assert smaller.options == {"arch": "kdtool:resnet32"}
    assert smaller.cost.macs <= 0.9 * limits.macs


def test_a_member_near_the_budget_has_nothing_beside_it(network):
    way, meter, limits = family_of(network, 0.5)
    assert way.between(way.sized(limits), limits) is None  # the smallest member has no neighbour
    options = NetworkOptions(classes=10, in_channels=1, image_size=8)
    largest = create("kdtool:resnet44", options=options, data=None)
    share = 1.01 * macs_of(create("kdtool:resnet20", options=options, data=None)) / macs_of(largest)
    way, meter, limits = family_of(largest, share)
    found = way.sized(limits)
    before = len(meter.seen)
    assert way.between(found, limits) is None
    assert len(meter.seen) == before
