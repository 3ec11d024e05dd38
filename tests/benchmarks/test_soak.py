"""A few kills of each kind of command; ``make soak`` makes many."""

import os
import re

import pytest

if not hasattr(os, "fork"):
    pytest.skip("commands run in forked processes", allow_module_level=True)

import torch

from benchmarks.safety import soak as soaking
from benchmarks.safety.contents import contents, difference
from benchmarks.safety.killed import COMMANDS, make_inputs
from benchmarks.safety.rows import Rows
from benchmarks.safety.soak import is_chosen, missing, quick_first, soak
from benchmarks.safety.sources import sources, write_sources
from benchmarks.safety.studies import forking_studies


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A directory with a network of linear layers."""
    folder = tmp_path_factory.mktemp("linear")
    make_inputs(folder, ["l"])
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    write_sources(folder)
    return folder


BY_NAME = {(command.kind, command.name): command for command in COMMANDS}


def test_a_killed_command_goes_on_to_the_same_files(linear):
    found = soak(BY_NAME["distill", "kd"], linear, 2, seed=1)
    assert found.came >= 2
    assert found.lost == []


@pytest.mark.slow
@pytest.mark.parametrize("key", BY_NAME, ids=" ".join)
def test_every_killed_command_goes_on_to_the_same_files(key, inputs):
    if needs := BY_NAME[key].needs:
        pytest.importorskip(needs)
    with forking_studies(), sources(inputs):
        found = soak(BY_NAME[key], inputs, 5, seed=1)
    assert found.came >= 5
    assert found.lost == []


def test_a_result_that_differs_is_lost(linear, monkeypatch):
    seen = []

    def changed(folder):
        seen.append({**contents(folder), "o.pt": len(seen)})
        return seen[-1]

    monkeypatch.setattr(soaking, "contents", changed)
    found = soak(BY_NAME["distill", "none"], linear, 1, seed=1)
    assert len(found.lost) == 1
    assert "o.pt is" in found.lost[0]


def test_every_method_is_killed():
    from kdtool.plugins import entry_points

    killed = {word for command in COMMANDS for word in [command.name, *command.words]}
    for kind in ("distillers", "exporters", "pruners", "refiners", "teachers"):
        assert set(entry_points.names(kind)) <= killed


def test_what_differs_is_named(tmp_path):
    one, other = ({"weights": {"a": torch.zeros(2)}, "history": [{"seconds": n, "size": 3}]} for n in (1, 2))
    files = []
    for name, data in (
        ("one", one),
        ("same", other),
        ("other", {**other, "weights": {"a": torch.tensor([0.0, -0.0])}}),
    ):
        (tmp_path / name).mkdir()
        torch.save(data, tmp_path / name / "x.pt")
        files.append(contents(tmp_path / name))
    assert difference(files[0], files[1]) == ""
    assert difference(files[0], files[2]).startswith("x.pt/weights/a/2 is")
    assert difference(files[0], {}) == "x.pt is missing"
    assert difference(files[0], {**files[0], ".y.tmp": "z"}) == ".y.tmp is left over"


def test_only_the_kills_that_earlier_series_lack_are_made_quick_ones_first():
    kd, at, none = (BY_NAME["distill", name] for name in ("kd", "at", "none"))
    rows = [
        {"kind": "distill", "name": "kd", "kills": 20, "seconds": 100.0},
        {"kind": "distill", "name": "kd", "kills": 20, "seconds": 60.0},
        {"kind": "distill", "name": "at", "kills": 60, "seconds": 60.0},
        {"kind": "2 processes", "name": "kd", "kills": 9, "seconds": 1.0},
    ]
    assert [missing(command, 50, rows) for command in (kd, at, none)] == [10, 0, 50]
    assert quick_first([none, kd, at], rows) == [at, kd, none]
    assert is_chosen(kd, ["at", "kd"], ["study"])
    assert is_chosen(kd, ["distill"], [""])
    assert not is_chosen(kd, ["at"], [""])
    assert not is_chosen(kd, ["kd"], ["distill"])


def test_a_series_is_continued(tmp_path):
    rows = Rows(tmp_path / "rows.json")
    rows.add({"name": "kd", "seed": 0}, kills=3, lost=["a"])
    again = Rows(tmp_path / "rows.json")
    assert again.has({"name": "kd", "seed": 0})
    assert not again.has({"name": "kd", "seed": 1})
    again.add({"name": "kd", "seed": 1}, kills=4, lost=[])
    assert (again.sum("kills"), again.sum("lost")) == (7, 1)
    assert re.fullmatch(r"([0-9a-f]{7,}\+?)?", again.rows[0]["commit"])
    assert again.rows[0]["versions"]["torch"] == torch.__version__.partition("+")[0]
