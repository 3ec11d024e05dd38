"""The charts of a study: accuracy against each number of its matrix, and against what each result costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kdtool.plotting.chart import Chart, Panel, Point
from kdtool.plotting.svg import MOST_CHARACTERS, MOST_PANELS, number_of
from kdtool.study.recipe import SEED
from kdtool.utils.formatting import FEWEST_SEEDS, printable

COSTS = {"latency_ratio": "latency", "macs": "MACs", "file_bytes": "bytes"}
"""The costs of an exported file, and the titles of their panels."""

MEASURES = {"val_accuracy": "validation accuracy", "accuracy": "test accuracy"}


def charts(results: Mapping[str, Any]) -> list[Chart]:
    """Return the charts of a study's ``results``, as `run_study` returns them.

    Every number of the matrix with at least two values, except the seed, gives a chart of the test accuracy and one of
    the validation accuracy. A line is a step together with its texts of the matrix. Each combination of the other
    numbers is a panel, whose title has what is not the same in all of them. A step that does not depend on the number,
    such as the teacher, is a horizontal level, and so is one with a text in its place, such as the temperature 4->1.
    With the number of layers on the x axis and a panel for each fraction of the data, these are Figures 3 and 4 of
    Kulkarni et al. (2021).

    If the study exports, one more chart has the test accuracy against the latency, the MACs and the bytes of each file,
    as fractions of the most expensive one's.

    Only the first `MOST_PANELS` panels over numbers of the matrix are made; the last chart then says that it is cut.
    """
    rows = [*results["means"], *(row for row in results["rows"] if SEED not in row["values"])]
    keys = {key: None for row in rows for key, value in row["values"].items() if _number(value) and key != SEED}
    every = ((key, measure, panel) for key in keys for measure in MEASURES for panel in _panels(rows, key, measure))
    first = list(itertools.islice(every, MOST_PANELS + 1))
    found: dict[tuple[str, str], list[Panel]] = {}
    for key, measure, panel in first[:MOST_PANELS]:
        found.setdefault((key, measure), []).append(panel)
    result = [
        Chart(f"{MEASURES[measure]} against {printable(key, MOST_CHARACTERS)}", key, MEASURES[measure], panels)
        for (key, measure), panels in found.items()
    ]
    if len(first) > MOST_PANELS:
        result[-1] = replace(result[-1], cut=True)
    return result + _against_costs(rows)


def _against_costs(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return the chart of the exported files' accuracy against their costs, if there are at least two files."""
    files = [row for row in rows if all(_number(row.get(key)) for key in ("accuracy", *COSTS))]
    if len(files) < 2:
        return []
    panels = []
    for key, title in COSTS.items():
        largest = max(row[key] for row in files)
        lines: dict[str, list[Point]] = {}
        for row in files:
            point = Point(row[key] / largest, row["accuracy"], *_interval(row, "accuracy"))
            lines.setdefault(_line(row), []).append(point)
        panels.append(
            Panel(title, {name: sorted(points, key=lambda point: point.x) for name, points in lines.items()}, {})
        )
    return [
        Chart("test accuracy against costs", "fraction of the largest", MEASURES["accuracy"], panels, from_zero=True)
    ]


def _panels(rows: Sequence[Mapping[str, Any]], key: str, measure: str) -> Iterable[Panel]:
    """Yield a panel for each combination of the other numbers; none if ``key`` has only one value."""
    rows = [row for row in rows if _number(row.get(measure))]
    with_key = [row for row in rows if _number(row["values"].get(key))]
    if len({row["values"][key] for row in with_key}) < 2:
        return
    choices: dict[tuple[tuple[str, float], ...], list[Mapping[str, Any]]] = {}
    for row in with_key:
        choices.setdefault(tuple(sorted(_others(row, key).items())), []).append(row)
    same = set.intersection(*map(set, choices))
    for choice in sorted(choices):
        lines: dict[str, list[Point]] = {}
        for row in choices[choice]:
            point = Point(row["values"][key], row[measure], *_interval(row, measure))
            lines.setdefault(_line(row), []).append(point)
        level = {
            _line(row): row[measure]
            for row in rows
            if isinstance(row["values"].get(key, ""), str) and _others(row, key).items() <= dict(choice).items()
        }
        title = ", ".join(f"{name} {value:g}" for name, value in choice if (name, value) not in same)
        yield Panel(title, {name: sorted(points, key=lambda point: point.x) for name, points in lines.items()}, level)


def _others(row: Mapping[str, Any], key: str) -> dict[str, float]:
    return {name: value for name, value in row["values"].items() if _number(value) and name not in (key, SEED)}


def _interval(row: Mapping[str, Any], measure: str) -> tuple[float | None, float | None]:
    """Return the ends of the interval of a mean, if it is of enough seeds to say something."""
    few = isinstance(row.get("seeds"), int) and row["seeds"] < FEWEST_SEEDS
    low, high = row.get(f"{measure}_low"), row.get(f"{measure}_high")
    return (low, high) if not few and _number(low) and _number(high) else (None, None)


def _line(row: Mapping[str, Any]) -> str:
    texts = [value for value in row["values"].values() if isinstance(value, str)]
    return " ".join([row["step"], *texts])


def _number(value: Any) -> bool:
    return number_of(value) is not None
