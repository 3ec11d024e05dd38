"""Before the full training the best candidates are timed again; the first one within the budget is taken."""

import json
import types

import pytest

from kdtool.compression import finalists
from kdtool.compression.candidates import Candidate
from kdtool.compression.costs import Cost, Limits
from kdtool.compression.proposals import Proposals


@pytest.fixture
def measured(monkeypatch):
    """The names of the networks whose files are timed; a network is its name and its latency."""
    names = []

    class Meter:
        def __init__(self, teacher, options, folder, *, int8, teacher_ms):
            self.exporter = self

        def draft(self, network, path):
            names.append(network[0])
            self.latency = network[1]

        def ratio(self, path, *, seconds, pairs):
            return self.latency

    monkeypatch.setattr(finalists, "Meter", Meter)
    return names


def trials(tmp_path, limits, **latencies):
    """Trials that are done, of candidates that were proposed with 0.49 of the teacher's 4 ms."""
    proposals = Proposals(Cost(100, 10, 1000, 1.0, 4.0), limits, "here")
    candidates = [
        Candidate("refiners", name, {}, "float32", Cost(50, 5, 500, 0.49, 1.96), (name, latency))
        for name, latency in latencies.items()
    ]
    run, given = types.SimpleNamespace(directory=tmp_path), types.SimpleNamespace(budget=None)
    return types.SimpleNamespace(proposals=proposals, candidates=candidates, run=run, given=given, teacher=None)


def test_the_best_one_within_the_budget_is_taken_and_what_is_beyond_it_is_said(tmp_path, measured, capsys):
    found = trials(tmp_path, Limits(latency_ratio=0.5), a=0.6, b=0.515, c=0.4)
    a, b, _ = found.candidates
    assert finalists.finalist(found, found.candidates) is b  # 3 % more are the noise of two measurements
    assert measured == ["a", "b"]
    assert "compress: a takes 1.20 of the budget when it is measured for longer" in capsys.readouterr().err
    assert (a.cost.latency_ratio, a.cost.latency_ms) == (pytest.approx(0.6), pytest.approx(2.4))
    assert found.proposals.limits.load(a.cost) > 1
    assert b.cost.latency_ratio == 0.49


def test_a_resumed_run_decides_the_same_without_a_measurement(tmp_path, measured):
    (tmp_path / "finalists.json").write_text(json.dumps({"a": 1.2, "b": 0.9}))
    found = trials(tmp_path, Limits(latency_ratio=0.5), a=0.4, b=0.4)
    assert finalists.finalist(found, found.candidates).method == "b"
    assert measured == []


def test_if_none_is_within_the_budget_the_nearest_of_the_first_three_is_taken(tmp_path, measured):
    found = trials(tmp_path, Limits(latency_ratio=0.5), a=0.9, b=0.7, c=0.8, d=0.4)
    assert finalists.finalist(found, found.candidates).method == "b"
    assert measured == ["a", "b", "c"]


def test_what_is_counted_is_not_measured_again(tmp_path, measured):
    found = trials(tmp_path, Limits(macs=60), a=0.9, b=0.9)
    assert finalists.finalist(found, found.candidates).method == "a"
    assert finalists.finalist(trials(tmp_path, Limits(latency_ratio=0.5), a=0.9), found.candidates[:1]).method == "a"
    assert measured == []
