"""What a report says of one source: a checkpoint with the run that made it, or a study."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kdtool.commands.history import chosen_by_search, public_line, public_word
from kdtool.plotting.chart import Chart
from kdtool.plotting.curves import draw_curves
from kdtool.plotting.svg import MOST_LINES, MOST_PANELS, draw_panels
from kdtool.reporting.blocks import Block, Commands, Facts, Figure, Folded, Heading, Links, Paragraph, Picture, Table
from kdtool.reporting.classes import of_classes
from kdtool.reporting.overview import SIZES
from kdtool.reporting.sources import CheckpointSource, StudySource
from kdtool.study.alike import same_settings
from kdtool.study.charts import charts
from kdtool.utils.formatting import FEWEST_SEEDS, counted, printable

LABELS_ALONE = ("teacher", "none")
"""The commands and methods whose training loss is the cross-entropy of the validation too."""


def of_checkpoint(source: CheckpointSource, beside: Path, measured: Mapping[str, Any] | None = None) -> Iterator[Block]:
    """Yield the parts of a report about a checkpoint and its run; the report lies in the directory ``beside``.

    ``measured`` is what was measured for the report.
    """
    history: Sequence[Mapping[str, Any]] = []
    if source.about is None:
        run = source.run or {}
        yield Paragraph("This run is not finished.")
        name = (run.get("data") or {}).get("name")
        data = public_word(name) if name else None
        yield Facts([("command", run.get("command")), ("method", run.get("method")), ("data", data)])
    else:
        about, history = source.about, source.about["history"]
        data = public_word(about["data"]["name"]) if about["data"] else None
        size = "x".join(map(str, about["input"]))
        sizes = [(key, about[key]) for key in SIZES]
        yield Facts([("network", about["source"]), ("input", size), *sizes, ("data", data)])
        if about["metrics"]:
            yield Heading("Scores", 3)
            yield Table(about["metrics"])
        if measured and "classes" in measured:
            yield from of_classes(measured)
    for entry in history:
        if entry.get("rows"):
            yield Heading(f"Models of {entry['command']} {entry['method']}", 3)
            yield Table(entry["rows"])
    if source.epochs:
        yield Heading("Training", 3)
        run = source.run or {}
        labels = run.get("command") in LABELS_ALONE or run.get("method") in LABELS_ALONE
        yield Figure(draw_curves(source.epochs, labels_alone=labels), training_time(source.epochs))
    for name, svg in source.pictures.items():
        yield Picture(svg, name)
    if history:
        yield Heading("How it was made", 3)
        yield Commands([(public_line(entry["line"]), _remark(entry)) for entry in history])
        for used in (used for entry in history for used in entry.get("inputs", ()) if used.get("lines")):
            made = Commands([(public_line(line), "") for line in used["lines"]])
            yield Folded(f"How its {used['role']} {Path(used['path']).name} was made", [made])
    yield from _files(source.files, beside)


def _files(files: Sequence[Path], beside: Path) -> Iterator[Block]:
    """Yield links to the files that lie in the report's directory or below it; others have no place to point to."""
    # Quoted, a name such as javascript:x is no scheme, and one with # or ? is the address of its own file.
    names = [_below(file, beside) for file in files]
    links = [(name.removesuffix("/"), quote(os.fsencode(name))) for name in names if name is not None]
    if links:
        yield Heading("Files", 3)
        yield Links(links)


def _below(file: Path, beside: Path) -> str | None:
    try:
        relative = os.path.relpath(file.resolve(), beside.resolve())
    except ValueError:  # another drive
        return None
    return None if relative.startswith("..") else Path(relative).as_posix() + ("/" if file.is_dir() else "")


def training_time(epochs: Sequence[Mapping[str, Any]]) -> str:
    """Return how many epochs and phases a training had, and how long it took."""
    phases = counted(len({row["phase"] for row in epochs}), "phase")
    seconds = sum(row.get("seconds") or 0 for row in epochs)
    return f"Training: {counted(len(epochs), 'epoch')} in {phases}, {seconds:,.0f} s"


def _remark(entry: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in entry.get("versions", {}).items())
    seconds = f"{entry['seconds']:,.0f} s" if "seconds" in entry else ""
    chosen = _chosen(chosen_by_search(entry))
    return "; ".join(text for text in (chosen, str(entry.get("date", "")), seconds, versions) if text)


def _chosen(setting: Any) -> str:
    return f"--search chose {printable(setting)}" if isinstance(setting, str) else ""


def of_study(source: StudySource, beside: Path) -> Iterator[Block]:
    """Yield the parts of a report about a study."""
    results = source.results
    if len(results["rows"]) < source.planned:
        done = f"{len(results['rows'])} of the {source.planned} commands of this study have results"
        yield Paragraph(f"{done}; kdtool run with its recipe goes on with the rest.")
    for chart in charts(results):
        parts = [chart.title, *_bars(chart), *_left_out(chart)]
        yield Figure(draw_panels(chart), "; ".join(parts))
    if results["means"]:
        yield Heading("Means over seeds, with half the width of their 95 % intervals from three seeds on", 3)
        yield Table(flat(results["means"]), leave_out=same_settings(results["means"]))
    if results["comparison_means"]:
        yield Heading("Comparisons, means over seeds", 3)
        yield Table(flat(results["comparison_means"]), leave_out=("along",))
    if results["comparisons"]:
        yield Heading("All comparisons", 3)
        yield Table(flat(results["comparisons"]), leave_out=("along",))
    if results["rows"]:
        yield Heading("All checkpoints", 3)
        yield Table(flat(results["rows"]), leave_out=("name", "checkpoint", *same_settings(results["rows"])))
    for note in results.get("notes", ()):
        yield Paragraph(f"Not trained alike: {note}.")
    if results["failed"]:
        yield Heading("Failed commands", 3)
        yield Table(results["failed"], leave_out=("log",))
    yield Heading("How it was made", 3)
    chosen = {row.get("name"): _chosen(row.get("chosen")) for row in results["rows"]}
    lines = Commands([(public_line(line), chosen.get(name, "")) for name, line in source.commands.items()])
    yield Folded(counted(len(source.commands), "command"), [lines])
    yield from _files(source.files, beside)


def _bars(chart: Chart) -> Iterator[str]:
    """Yield what the bars of a chart are, if it has any."""
    bars = {point.low is not None for point in chart.points()}
    if True in bars:
        yield "bars are 95 % intervals over seeds"
    if bars == {True, False}:
        yield f"points without one are of fewer than {FEWEST_SEEDS} seeds"


def _left_out(chart: Chart) -> Iterator[str]:
    """Yield what a chart does not show, since there is too much of it; the tables have it."""
    if len(chart.names()) > MOST_LINES:
        yield f"lines after the first {MOST_LINES} are left out"
    if chart.cut:
        yield f"panels after the first {MOST_PANELS} of this report are left out"


def flat(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with a column for each value of the matrix; ``epochs (setting)`` where a row has ``epochs`` itself.

    These values become texts, since they are settings and not measurements, which the table formats as numbers.
    """
    rows = list(rows)
    names = ("name", "step", "a", "b")
    taken = {"study", *(key for row in rows for key in row)}
    titles = {key: f"{key} (setting)" if key in taken else key for row in rows for key in row["values"]}
    return [
        {
            **{key: row[key] for key in names if key in row},
            **{title: str(row["values"].get(key, "")) for key, title in titles.items()},
            **{key: value for key, value in row.items() if key not in (*names, "values")},
        }
        for row in rows
    ]
