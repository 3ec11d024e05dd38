"""The search of gates on networks of many families, and on teachers that have learned nothing."""

import json
import logging

import pytest

import kdtool

SEARCH = {
    "subset": 0.2,
    "device": "cpu",
    "precision": "fp32",
    "epochs": 0,
    "search_epochs": 3,
    "round_to": 4,
    "exporter": {"name": "onnx", "latency": False},
}

# A network of each family, and the side of its images in pixels.
FAMILIES = {
    "kdtool:lenet-5": 28,
    "kdtool:resnet20": 32,
    "kdtool:vgg8": 32,
    "kdtool:densenet-bc-100-12": 16,
    "timm:resnext26ts": 32,
    "timm:regnetx_002": 32,
    "timm:mobilenetv3_small_050": 32,
    "timm:test_efficientnet": 32,
    "timm:test_convnext": 32,
    "timm:test_vit": 32,
    "torchvision:shufflenet_v2_x0_5": 32,
}


def refuse(name):
    raise AssertionError(name)


def search(name, size, tmp_path, epochs, **options):
    """Build a teacher, search it, and return its checkpoint and the student's."""
    kwargs = {"data": "digits", "in_channels": 1, "image_size": size, "subset": 0.2, "device": "cpu"}
    teacher = kdtool.teacher(name, output=tmp_path / "t.pt", epochs=epochs, **kwargs)
    student = kdtool.distill(tmp_path / "t.pt", "gated", output=tmp_path / "s.pt", **{**SEARCH, **options})
    for line in (tmp_path / "s.run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    return teacher.history[-1]["size"], student.history[-1]["size"]


@pytest.mark.parametrize("epochs", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_teacher_that_has_learned_nothing_is_searched(tmp_path, epochs):
    before, after = search("kdtool:lenet-5", 28, tmp_path, epochs, target_macs="0.5x")
    assert 0.98 * 0.5 <= after["macs"] / before["macs"] <= 0.5


@pytest.mark.slow
def test_the_first_steps_of_a_teacher_without_training_stay_finite(tmp_path):
    before, after = search("timm:test_resnet", 32, tmp_path, 0, target_params="0.6x", search_epochs=1, subset=0.1)
    assert 0.98 * 0.6 <= after["parameters"] / before["parameters"] <= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("count", ["macs", "params"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_budget_is_met_from_above(tmp_path, name, count, caplog):
    with caplog.at_level(logging.WARNING, "kdtool"):
        before, after = search(name, FAMILIES[name], tmp_path, 1, **{f"target_{count}": "0.5x"})
    key = "macs" if count == "macs" else "parameters"
    assert 0.98 * 0.5 <= after[key] / before[key] <= 0.5, caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kdtool:resnet20", "timm:regnetx_002"])
def test_a_latency_is_met_from_above(tmp_path, name):
    options = {"exporter": "onnx", "latency_every": 1, "round_to": 1}
    search(name, FAMILIES[name], tmp_path, 1, target_latency="0.6x", **options)
    # The student is measured anew at the end; on a machine with other work two measurements differ by some percent.
    assert 0.6 * 0.9 <= kdtool.load(tmp_path / "s.pt").history[-1]["rows"][-1]["latency_ratio"] <= 0.6 * 1.05


@pytest.mark.slow
def test_a_latency_that_no_width_changes_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("kdtool.exporting.baseline.RelativeLatency.of", lambda self, network: 0.9)
    options = {"exporter": "onnx", "latency_every": 1, "search_epochs": 1, "subset": 0.1}
    search("kdtool:lenet-5", 28, tmp_path, 0, target_latency="0.6x", **options)
    assert (
        "--target-latency 0.6x was not met: with the channels that have to stay, the student takes 0.90x" in caplog.text
    )


@pytest.mark.slow
def test_a_latency_that_is_not_in_the_widths_is_said(tmp_path, caplog):
    # Of so small images a ShuffleNet with 3 % of the MACs takes half to nine tenths of the time, by the processor: its
    # layers are many and small.
    name = "torchvision:shufflenet_v2_x0_5"
    options = {"exporter": "onnx", "latency_every": 1, "round_to": 1, "search_epochs": 1, "subset": 0.05}
    search(name, FAMILIES[name], tmp_path, 0, target_latency="0.2x", **options)
    assert kdtool.load(tmp_path / "s.pt").history[-1]["rows"][-1]["latency_ratio"] > 0.2 * 1.03
    assert "--target-latency 0.2x was not met: with the channels that have to stay, the student takes 0." in caplog.text
