"""Gated search: the budget, the phases, a kill, the ablations, and what is refused."""

import json
from xml.etree import ElementTree

import pytest
import torch

import kdtool
from kdtool.errors import UsageError
from kdtool.exporting.baseline import RelativeLatency
from kdtool.models.checkpoint import read
from kdtool.models.size import measure
from kdtool_distillers.gated import Gated

SHORT = {
    "epochs": 1,
    "subset": 0.3,
    "device": "cpu",
    "precision": "fp32",
    "batch_size": 32,
    "views": 1,
    "exporter": {"name": "onnx", "latency": False},
    "round_to": 1,
    "search_epochs": 4,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("gated") / "teacher.pt"
    kdtool.teacher("kdtool:lenet-5", data="digits", output=path, epochs=4, device="cpu")
    return path


def distil(teacher, output, **options):
    return kdtool.distill(teacher, "gated", output=output, **{**SHORT, "target_macs": "0.5x", **options})


def rows(run, phase="search"):
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in epochs if row["phase"] == phase]


@pytest.mark.parametrize(
    ("flag", "key", "options"),
    [
        ("target_macs", "macs", {"closing": "proximal"}),
        pytest.param("target_params", "parameters", {"closing": "proximal"}, marks=pytest.mark.slow),
        pytest.param("target_macs", "macs", {}, marks=pytest.mark.slow),
        pytest.param("target_params", "parameters", {"cost_weights": False}, marks=pytest.mark.slow),
        pytest.param(
            "target_macs", "macs", {"round_to": 4, "search_loss": "ce", "search_epochs": 1}, marks=pytest.mark.slow
        ),
    ],
)
def test_the_budget_is_met(teacher, tmp_path, flag, key, options):
    student = distil(teacher, tmp_path / "s.pt", **{"target_macs": None, flag: "0.5x", **options})
    entry = student.history[-1]
    whole = kdtool.load(teacher).history[-1]["size"][key]
    assert 0.49 * whole <= entry["size"][key] <= 0.5 * whole
    assert "missed" not in entry["reached"]
    epochs = rows(tmp_path / "s.run")
    assert epochs[-1][key] <= entry["size"][key]
    if "closing" in options:
        assert len(epochs) < 4 or epochs[-1]["open"] < epochs[-2]["open"]
    elif len(epochs) == 4:
        assert epochs[0]["open"] > epochs[1]["open"] > epochs[2]["open"] == epochs[3]["open"]
    assert [row["model"] for row in entry["rows"]] == ["teacher", "searched", "student"]
    again = read(tmp_path / "s.pt")
    images = torch.rand(2, *again.architecture.input)
    with torch.no_grad():
        assert torch.equal(again.module(images), student.module(images))
    for name in ("gates.svg", "search.svg"):
        assert ElementTree.parse(tmp_path / "s.run" / name).getroot().tag.endswith("svg")


def test_the_student_gives_the_outputs_of_the_search(teacher, tmp_path, monkeypatch):
    seen = {}
    fit = kdtool.Run.fit

    def watched(self, name, student, **options):
        seen[name] = student, (done := fit(self, name, student, **options))
        return done

    monkeypatch.setattr(kdtool.Run, "fit", watched)
    distil(teacher, tmp_path / "s.pt")
    gated, start = seen["search"][1].network, seen["distil"][0]
    images = torch.rand(4, *start.architecture.input)
    with torch.no_grad():  # LeNet has no batch-norms to recalibrate
        torch.testing.assert_close(start.module(images), gated.module(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("closing", "epochs"), [pytest.param("proximal", 12, marks=pytest.mark.slow), ("gradual", 3)])
def test_a_cut_search_goes_on_bit_for_bit(teacher, tmp_path, cut_after, closing, epochs):
    long = {"target_macs": "0.2x", "search_epochs": epochs, "closing": closing, "epochs": 0, "subset": 0.15}
    whole = distil(teacher, tmp_path / "whole.pt", **long)
    assert len(rows(tmp_path / "whole.run")) > 2
    with cut_after("search", 2):
        distil(teacher, tmp_path / "cut.pt", **long)
    distil(teacher, tmp_path / "cut.pt", resume=True, **long)
    cut = read(tmp_path / "cut.pt")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, cut.module.state_dict()[name]), name
    assert [row["open"] for row in rows(tmp_path / "cut.run")] == [row["open"] for row in rows(tmp_path / "whole.run")]


@pytest.mark.slow
def test_a_budget_that_is_not_met_is_told_or_forced(teacher, tmp_path, caplog):
    weak = {"closing": "proximal", "gate_penalty": 1e-6, "gate_lr": 1e-3, "search_epochs": 1, "epochs": 0}
    missed = distil(teacher, tmp_path / "missed.pt", force_target=False, **weak)
    assert "--target-macs 0.5x was not met in 1 epochs of search" in caplog.text
    assert "--force-target" in missed.history[-1]["reached"]["missed"]
    forced = distil(teacher, tmp_path / "forced.pt", **weak)
    whole = kdtool.load(teacher).history[-1]["size"]["macs"]
    assert 0.49 * whole <= forced.history[-1]["size"]["macs"] <= 0.5 * whole


