"""Latencies as shares of another network's: whose file is timed with whose, and how often a file is made."""

from __future__ import annotations

from functools import partialmethod

import pytest

import kdtool
from kdtool.exporting import baseline
from kdtool.exporting.baseline import Baseline, RelativeLatency
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.plugins.registry import make


@pytest.fixture(scope="module")
def networks():
    shape = NetworkOptions(classes=10, image_size=32)
    return [create(spec, options=shape, data=None, seed=0) for spec in ("kdtool:resnet20", "kdtool:resnet56")]


@pytest.fixture
def briefly(monkeypatch):
    """Measure for a fraction of the time."""
    monkeypatch.setattr(baseline, "WARM_UP_SECONDS", 0.1)
    monkeypatch.setattr(Baseline, "ratio", partialmethod(Baseline.ratio, seconds=0.5))


def test_the_larger_network_takes_more_than_the_smaller_one_and_each_as_much_as_itself(networks, briefly):
    small, large = networks
    latency = RelativeLatency(make("exporters", "onnx"), small)
    itself, more = latency.of(small), latency.of(large)
    assert 0.5 < itself < 2  # other load on the machine affects both
    assert more > 1.5 * itself  # its MACs are 3.1 times as many


def test_the_whole_network_is_exported_once_and_only_when_something_is_measured(monkeypatch, briefly):
    shape = NetworkOptions(classes=10, in_channels=1, image_size=8)
    small, large = (create(spec, options=shape, data=None) for spec in ("kdtool:lenet-5", "kdtool:lenet-300-100"))
    exporter = make("exporters", "onnx")
    drafted = []
    draft = type(exporter).draft
    monkeypatch.setattr(type(exporter), "draft", lambda self, one, path: (drafted.append(one), draft(self, one, path)))
    latency = RelativeLatency(exporter, large)
    assert drafted == []
    latency.of(small)
    latency.of(small)
    assert drafted.count(large) == 1
    assert drafted.count(small) == 2


def test_a_file_that_onnxruntime_cannot_run_is_one_line(networks, tmp_path):
    path = tmp_path / "small.onnx"
    make("exporters", "onnx").draft(networks[0], path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(kdtool.Error, match=r"^onnxruntime cannot run the network: [^\n]*$"):
        Baseline(path)
