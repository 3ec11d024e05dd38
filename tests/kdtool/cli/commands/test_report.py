from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]


def test_a_report_takes_files_and_directories_and_prints_its_path(api: Any, run: Run, here: Path) -> None:
    (here / "a.run").mkdir()

    result = run("report teacher.pt a.run -o page.html --figures .")

    assert result.exit_code == 0, result.output
    assert result.stdout == "page.html\n"
    assert api.calls == [("report", (Path("teacher.pt"), Path("a.run")), {"figures": Path(".")})]


def test_what_is_measured_for_a_report(api: Any, run: Run, here: Path) -> None:
    assert run("report teacher.pt --latency --per-class -o page.md").exit_code == 0
    assert api.calls == [("report", (Path("teacher.pt"),), {"latency": True, "per_class": True})]


def test_it_stands_beside_its_first_source(api: Any, run: Run, here: Path) -> None:
    assert run("report teacher.pt").stdout == "teacher-report.html\n"
    assert run("distill teacher.pt --method kd --student timm:resnet18 report").stdout == "teacher-kd-report.html\n"


def test_what_is_in_the_way_or_missing(fails: Fails, here: Path) -> None:
    (here / "teacher-report.html").write_text("mine")
    assert "teacher-report.html: exists already" in fails("report teacher.pt")
    assert "must end in .html" in fails("report teacher.pt -o page.pdf")
    assert "did you mean teacher.pt" in fails("report teachr.pt -o page.html")
    assert "a.run: there is no such file" in fails("report a.run -o page.html")
    (here / "page.html").mkdir()
    assert "is a directory" in fails("report teacher.pt -f -o page.html")
