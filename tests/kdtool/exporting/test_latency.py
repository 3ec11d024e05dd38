import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdtool import Error
from kdtool.exporting import latency
from kdtool.exporting.latency import (
    LEAST_PAIRS,
    Sampler,
    compare,
    measure_latency,
    paired,
    percentiles,
    repeats,
    warm_up,
)


def model(layers, width=192, size=("batch", 192)):
    """The bytes of an ONNX model of so many matrix products."""
    weight = numpy_helper.from_array(np.eye(width, dtype=np.float32), "weight")
    names = ["images", *(f"hidden{i}" for i in range(layers - 1)), "logits"]
    nodes = [helper.make_node("MatMul", [a, "weight"], [b]) for a, b in itertools.pairwise(names)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("images", "logits")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def test_a_model_with_more_work_takes_longer(tmp_path):
    small = tmp_path / "small.onnx"
    small.write_bytes(model(2))
    found = measure_latency(small, model(16), pairs=8, batch=32)
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    assert found["ratio"] < 0.5
    assert found["student"]["p50_ms"] < found["teacher"]["p50_ms"]
    assert 0 < found["student"]["p50_ms"] <= found["student"]["p90_ms"]
    assert found["noise"] > 0
    assert (found["clock"], found["threads"], found["pairs"], found["batch"]) == ("thread-cpu", 1, 8, 32)
    assert found["cpu"]


def test_alone_there_is_no_ratio():
    found = measure_latency(model(2), pairs=6)
    assert [found[name] for name in ("teacher", "ratio", "ratio_low", "ratio_high")] == [None] * 4
    assert found["student"]["p50_ms"] > 0
    assert found["noise"] > 0


def test_more_threads_are_timed_by_the_wall():
    found = measure_latency(model(2), model(2), pairs=1, threads=2)
    assert (found["clock"], found["threads"], found["pairs"]) == ("wall", 2, 1)


@pytest.mark.parametrize(("asked", "measured"), [(50, LEAST_PAIRS), (3, 3)])
def test_pairs_are_cut_where_time_is_short(asked, measured):
    assert measure_latency(model(2), model(2), pairs=asked, seconds=1e-3)["pairs"] == measured


@pytest.mark.parametrize("broken", [b"no model", b"", "no/such/file.onnx"])
def test_what_onnxruntime_cannot_load(broken):
    with pytest.raises(Error, match=r"onnxruntime [\d.]+ cannot run the model: [^\n]+$"):
        measure_latency(broken)


def test_an_input_of_unknown_size():
    with pytest.raises(Error, match=r"images tensor\(float\) \['batch', 'size'\].*one fixed size$"):
        measure_latency(model(1, size=("batch", "size")))


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


def test_one_seed_gives_one_interval():
    times = np.random.default_rng(0).lognormal(0, 0.1, (2, 20))
    assert compare(*times, seed=3) == compare(*times, seed=3)
    assert compare(*times, seed=3, resamples=9) != compare(*times, seed=4, resamples=9)


@pytest.mark.parametrize(("seconds", "calls"), [(20e-6, 250), (3e-3, 2), (5e-3, 1), (2.0, 1)])
def test_a_sample_lasts_five_milliseconds(seconds, calls):
    assert repeats(seconds) == calls


def test_a_sample_is_told_per_call(monkeypatch):
    calls, walls, cpus = [], iter([1000, 1600]), iter([0, 300])
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: next(walls))
    monkeypatch.setattr(latency.time, "thread_time_ns", lambda: next(cpus))
    assert Sampler(lambda: calls.append(1), 3)() == (100, 200)
    assert len(calls) == 4


def test_warming_up_leaves_out_the_first_call(monkeypatch):
    clock = iter([0, 9, 10, 13, 20, 22] + [30, 40] * 20)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    assert warm_up(lambda: None, seconds=100) == 2
    clock = iter([0, 9, 10, 13])
    assert warm_up(lambda: None, seconds=1) == 3


def test_percentiles():
    assert percentiles(np.arange(11) * 1e6) == {"p50_ms": 5, "p90_ms": 9}
