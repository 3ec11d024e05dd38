"""The frontier of a report."""

from __future__ import annotations

from typing import Any

import pytest

from kdtool.reporting import overview
from kdtool.reporting.blocks import Figure, Paragraph, Table
from kdtool.reporting.sources import CheckpointSource


def source(
    name: str,
    accuracy: float,
    macs: int,
    rows: tuple[dict[str, Any], ...] = (),
    nonzero: int = 7000,
    val: str | None = "images",
) -> CheckpointSource:
    about = {
        "path": name,
        "source": "kdtool:lenet-5",
        "metrics": [{"split": "val", "accuracy": accuracy}],
        "data": {"name": "digits", "splits": {"val": {"sha256": val}} if val else {}},
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


TEACHER = {"model": "teacher", "val_accuracy": 0.9, "macs": 300, "parameters": 7000, "latency_ratio": 1.0}
SEARCHED = {"model": "searched", "val_accuracy": 0.6, "macs": 100, "parameters": 7000, "latency_ratio": 0.5}
STUDENT = {**SEARCHED, "model": "student", "val_accuracy": 0.8}
OWN = source("a.pt", 0.8, 100, (TEACHER, SEARCHED, STUDENT))


def latencies(drawn: list[Any]) -> dict[str, float | None]:
    return {point.name: point.costs["latency"] for point in drawn[0]}


def test_latencies_of_a_run_are_told_as_fractions_of_the_same_network_as_those_of_the_report(drawn: list[Any]) -> None:
    list(overview.overview([OWN], {"a.pt": {"latency_ratio": 1.0}}))
    assert latencies(drawn) == {"a.pt": 1.0, "teacher": 2.0, "searched": 1.0}

    drawn.clear()
    measured = {"t.pt": {"latency_ratio": 1.0}, "a.pt": {"latency_ratio": 0.4}}
    list(overview.overview([source("t.pt", 0.9, 300), OWN], measured))
    assert latencies(drawn) == {"t.pt": 1.0, "a.pt": 0.4, "searched": 0.4}


def test_latencies_of_two_runs_share_an_axis_if_a_network_is_in_both(drawn: list[Any]) -> None:
    other = {**STUDENT, "model": "other", "macs": 150, "latency_ratio": 0.7}
    list(overview.overview([OWN, source("b.pt", 0.7, 50, (TEACHER, other))], {}))
    assert latencies(drawn)["other"] == 0.7

    drawn.clear()
    list(overview.overview([OWN, source("b.pt", 0.7, 50, ({**TEACHER, "macs": 600}, other))], {}))
    assert latencies(drawn)["other"] is None


@pytest.mark.parametrize(("measured", "of"), [({}, "teacher"), ({"a.pt": {"latency_ratio": 1.0}}, "first")])
def test_the_axis_tells_of_what_a_latency_is_a_fraction(
    monkeypatch: pytest.MonkeyPatch, measured: overview.Measured, of: str
) -> None:
    labels: list[str] = []
    monkeypatch.setattr(overview, "draw_frontier", lambda tried, axes, label: labels.append(axes[0].label))
    list(overview.overview([OWN], measured))
    assert labels[0] == f"latency, as a fraction of the {of}"


def test_networks_that_were_validated_on_other_images_share_no_chart(drawn: list[Any]) -> None:
    list(overview.overview([source("a.pt", 0.8, 100), source("b.pt", 0.9, 200, val="others")], {}))
    assert not drawn


def test_images_of_which_a_checkpoint_before_0_2_tells_the_name_alone_are_those_of_that_name(drawn: list[Any]) -> None:
    old, new, other = (source(f"{val}.pt", 0.8, len(val or "") + 1, val=val) for val in (None, "images", "others"))
    list(overview.overview([old, new], {}))
    assert len(drawn[0]) == 2
    drawn.clear()
    list(overview.overview([old, new, other], {}))
    assert not drawn


def test_accuracies_on_other_images_are_not_subtracted(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = source("a.pt", 0.8, 100), source("t.pt", 0.9, 300, val="others")
    monkeypatch.setattr(overview, "_teacher_of", lambda *_: teacher)
    _, table, paragraph = overview._beside_teacher(student, [student], {})
    assert isinstance(table, Table)
    assert "validation accuracy" not in {row["measure"] for row in table.rows}
    assert paragraph == Paragraph("They remember different val images; their accuracies on these cannot be compared.")

    for val in ("images", None):
        same = source("t.pt", 0.9, 300, val=val)
        monkeypatch.setattr(overview, "_teacher_of", lambda *_, same=same: same)
        _, table = overview._beside_teacher(student, [student], {})
        assert isinstance(table, Table)
        assert {"measure": "validation accuracy", "change": "-10.00 points"}.items() <= table.rows[0].items()


@pytest.mark.parametrize(("split", "shown"), [("val", True), ("test", False)])
def test_scores_of_two_splits_are_not_subtracted(monkeypatch: pytest.MonkeyPatch, split: str, shown: bool) -> None:
    student, teacher = source("a.pt", 0.8, 100), source("t.pt", 0.9, 300)
    monkeypatch.setattr(overview, "_teacher_of", lambda *_: teacher)
    measured = {"a.pt": {"split": "val", "top5": 0.5}, "t.pt": {"split": split, "top5": 0.75}}
    table = list(overview._beside_teacher(student, [student], measured))[1]
    assert isinstance(table, Table)
    assert ("-25.00 points" in {row["change"] for row in table.rows}) is shown


@pytest.mark.parametrize(("nonzero", "shown"), [(7000, False), (6999, False), (3500, True)])
def test_nonzero_is_a_column_where_weights_were_removed(drawn: list[Any], nonzero: int, shown: bool) -> None:
    table = list(overview.overview([source("a.pt", 0.8, 9), source("b.pt", 0.7, 5, nonzero=nonzero)], {}))[1]

    assert isinstance(table, Table)
    assert ("nonzero" not in table.leave_out) is shown


def test_the_frontier_has_a_bounded_number_of_points() -> None:
    rows = [{"model": f"m{number}", "val_accuracy": 0.5, "macs": 1, "parameters": 1} for number in range(1000)]
    assert len(list(overview._rows(CheckpointSource("a.pt", {"history": [{"rows": rows}]})))) == overview.MOST_POINTS
