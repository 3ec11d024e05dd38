"""The latency of a winner as it is exported."""

import json
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

import kdtool
from kdtool.commands.outputs import target_of
from kdtool.compression import exported_winner
from kdtool.compression.candidates import Candidate
from kdtool.compression.costs import LATER, Cost, Limits, told
from kdtool.compression.options import BudgetOptions, Given
from kdtool.compression.winner import Finish, Winner
from kdtool.errors import UsageError
from kdtool.models.checkpoint import read


def test_a_file_in_8_bits_that_is_there_is_not_overwritten(teacher_path, tmp_path):
    (tmp_path / "s-int8.onnx").write_text("mine")
    how = {"max_macs": "0.5x", "output": tmp_path / "s.pt"}
    with pytest.raises(UsageError, match=r"s-int8\.onnx: exists already; choose another name with -o, or overwrite"):
        kdtool.compress(teacher_path, **how)
    with pytest.raises(UsageError, match=r"exists already"):
        kdtool.compress(teacher_path, resume=True, **how)  # no run of it has begun
    assert [path.name for path in tmp_path.iterdir()] == ["s-int8.onnx"]
    assert BudgetOptions(max_macs="0.5x", quantised=False).endings == ()


def test_the_file_in_8_bits_of_a_run_that_goes_on_may_be_there(tmp_path):
    (tmp_path / "s-int8.onnx").touch()
    (tmp_path / "s.run").mkdir()
    (tmp_path / "s.run" / "run.json").write_text("{}")
    target = tmp_path / "s.pt"
    assert target_of(target, target, force=False, resume=True, endings=("-int8.onnx",)) == target


@pytest.mark.parametrize(
    ("ratios", "measurements", "counts"),
    [
        ([0.52, 0.9, 0.9], 1, 0.52),  # within a twentieth of the budget of a half
        ([0.60, 0.50, 0.51], 3, 0.51),  # another program ran
        ([0.60, 0.50, 0.61], 3, 0.60),
    ],
)
def test_a_latency_beyond_the_budget_is_measured_again_and_the_median_counts(
    ratios, measurements, counts, monkeypatch, teacher_path
):
    left = list(ratios)
    own, whole = {"p50_ms": 0.3, "p90_ms": 0.4}, {"p50_ms": 0.5}
    exported = []

    def export(network, path, *, metadata, teacher):
        exported.append(path)
        return {"file_bytes": 10, "latency": {"ratio": left.pop(0), "student": own, "teacher": whole}}

    def ratio(file):
        assert [file] == exported  # it is not written again
        return left.pop(0)

    monkeypatch.setattr(exported_winner, "exporter_for", lambda **more: SimpleNamespace(export=export))
    monkeypatch.setattr(exported_winner, "Meter", lambda *of, **how: SimpleNamespace(ratio=ratio))
    budget = BudgetOptions(max_latency="0.5x")
    costs = exported_winner.as_exported(
        Candidate("refiners", "halve", {}), read(teacher_path), None, budget, Limits(latency_ratio=0.5)
    )
    assert costs["latency"]["ratio"] == counts
    assert len(ratios) - len(left) == measurements


def test_the_latency_of_a_file_of_8_bits_too(monkeypatch):
    left = [0.58, 0.60]
    monkeypatch.setattr(exported_winner, "Meter", lambda *of, **how: SimpleNamespace(ratio=lambda file: left.pop(0)))
    network = SimpleNamespace(network=None, module=None)
    interval = {"ratio": 0.66, "ratio_low": 0.65, "ratio_high": 0.67}
    measured = {**interval, "student": {"p50_ms": 0.33, "p90_ms": 0.4}, "teacher": {"p50_ms": 0.5}}
    monkeypatch.setattr(
        exported_winner, "export", lambda *of, **how: {"onnx": "s.onnx", "file_bytes": 1, "latency": measured}
    )
    monkeypatch.setattr(exported_winner, "supported", lambda **options: {})
    monkeypatch.setattr(exported_winner, "quantiser_of", lambda module: None)
    budget, limits = BudgetOptions(max_latency="0.6x"), Limits(latency_ratio=0.6)
    candidate = Candidate("refiners", "halve", {}, "int8")
    costs = exported_winner.write_quantised(candidate, network, network, Path("s-int8.onnx"), budget, limits)
    assert costs["latency"]["ratio"] == 0.60
    assert costs["latency"]["ratios"] == [0.66, 0.58, 0.60]
    assert costs["latency"]["student"] == {"p50_ms": pytest.approx(0.30), "p90_ms": pytest.approx(0.30 / 0.33 * 0.4)}
    assert costs["latency"]["ratio_low"] is costs["latency"]["ratio_high"] is None  # those were of the first ratio


@pytest.mark.slow
def test_a_budget_of_bytes_is_that_of_the_file_that_is_exported(teacher_path, tmp_path):
    limit = 30_000  # so little that what the file tells of its network is a tenth of it
    options = {"max_size": f"{limit}B", "candidates": ("halve",), "quantised": False, "epochs": 1}
    student = kdtool.compress(teacher_path, output=tmp_path / "s.pt", **options)
    results = json.loads((tmp_path / "s.run/results.json").read_text())
    written = kdtool.export(student, output=tmp_path / "s.onnx", latency=False)["file_bytes"]
    assert limit * 0.8 < written <= limit
    (row,) = [row for row in results["rows"] if row["note"] == "winner"]
    assert row["file_bytes"] == results["measured"]["file_bytes"]
    assert 0 <= row["file_bytes"] - written <= 64  # numbers of the test images may have fewer digits


def test_an_exported_file_tells_no_more_than_what_was_counted(teacher_path, tmp_path):
    kdtool.export(teacher_path, output=tmp_path / "t.onnx", latency=False)
    written = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "t.onnx")).metadata_props}
    counted = told(read(teacher_path))
    assert set(counted) == {*written} - {"kdtool.structure", "kdtool.operators"}  # which drafts tell too
    assert {name: written[name] for name in counted if name not in LATER} == {
        name: text for name, text in counted.items() if name not in LATER
    }
    assert all(0 <= len(LATER[name]) - len(written[name]) <= 32 for name in LATER)


def test_a_file_beyond_the_budget_of_bytes_misses_it():
    limits = Limits(file_bytes=1000)
    assert exported_winner.excess({"file_bytes": 1001}, limits) == (0, 1.001)
    finish = Finish(None, Given({}, {}, BudgetOptions(max_size="1kB")), None, None, None, _trials(limits))
    winner = Winner(Candidate("refiners", "halve", {}, cost=Cost(5, 5, 990)), None, 1, 0.9, {"file_bytes": 1001})
    assert finish._missed(winner, 0.9) == "1,001 bytes, where --max-size allows 1kB"


def _trials(limits):
    return SimpleNamespace(proposals=SimpleNamespace(limits=limits))
