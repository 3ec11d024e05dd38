"""The step of a ladder that just meets a budget, found with few measurements."""

import math

import pytest

from kdtool.compression.costs import Cost, Limits
from kdtool.compression.sizing import TRIES, power_of, size
from kdtool.errors import Error

LADDER = [{"ratio": step / 64} for step in range(63, 1, -1)]


def sized(cost_of, limit, *, ladder=LADDER, whole=None, fails=lambda ratio: False, **more):
    """Size a ladder whose "networks" are their ratios; return the result and the ratios that were measured."""
    measured = []

    def make(options):
        if fails(options["ratio"]):
            raise Error("not this one")
        return options["ratio"]

    def measure(ratio, limits):
        measured.append(ratio)
        return Cost(macs=1, parameters=1, file_bytes=1, latency_ratio=cost_of(ratio))

    limits = Limits(latency_ratio=limit)
    whole = 1 / limit if whole is None else whole
    return size(ladder, make, measure, limits, whole=whole, **more), measured


@pytest.mark.parametrize("limit", [0.9, 0.5, 0.35, 0.1, 0.05])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_the_cost_is_within_five_per_cent_below_the_limit_in_a_few_measurements(limit, power):
    sizing, measured = sized(lambda ratio: ratio**power, limit)
    assert sizing.best is not None
    cost = sizing.best.cost.latency_ratio
    assert cost <= limit
    # Neighbours of the ladder differ by more than 5 % where little is left; then it is the last that fits.
    nearest = max(ratio**power for ratio in (step["ratio"] for step in LADDER) if ratio**power <= limit)
    assert cost >= min(0.95 * limit, nearest) - 1e-12
    assert len(measured) <= TRIES


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_ladder_like_one_before_is_sized_by_one_measurement(power):
    first, _ = sized(lambda ratio: ratio**power, 0.3)
    learnt = power_of(first, 1 / 0.3, len(LADDER))
    # The ladder goes from 63/64 to 2/64 of the widths, so that what is left of it is about the ratio.
    assert learnt == pytest.approx(power, rel=0.05)
    second, measured = sized(lambda ratio: ratio**power, 0.5, power=learnt)
    assert len(measured) == 1
    assert 0.95 <= second.best.load <= 1


def test_a_ladder_that_is_near_enough_is_not_measured_further():
    cost = {"cost_of": lambda ratio: ratio**2.2, "limit": 0.5}
    exact, more = sized(**cost)
    near, measured = sized(**cost, close=0.7)
    assert len(measured) == 1 < len(more)
    assert 0.7 <= near.best.load < 0.95 <= exact.best.load <= 1


def test_costs_that_fall_in_steps_end_at_the_largest_that_fits():
    # As onnxruntime's: 16 channels cost the same as 9.
    sizing, _ = sized(lambda ratio: math.ceil(ratio * 4) / 4, 0.5)
    assert sizing.best.cost.latency_ratio == 0.5


def test_a_budget_below_the_last_step_is_not_met_and_the_smallest_is_told():
    sizing, _ = sized(lambda ratio: 0.3 + ratio, 0.2)
    assert sizing.best is None
    assert sizing.smallest.options == LADDER[-1]
    assert sizing.smallest.load == pytest.approx((0.3 + 2 / 64) / 0.2)


def test_steps_that_cannot_be_made_are_passed_over():
    # A pruner of a narrow network removes nothing at small fractions, and a refiner cannot make widths of less than 1.
    ladder = [{"ratio": step / 64} for step in range(63, 0, -1)]
    sizing, _ = sized(lambda ratio: ratio, 0.6, ladder=ladder, fails=lambda ratio: ratio > 0.7 or ratio < 0.2)
    assert sizing.best is not None
    assert 0.57 <= sizing.best.cost.latency_ratio <= 0.6
    nothing, _ = sized(lambda ratio: ratio, 0.6, fails=lambda ratio: True)
    assert nothing.best is nothing.smallest is None
    assert nothing.reasons[0] == "not this one"


def test_a_ladder_of_one_step():
    fits, _ = sized(lambda ratio: 0.4, 0.5, ladder=[{"ratio": 0.5}])
    too_large, _ = sized(lambda ratio: 0.6, 0.5, ladder=[{"ratio": 0.5}])
    assert fits.best.step == 0
    assert too_large.best is None
    assert too_large.smallest.load == pytest.approx(1.2)


def test_the_load_is_that_of_the_limit_that_is_hardest_to_meet():
    cost = Cost(macs=30, parameters=5, file_bytes=200, latency_ratio=0.4)
    assert Limits(latency_ratio=0.8, file_bytes=100, macs=60).load(cost) == 2.0
    assert Limits(latency_ratio=0.5).load(cost) == pytest.approx(0.8)
    assert Limits(macs=60).load(Cost(macs=30, parameters=5)) == 0.5
