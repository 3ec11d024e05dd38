from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdtool.cli.commands.compare import as_text

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]

MODEL = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.95, "parameters": 1000}
PAIR = {"l2": 0.25, "l2_sum": 5.0, "mcnemar": {"p": 0.5, "test": "exact", "statistic": None}}


def test_more_than_two_and_a_picture(api: Any, run: Run) -> None:
    result = run("compare teacher.pt student.pt teacher.pt --latency -o differ.png --json")

    assert result.exit_code == 0, result.output
    name, paths, options = api.calls[0]
    assert (name, paths) == ("compare", (Path("teacher.pt"), Path("student.pt"), Path("teacher.pt")))
    assert options == {"latency": True, "picture": Path("differ.png"), "force": False}
    assert json.loads(result.stdout)["classified_differently"] == 3


def test_a_picture_is_a_png_and_overwrites_nothing(fails: Fails, here: Path) -> None:
    assert fails("compare teacher.pt student.pt -o differ.jpg").endswith("the name of this file must end in .png")
    (here / "differ.png").write_text("mine")
    assert "exists already" in fails("compare teacher.pt student.pt -o differ.png")


def test_two_are_told_below_each_other() -> None:
    text = as_text({"a": {"checkpoint": "a.pt", **MODEL}, "b": {"checkpoint": "b.pt", **MODEL}, **PAIR})

    assert "0.8500 to 0.9500" in text
    assert text.splitlines()[-4:] == [
        "l2            0.2500",
        "l2 sum        5.0000",
        "mcnemar p     0.5000",
        "mcnemar test  exact",
    ]


def test_three_make_a_matrix() -> None:
    models = [{"checkpoint": name, **MODEL} for name in ("a.pt", "b.pt", "c.pt")]
    pairs = [{"a": i, "b": j, "classified_differently": 10 * i + j, **PAIR} for i, j in ((0, 1), (0, 2), (1, 2))]

    lines = as_text({"images": 20, "models": models, "pairs": pairs}).splitlines()

    start = lines.index("images classified differently:")
    assert [line.split() for line in lines[start + 3 : start + 6]] == [
        ["A", "1", "2"],
        ["B", "1", "12"],
        ["C", "2", "12"],
    ]