@pytest.mark.slow
def test_fresh_weights_are_not_those_that_were_searched(teacher, tmp_path):
    inherited, fresh = (distil(teacher, tmp_path / f"{init}.pt", init=init, epochs=0) for init in ("inherit", "fresh"))
    assert inherited.architecture == fresh.architecture
    assert not torch.equal(inherited.module.conv1.weight, fresh.module.conv1.weight)


@pytest.fixture
def stopwatch(monkeypatch):
    """Report the fraction of the MACs that is left as the latency."""
    monkeypatch.setattr(
        RelativeLatency, "of", lambda self, network: measure(network)["macs"] / measure(self.whole)["macs"]
    )


@pytest.mark.parametrize("force", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_latency_is_measured_between_epochs(teacher, tmp_path, stopwatch, force):
    weak = {"gate_penalty": 1e-6, "gate_lr": 1e-3} if force else {}
    weak["closing"] = "proximal"
    options = {"target_macs": None, "target_latency": "0.6x", "exporter": "onnx", "latency_every": 2, "epochs": 0}
    student = distil(teacher, tmp_path / "s.pt", force_target=force, **options, **weak)
    measured = [row.get("latency_ratio") for row in rows(tmp_path / "s.run")]
    assert [ratio is not None for ratio in measured] == [epoch % 2 == 0 for epoch in range(1, len(measured) + 1)]
    table = student.history[-1]["rows"]
    assert table[0]["latency_ratio"] == 1
    assert 0.57 <= table[-1]["latency_ratio"] <= 0.6
    assert "missed" not in student.history[-1]["reached"]


@pytest.mark.slow
def test_the_latency_is_met_step_by_step(teacher, tmp_path, stopwatch):
    options = {"target_macs": None, "target_latency": "0.6x", "exporter": "onnx", "latency_every": 1, "epochs": 0}
    student = distil(teacher, tmp_path / "s.pt", search_epochs=8, **options)
    epochs = rows(tmp_path / "s.run")
    # In the last two of eight epochs gates rest, and nothing is measured.
    assert ["latency_ratio" in row for row in epochs] == [True] * 6 + [False] * 2
    assert epochs[0]["open"] > epochs[1]["open"] > epochs[2]["open"] >= epochs[5]["open"] == epochs[7]["open"]
    assert 0.57 <= student.history[-1]["rows"][-1]["latency_ratio"] <= 0.6
    assert "missed" not in student.history[-1]["reached"]
    # The latency is that of the MACs, which is what is expected; gates close gradually, and not at the measurement.
    assert epochs[3]["latency_ratio"] < 0.75


class Elsewhere(kdtool.Exporter):
    """Write files that onnxruntime does not run, and report the fraction of the MACs as their latency."""

    suffix = ".there"

    def export(self, network, output, *, metadata, teacher=None, test=None):
        return {"latency": {"ratio": measure(network)["macs"] / measure(teacher)["macs"]}}


def test_an_exporter_of_other_files_measures_the_student_itself(teacher, tmp_path):
    student = distil(teacher, tmp_path / "s.pt", exporter=Elsewhere(), search_epochs=1, epochs=0)
    row = student.history[-1]["rows"][-1]
    assert (
        row["latency_ratio"] == student.history[-1]["size"]["macs"] / kdtool.load(teacher).history[-1]["size"]["macs"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"closing": "gradual", "gate_lr": 0.1}, r"--gate-lr: belongs to --closing proximal"),
        ({"target_macs": "900M"}, r"--target-macs 900M: kdtool:lenet-5 has 417k MACs; give less than that"),
        ({"target_macs": "0.0001x"}, r"--target-macs 0.0001x: with one channel per layer kdtool:lenet-5 still has"),
        ({"target_macs": "0.1x", "round_to": 64}, r"with 64 channels \(--round-to\) per layer"),
        ({"target_params": "0.5x"}, r"--target-macs and --target-params are two budgets; give one"),
        ({"target_macs": None}, r"gated needs a budget: --target-macs 0.3x, --target-params or --target-latency"),
        ({"target_macs": None, "target_latency": "5M"}, r"--target-latency 5M: give a fraction of the teacher's"),
        ({"target_macs": None, "target_latency": "0.5x"}, r"--target-latency: needs an exporter that measures it"),
        ({"precision": "fp16"}, r"--precision fp16: .* use bf16 or fp32"),
        ({"student": "kdtool:lenet-5"}, r"--student: gated searches its student in the teacher"),
        ({"refiner": "halve"}, r"--refiner: gated searches its student in the teacher"),
    ],
)
def test_what_is_refused(teacher, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        distil(teacher, tmp_path / "s.pt", **options)
    assert not (tmp_path / "s.pt").exists()


def test_it_is_a_strategy():
    assert Gated.makes_student
    assert not Gated.fills_role()
    with pytest.raises(UsageError, match="--objective gated: is a strategy and has no loss"):
        kdtool.make("distillers", "ikd", objective="gated")
