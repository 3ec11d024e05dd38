"""The charts that a report writes as files: their names, and that they replace nothing."""

import json
import shutil

import pytest
from click.testing import CliRunner

import kdtool
from kdtool.cli.main import cli

CHART = "test-accuracy-against-costs.svg"


@pytest.fixture(autouse=True)
def _charts_are_quick_to_draw(monkeypatch):
    monkeypatch.setattr("kdtool.reporting.outputs.draw_chart", lambda chart: f"<svg>{chart.panels}</svg>")
    monkeypatch.setattr("kdtool.reporting.sections.draw_panels", lambda chart: ["<svg/>" for _ in chart.panels])


def copied(study, directory, step="file"):
    """Return a copy of a study; ``step`` is the name of its step."""
    shutil.copytree(study, directory)
    results = (directory / "results.json").read_text()
    (directory / "results.json").write_text(results.replace('"step": "file"', json.dumps({"step": step})[1:-1]))
    return directory


def test_each_study_has_its_own_charts(exported_study, tmp_path):
    other = copied(exported_study, tmp_path / "other.study", "other")
    same_name = copied(exported_study, tmp_path / "there" / "Small.study", "third")
    (tmp_path / "figures").mkdir()

    kdtool.report(exported_study, other, same_name, output=tmp_path / "r.html", figures=tmp_path / "figures")

    drawn = {path.name: path.read_text() for path in (tmp_path / "figures").iterdir()}
    assert sorted(drawn) == [f"Small-{CHART[:-4]}-2.svg", f"other-{CHART}", f"small-{CHART}"]
    assert "other kd" in drawn[f"other-{CHART}"]
    assert "third kd" in drawn[f"Small-{CHART[:-4]}-2.svg"]


def test_a_chart_of_another_content_is_replaced_only_with_force(exported_study, tmp_path):
    figure, page = tmp_path / CHART, tmp_path / "r.html"
    figure.write_text("mine")
    command = ["report", str(exported_study), "-o", str(page), "--figures", str(tmp_path)]

    refused = CliRunner().invoke(cli, command)

    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
    assert f"{figure}: exists already" in refused.stderr
    assert (figure.read_text(), page.exists()) == ("mine", False)
    assert CliRunner().invoke(cli, [*command, "-f"]).exit_code == 0
    assert figure.read_text().startswith("<svg>")
    # A second report of the same study may write its figures to the same place.
    kdtool.report(exported_study, output=tmp_path / "again.html", figures=tmp_path)


def test_figures_are_checked_before_anything_is_measured(exported_study, teacher_path, tmp_path, monkeypatch):
    (tmp_path / CHART).write_text("mine")
    monkeypatch.setattr("kdtool.reporting.page.latencies", lambda networks: pytest.fail("measured"))
    with pytest.raises(kdtool.UsageError, match="exists already"):
        kdtool.report(teacher_path, exported_study, output=tmp_path / "r.html", figures=tmp_path, latency=True)


def test_the_charts_beside_a_report_in_markdown_replace_nothing(exported_study, tmp_path):
    report = kdtool.report(exported_study, output=tmp_path / "r.md")
    *_, chart = sorted(tmp_path.glob("r-*.svg"))
    for path in tmp_path.iterdir():
        if path != chart:
            path.unlink()
    chart.write_text("mine")

    with pytest.raises(kdtool.UsageError, match=rf"{chart.name}: exists already"):
        kdtool.report(exported_study, output=report)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(chart.name, "mine")]
    kdtool.report(exported_study, output=report, force=True)
    assert chart.read_text() == "<svg/>\n"
