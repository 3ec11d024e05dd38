"""What `kdtool report` says of a study that is not finished or whose recipe was changed, and of its comparisons."""

import json
import re

import pytest

import kdtool

PAIR = {"a": "kd", "b": "at", "accuracy_difference": 0.01, "classified_differently": 3, "agreement": 0.97, "l2": 0.5}
VALUES = {"seed": 0, "ratio": 0.5}
COMPARED = [
    {**PAIR, "values": {"seed": 0, "ratio": 0.5}, "l2_sum": 150.0, "mcnemar_p": 0.0123},
    {**PAIR, "values": {"seed": 1, "ratio": 0.5}, "l2_sum": 151.0, "mcnemar_p": 0.0456},
    {**PAIR, "values": {"ratio": 0.5}, "b": "teacher", "l2_sum": 152.0, "mcnemar_p": 0.0789},
]


@pytest.fixture
def report(exported_study, tmp_path):
    """Write a report about the study with other results or entries of its record; return its text."""

    def report_it(suffix, commands=None, **changes):
        study = tmp_path / "small.study"
        study.mkdir(exist_ok=True)
        for name in ("results.json", "study.json"):
            content = json.loads((exported_study / name).read_text())
            content |= changes if name == "results.json" else {"commands": commands or {}}
            (study / name).write_text(json.dumps(content))
        return kdtool.report(study, output=tmp_path / f"r{suffix}", force=True).read_text()

    return report_it


def _entry(line, **about):
    return {"told": {"command": line.split(), "inputs": {}}, **about}


def _tables(text):
    """Return the rows of each table in Markdown, under the heading before it."""
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {
        title: [re.split(r" \| ", line.strip("| ")) for line in part.splitlines() if line.startswith("| ")]
        for title, part in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_every_comparison_is_told_beside_the_means(report):
    mean = {"a": "kd", "b": "at", "values": {"ratio": 0.5}, "seeds": 2, "l2": 0.5, "l2_low": 0.4, "l2_high": 0.6}
    tables = _tables(report(".md", comparisons=COMPARED, comparison_means=[mean]))
    assert len(tables["Comparisons, means over seeds"]) == 1 + 1 + 1
    head, _, *rows = tables["All comparisons"]
    assert head[:4] == ["a", "b", "seed", "ratio"]
    assert {"classified differently", "agreement", "L2", "L2 sum", "McNemar p"} <= set(head)
    assert [row[head.index("McNemar p")] for row in rows] == ["0.0123", "0.0456", "0.0789"]
    assert [row[1] for row in rows] == ["at", "at", "teacher"]

    page = report(".html", comparisons=COMPARED, comparison_means=[mean])
    assert "<h2>All comparisons</h2>" in page
    assert all(f">{p}</td>" in page for p in ("0.0123", "0.0456", "0.0789"))
    assert "Comparisons, means" not in report(".html", comparisons=COMPARED)


def test_an_unfinished_study_says_how_much_of_it_there_is(report):
    failed = [
        {"name": "file_seed=2_method=kd", "error": "out of luck", "log": "x.log"},
        {"name": "compare teacher file_seed=0_method=kd", "error": "no images", "log": None},
    ]
    commands = {"teacher": _entry("teacher x", status="done"), "old": _entry("prune old.pt", status="done")}
    commands[failed[0]["name"]] = _entry("export fails.pt", status="failed")
    for suffix in (".md", ".html"):
        text = report(suffix, commands, failed=failed, not_run=["a", "b"])
        assert (
            "5 of the 8 commands of this study have results; kdtool run with its recipe goes on with the rest." in text
        )
        # A step that is no longer in the recipe made none of these rows.
        assert "2 commands" in text
        assert "kdtool export fails.pt" in text
        assert "old.pt" not in text
        assert "have results" not in report(suffix, commands)


def test_a_row_whose_command_has_changed_is_not_shown(report):
    """Such a study was killed, and its results are of the run before."""
    numbers = {"accuracy": 0.9, "macs": 631_616, "file_bytes": 111_293, "latency_ratio": 0.7}
    commands = {
        "teacher": _entry("teacher x", status="done", row={"accuracy": 0.95}),
        "file_seed=0_method=kd": _entry("export a.pt", status="done", row=numbers),
        "file_seed=0_method=at": _entry("export b.pt --typo", status="begun"),
        "file_seed=1_method=kd": _entry("export c.pt --typo", status="done", row={"accuracy": 0.5}),
    }
    text = report(".md", commands, comparisons=COMPARED)
    tables = _tables(text)
    assert [row[0] for row in tables["All checkpoints"][2:]] == ["teacher", "file", "file"]
    assert "0.8000" not in str(tables["All checkpoints"])  # of what is begun anew
    assert "0.9400" not in text  # of what was made anew
    assert "--typo" not in text
    assert "3 of the 5 commands of this study have results" in text
    # The means are those of the rows that are left, of one seed each.
    seeds = tables["Means over seeds, with half the width of their 95 % intervals from three seeds on"]
    assert [row[seeds[0].index("seeds")] for row in seeds[2:]] == ["1", "1"]
    assert "All comparisons" not in text


def test_what_is_too_much_to_draw_is_told(report, monkeypatch):
    monkeypatch.setattr("kdtool.study.charts.MOST_PANELS", 1)
    monkeypatch.setattr("kdtool.reporting.sections.MOST_LINES", 1)
    rows = [
        {"step": step, "values": {"ratio": ratio, "epochs": epochs}, "accuracy": 0.5}
        for step in ("a", "b") for ratio in (0.5, 0.8) for epochs in (1, 2)
    ]  # fmt: skip
    text = report(".md", means=rows)
    assert "against ratio; lines after the first 1 are left out; panels after the first 32 of this report are" in text


def test_results_that_no_study_has_are_refused(report):
    row = {"step": "a", "values": {f"k{number}": 1 for number in range(65)}}
    with pytest.raises(kdtool.Error, match=r"results\.json: is damaged"):
        report(".md", means=[row])


def test_a_table_has_a_bounded_number_of_columns(report):
    rows = [{"name": "a", "step": "a", "values": {}, f"k{number}": 1} for number in range(1000)]
    assert len(report(".csv", rows=rows).splitlines()[0].split(",")) == 128
    assert len(_tables(report(".md", rows=rows))["All checkpoints"][0]) == 128


def test_points_without_bars_are_told(report):
    rows = [
        {"step": "a", "values": {"ratio": ratio}, "seeds": seeds, "accuracy": 0.5, **ends}
        for ratio, seeds, ends in (
            (0.5, 3, {"accuracy_low": 0.4, "accuracy_high": 0.6}),
            (0.8, 2, {"accuracy_low": 0.1, "accuracy_high": 0.9}),
        )
    ]
    told = "bars are 95 % intervals over seeds"
    assert f"{told}; points without one are of fewer than 3 seeds" in report(".md", means=rows)
    text = report(".md", means=[row | {"seeds": 3} for row in rows])
    assert told in text
    assert "points without" not in text
