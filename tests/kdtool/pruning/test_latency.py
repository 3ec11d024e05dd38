"""The search for a fraction of the latency, with a simulated clock; and once with real measurements."""

from __future__ import annotations

import pytest
import torch

import kdtool
from kdtool.exporting import baseline
from kdtool.exporting.baseline import Baseline, RelativeLatency
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.plugins.registry import make
from kdtool.pruning.latency import remove_latency
from kdtool_pruners.filter_l1 import filter_norms


@pytest.fixture
def network():
    shape = NetworkOptions(classes=10, in_channels=1, image_size=28)
    return create("kdtool:lenet-5", options=shape, data=None, seed=0)


@pytest.fixture
def clock(network, monkeypatch):
    """Simulate a latency that is the square root of the MACs: half of the latency is a quarter of the MACs."""

    def share(latency, smaller):
        return (measure(smaller)["macs"] / measure(latency.whole)["macs"]) ** 0.5

    monkeypatch.setattr(RelativeLatency, "of", share)


def test_it_is_looked_for_until_the_time_fits(network, clock):
    removal = remove_latency(network, ratio=0.5, importance=filter_norms, round_to=1)
    assert removal.of == "latency"
    assert removal.removed == pytest.approx(0.5, abs=0.01)
    assert measure(removal.network)["macs"] / measure(network)["macs"] == pytest.approx(0.25, abs=0.02)


def test_what_cannot_be_reached_is_capped(network, clock):
    removal = remove_latency(network, ratio=0.97, importance=filter_norms, round_to=4)
    assert removal.removed < 0.97
    assert removal.capped


def test_what_has_no_channels_to_lose_is_refused(network, clock):
    with pytest.raises(kdtool.Error, match="kdtool:lenet-5: .*no layer may be narrower with --round-to 1000"):
        remove_latency(network, ratio=0.5, importance=filter_norms, round_to=1000)


@pytest.mark.slow
def test_the_time_of_a_real_network_falls(tmp_path):
    teacher = kdtool.teacher("torchvision:resnet18", classes=10, image_size=64, output=tmp_path / "teacher.pt")
    made = kdtool.prune(teacher, "filter-l1", ratio=0.5, of="latency", epochs=0, output=tmp_path / "fast.pt")
    reached = made.history[-1]["reached"]
    assert reached["of"] == "latency"
    assert 0.3 < reached["removed"] < 0.7
    with torch.no_grad():
        assert made.module(torch.rand(1, 3, 64, 64)).shape == (1, 10)


def test_the_device_is_that_of_the_exporter(network, monkeypatch):
    opened = []

    class Fake(Baseline):
        def __init__(self, path, **device):
            opened.append(device)

        def ratio(self, path, **_):
            return 0.5

    monkeypatch.setattr(baseline, "Baseline", Fake)
    exporter = make("exporters", "onnx", threads=2, batch=4)
    remove_latency(network, ratio=0.5, exporter=exporter, importance=filter_norms, round_to=1)
    assert opened == [{"provider": "cpu", "threads": 2, "batch": 4}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "qnn"}, "--provider qnn: onnxruntime .* has no such provider here"),
        ({"latency_from": "there.json"}, "--exporter-latency-from: the networks that are measured are made while"),
    ],
)
@pytest.mark.parametrize("command", ["prune", "gated"])
def test_a_device_that_is_not_here_is_refused_before_any_training(tmp_path, teacher_path, options, message, command):
    told = {"exporter": {"name": "onnx", **options}, "round_to": 1, "output": tmp_path / "p.pt"}
    of, method = {"prune": ("of", "filter-l1"), "gated": ("target_latency", "gated")}[command]
    told[of] = {"of": "latency", "target_latency": "0.5x"}[of]
    work = {"prune": kdtool.prune, "gated": kdtool.distill}[command]
    with pytest.raises(kdtool.UsageError, match=message):
        work(teacher_path, method, **told)
    assert not [*tmp_path.iterdir()]


def test_an_exporter_belongs_to_a_latency(tmp_path, teacher_path):
    with pytest.raises(kdtool.UsageError, match="--exporter: says how a latency is measured; add --of latency"):
        kdtool.prune(teacher_path, "filter-l1", exporter="onnx", output=tmp_path / "p.pt")
