"""The frontier of a report."""

from __future__ import annotations

from typing import Any

import pytest

from kdtool.reporting import overview
from kdtool.reporting.blocks import Figure, Table
from kdtool.reporting.sources import CheckpointSource


def source(
    name: str, accuracy: float, macs: int, rows: tuple[dict[str, Any], ...] = (), nonzero: int = 7000
) -> CheckpointSource:
    about = {
        "path": name,
        "source": "kdtool:lenet-5",
        "metrics": [{"split": "val", "accuracy": accuracy}],
        "data": {"name": "digits"},
        "history": [{"command": "distill", "rows": rows}],
        **dict.fromkeys(("classes", "parameters", "compression", "file_bytes"), 7000),
        "nonzero": nonzero,
        "macs": macs,
    }
    return CheckpointSource(name, about)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of the points of each chart that is drawn."""
    points: list[Any] = []
    monkeypatch.setattr(overview, "draw_frontier", lambda tried, axes, label: points.append(tried))
    return points


def test_two_networks_with_the_same_numbers_are_both_shown(drawn: list[Any]) -> None:
    sources = [source("a.pt", 0.8, 100), source("b.pt", 0.8, 100), source("c.pt", 0.9, 200)]

    assert any(isinstance(block, Figure) for block in overview.overview(sources, {}))
    assert [point.name for point in drawn[0]] == ["a.pt", "b.pt", "c.pt"]


def test_a_model_that_a_run_kept_is_shown_once_with_the_latency_that_the_run_measured(drawn: list[Any]) -> None:
    row = {"model": "M1", "val_accuracy": 0.8, "macs": 100, "parameters": 7000, "latency_ratio": 0.5}
    other = {**row, "model": "M0", "macs": 200, "latency_ratio": 1.0}

    list(overview.overview([source("a.pt", 0.8, 100, (other, row))], {}))

    assert [(point.name, point.costs["latency"]) for point in drawn[0]] == [("a.pt", 0.5), ("M0", 1.0)]


@pytest.mark.parametrize(("nonzero", "shown"), [(7000, False), (6999, False), (3500, True)])
def test_nonzero_is_a_column_where_weights_were_removed(drawn: list[Any], nonzero: int, shown: bool) -> None:
    table = list(overview.overview([source("a.pt", 0.8, 9), source("b.pt", 0.7, 5, nonzero=nonzero)], {}))[1]

    assert isinstance(table, Table)
    assert ("nonzero" not in table.leave_out) is shown


def test_the_frontier_has_a_bounded_number_of_points() -> None:
    rows = [{"model": f"m{number}", "val_accuracy": 0.5, "macs": 1, "parameters": 1} for number in range(1000)]
    assert len(list(overview._rows(CheckpointSource("a.pt", {"history": [{"rows": rows}]})))) == overview.MOST_POINTS
