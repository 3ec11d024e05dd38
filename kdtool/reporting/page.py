"""The page of `kdtool report`: what checkpoints, runs and studies are, their scores, and how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdtool.commands.history import public_line, public_word
from kdtool.errors import UsageError
from kdtool.plotting.svg import draw_chart, draw_curves
from kdtool.reporting.html import commands, facts, figure, folded, heading, page, paragraph, picture, table
from kdtool.reporting.sources import CheckpointSource, StudySource, read_sources
from kdtool.study.charts import charts
from kdtool.utils.files import beside, check_output, slug, write_text

SUFFIX = "-report.html"

SIZES = ("classes", "parameters", "nonzero", "macs", "compression", "file_bytes")
"""The keys of `kdtool.inspect` that are shown as the size of a network."""


def report(
    *sources: str | Path, output: str | Path | None = None, figures: str | Path | None = None, force: bool = False
) -> Path:
    """Write a page about checkpoints, runs and studies, and return its path.

    ``sources`` are checkpoints, and directories of runs (``.run``) and studies (``.study``). The page is one HTML file
    that needs no network and no scripts. For each checkpoint it shows the network, its sizes, its metrics on each
    split, the models that its run kept, the curves of the training, the pictures (``*.svg``) in the run's directory,
    and the commands that made it. For each study it shows the tables, and charts of the accuracy against each number of
    the matrix. ``figures`` is a directory to which these charts are written as well.

    Raises:
        UsageError: there is no source, a source is neither a checkpoint nor such a directory, or the output exists
            already.
        Error: a source is damaged.
    """
    if not sources:
        raise UsageError("report: nothing to report; name a checkpoint, or the directory of a run or a study")
    paths = [Path(source) for source in sources]
    target = Path(output) if output is not None else beside(paths[0], SUFFIX)
    if target.suffix != ".html":
        raise UsageError(f"-o {target}: the name of a report must end in .html")
    check_output(target, force=force)
    if figures is not None and not Path(figures).is_dir():
        raise UsageError(f"{figures}: no such directory; create it first")
    sections = read_sources(paths)
    parts = [*_overview([section for section in sections if isinstance(section, CheckpointSource)])]
    for section in sections:
        title = [heading(section.name)] if len(sections) > 1 else []
        parts += [*title, *(_study(section) if isinstance(section, StudySource) else _checkpoint(section))]
    names = " and ".join(section.name for section in sections[:3]) + (" ..." if len(sections) > 3 else "")
    write_text(target, page(names, parts))
    for section in sections if figures is not None else ():
        for chart in charts(section.results) if isinstance(section, StudySource) else ():
            write_text(Path(figures or "") / f"{slug(chart.title)}.svg", draw_chart(chart) + "\n")
    return target


def _overview(checkpoints: Sequence[CheckpointSource]) -> Iterator[str]:
    """Yield a table of all checkpoints, if there are several."""
    rows = []
    for checkpoint in checkpoints:
        about = checkpoint.about
        if about is not None:
            scores = {f"{score['split']} accuracy": score.get("accuracy") for score in about["metrics"]}
            sizes = {key: about[key] for key in SIZES}
            rows.append({"checkpoint": checkpoint.name, "network": about["source"], **sizes, **scores})
    if len(rows) > 1:
        yield table(rows)


def _checkpoint(source: CheckpointSource) -> Iterator[str]:
    """Yield the parts of the page about a checkpoint and its run."""
    history: Sequence[Mapping[str, Any]] = []
    if source.about is None:
        run = source.run or {}
        yield paragraph("This run is not finished.")
        data = public_word(run["data"]["name"]) if run.get("data") else None
        yield facts([("command", run.get("command")), ("method", run.get("method")), ("data", data)])
    else:
        about, history = source.about, source.about["history"]
        data = public_word(about["data"]["name"]) if about["data"] else None
        size = "x".join(map(str, about["input"]))
        yield facts(
            [("network", about["source"]), ("input", size), *((key, about[key]) for key in SIZES), ("data", data)]
        )
        if about["metrics"]:
            yield heading("Scores", 3)
            yield table(about["metrics"])
    for entry in history:
        if entry.get("rows"):
            yield heading(f"Models of {entry['command']} {entry['method']}", 3)
            yield table(entry["rows"])
    if source.epochs:
        yield heading("Training", 3)
        yield figure(draw_curves(source.epochs), _training_time(source.epochs))
    for name, svg in source.pictures.items():
        yield picture(svg, name)
    if history:
        yield heading("How it was made", 3)
        yield commands((public_line(entry["line"]), _remark(entry)) for entry in history)
        for used in (used for entry in history for used in entry.get("inputs", ()) if used.get("lines")):
            lines = commands((public_line(line), "") for line in used["lines"])
            yield folded(f"How its {used['role']} {Path(used['path']).name} was made", lines)


def _training_time(epochs: Sequence[Mapping[str, Any]]) -> str:
    phases = len({row["phase"] for row in epochs})
    seconds = sum(row.get("seconds", 0) for row in epochs)
    return f"{len(epochs)} epochs in {phases} phase{'s' * (phases > 1)}, {seconds:,.0f} s"


def _remark(entry: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in entry.get("versions", {}).items())
    seconds = f"{entry['seconds']:,.0f} s" if "seconds" in entry else ""
    return "; ".join(text for text in (str(entry.get("date", "")), seconds, versions) if text)


def _study(source: StudySource) -> Iterator[str]:
    """Yield the parts of the page about a study."""
    results = source.results
    for chart in charts(results):
        bars = any(point.low is not None for panel in chart.panels for line in panel.lines.values() for point in line)
        yield figure(draw_chart(chart), chart.title + "; bars are 95 % intervals over seeds" * bars)
    if results["means"]:
        yield heading("Means over seeds, with half the width of their 95 % intervals", 3)
        yield table(_flat(results["means"]))
    if results["comparison_means"] or results["comparisons"]:
        yield heading("Comparisons" + ", means over seeds" * bool(results["comparison_means"]), 3)
        yield table(_flat(results["comparison_means"] or results["comparisons"]))
    if results["rows"]:
        yield heading("All checkpoints", 3)
        yield table(_flat(results["rows"]), leave_out=("name", "checkpoint"))
    if results["failed"]:
        yield heading("Failed commands", 3)
        yield table(results["failed"], leave_out=("log",))
    yield heading("How it was made", 3)
    lines = ((public_line(line), "") for line in source.commands.values())
    yield folded(f"{len(source.commands)} commands", commands(lines))


def _flat(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with a column for each value of the matrix.

    These values become texts, since they are settings and not measurements, which the table formats as numbers.
    """
    rows = list(rows)
    names = ("name", "step", "a", "b")
    values = dict.fromkeys(key for row in rows for key in row["values"])
    return [
        {
            **{key: row[key] for key in names if key in row},
            **{key: str(row["values"].get(key, "")) for key in values},
            **{key: value for key, value in row.items() if key not in (*names, "values")},
        }
        for row in rows
    ]
