import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdtool import Error, UsageError
from kdtool.exporting import latency
from kdtool.exporting.latency import LEAST_PAIRS, measure_latency


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
    assert found["provider"] == "cpu"


def test_alone_there_is_no_ratio():
    found = measure_latency(model(2), pairs=6)
    assert [found[name] for name in ("teacher", "ratio", "ratio_low", "ratio_high")] == [None] * 4
    assert found["student"]["p50_ms"] > 0
    assert found["noise"] > 0


def test_more_threads_are_timed_by_the_wall():
    found = measure_latency(model(2), model(2), pairs=1, threads=2)
    assert (found["clock"], found["threads"], found["pairs"]) == ("wall", 2, 1)


def test_the_ratio_is_that_of_the_clock_that_is_told(monkeypatch):
    class Told:
        """Samples that are what a call returns: its CPU time and wall time in nanoseconds."""

        def __init__(self, call, repeats):
            self.call, self.repeats = call, 1

        def __call__(self):
            return self.call()

    monkeypatch.setattr(latency, "Sampler", Told)
    monkeypatch.setattr(latency, "warm_up", lambda call, seconds: 1e-3)
    calls = {"student": lambda: (1e6, 9e6), "again": lambda: (1e6, 9e6), "teacher": lambda: (2e6, 3e6)}
    cpu, wall = (latency.measure_calls(**calls, pairs=6, thread_clock=clock) for clock in (True, False))
    assert (cpu["ratio"], wall["ratio"]) == (0.5, 3.0)
    assert (cpu["student"]["p50_ms"], wall["student"]["p50_ms"]) == (9.0, 9.0)
    assert (cpu["cpu_ms"], wall["cpu_ms"]) == (1.0, None)


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


class FakeSession:
    """A session that claims to run on another provider than the CPU, and runs on the CPU."""

    def __init__(self, session, providers):
        self.session, self.providers = session, providers
        self.run, self.get_inputs, self.get_outputs = session.run, session.get_inputs, session.get_outputs

    def get_providers(self):
        return self.providers


@pytest.fixture
def openvino(monkeypatch):
    """An onnxruntime that has OpenVINO; the list that is returned holds the providers of its sessions."""
    real, asked, got = onnxruntime.InferenceSession, [], ["OpenVINOExecutionProvider", "CPUExecutionProvider"]

    def session(source, options, providers):
        asked.extend(providers)
        return FakeSession(real(source, options, providers=["CPUExecutionProvider"]), got)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["OpenVINOExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return asked, got


def test_another_provider_is_timed_by_the_wall(openvino):
    found = measure_latency(model(2), model(2), pairs=1, provider="openvino", threads=1)
    assert (found["provider"], found["clock"]) == ("openvino", "wall")
    assert {*map(str, openvino[0])} == {str(("OpenVINOExecutionProvider", {"num_of_threads": "1"}))}


def test_a_provider_that_falls_back_to_the_cpu_is_refused(openvino):
    openvino[1].remove("OpenVINOExecutionProvider")
    with pytest.raises(Error, match=r"^--provider openvino: onnxruntime cannot use it here and would run on the CPU"):
        measure_latency(model(2), provider="openvino")


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        (
            "cuda",
            r"^--provider cuda: onnxruntime \S+ has no such provider here \(it has: cpu\); install onnxruntime-gpu in",
        ),
        (
            "gpu",
            r"^--provider gpu: there is none of that name; the providers are cpu, cuda, tensorrt, openvino, coreml",
        ),
    ],
)
def test_a_provider_that_is_not_installed(monkeypatch, provider, message):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match=message):
        measure_latency(model(2), provider=provider)


def test_a_model_of_one_batch_size():
    found = measure_latency(model(2, size=(4, 192)), pairs=1, batch=4)
    assert found["batch"] == 4
    with pytest.raises(Error, match=r"^the model takes batches of 4 images only; measure it with --batch 4$"):
        measure_latency(model(2, size=(4, 192)), pairs=1)
