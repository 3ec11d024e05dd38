"""Samples of durations, and the ratio of two series of them."""

import numpy as np
import pytest

from kdtool.exporting import samples
from kdtool.exporting.samples import Sampler, compare, paired, percentiles, repeats, warm_up


def test_pairs_alternate():
    order = []

    def named(name, cpu):
        def take():
            order.append(name)
            return cpu, 10 * cpu

        return take

    first, second = paired(named("a", 1.0), named("b", 2.0), 3, lambda: order.append(" "))
    assert "".join(order) == "ab ba ab "
    assert first.tolist() == [[1, 10]] * 3
    assert second.tolist() == [[2, 20]] * 3


def test_the_ratio_follows_the_pairs_through_a_slow_spell():
    # The machine is five times slower for half of the time, and for one pair only beside the first network.
    spell = np.array([1.0] * 10 + [5.0] * 11)
    first, second = 3 * spell, 4 * spell
    first[4] *= 7
    ratio, low, high = compare(first, second)
    assert ratio == low == high == pytest.approx(0.75)


def test_the_interval_is_of_the_size_it_should_be():
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(100):
        first, second = 2 * rng.lognormal(0, 0.05, 50), rng.lognormal(0, 0.05, 50)
        _, low, high = compare(first, second, seed=seed, resamples=400)
        inside += low <= 2 <= high
    assert 87 <= inside <= 100
    # 1.25 * sigma / sqrt(n) is the standard error of a median; here sigma of the ratio is 2 * 0.05 * sqrt(2).
    assert (high - low) / 2 == pytest.approx(1.96 * 1.25 * 2 * 0.05 * 2**0.5 / 50**0.5, rel=0.5)


def test_the_interval_leaves_out_5_percent_of_the_resampled_medians():
    ratios = np.random.default_rng(0).lognormal(0, 0.1, 51)
    rows = np.random.default_rng(0).integers(51, size=(2000, 51))
    medians = np.median(ratios[rows], axis=1)
    _, low, high = compare(ratios, np.ones(51))
    assert (medians < low).mean() == pytest.approx(0.025, abs=0.01)
    assert (medians > high).mean() == pytest.approx(0.025, abs=0.01)


def test_one_seed_gives_one_interval():
    times = np.random.default_rng(0).lognormal(0, 0.1, (2, 20))
    assert compare(*times, seed=3) == compare(*times, seed=3)
    assert compare(*times, seed=3, resamples=9) != compare(*times, seed=4, resamples=9)


@pytest.mark.parametrize(("seconds", "calls"), [(20e-6, 250), (3e-3, 2), (5e-3, 1), (2.0, 1)])
def test_a_sample_lasts_five_milliseconds(seconds, calls):
    assert repeats(seconds) == calls


def test_a_sample_is_told_per_call(monkeypatch):
    calls, walls, cpus = [], iter([1000, 1600]), iter([0, 300])
    monkeypatch.setattr(samples.time, "perf_counter_ns", lambda: next(walls))
    monkeypatch.setattr(samples.time, "thread_time_ns", lambda: next(cpus))
    assert Sampler(lambda: calls.append(1), 3)() == (100, 200)
    assert len(calls) == 4


def test_warming_up_leaves_out_the_first_call(monkeypatch):
    clock = iter([0, 9, 10, 13, 20, 22] + [30, 40] * 20)
    monkeypatch.setattr(samples.time, "perf_counter", lambda: next(clock))
    assert warm_up(lambda: None, seconds=100) == 2
    clock = iter([0, 9, 10, 13])
    assert warm_up(lambda: None, seconds=1) == 3


def test_percentiles():
    assert percentiles(np.arange(11) * 1e6) == {"p50_ms": 5, "p90_ms": 9}
