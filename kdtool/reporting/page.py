"""A page about checkpoints, runs and studies: what they are, how they were made and how well they do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdtool.commands.history import public_line, public_word
from kdtool.errors import UsageError
from kdtool.plotting.svg import curves, drawn
from kdtool.reporting.html import commands, facts, figure, folded, heading, page, paragraph, picture, table
from kdtool.reporting.sources import Studied, Trained, read_sources
from kdtool.study.charts import charts
from kdtool.utils.files import beside, check_output, slug, write_text

ENDING = "-report.html"

SIZES = ("classes", "parameters", "nonzero", "macs", "compression", "file_bytes")


def report(
    *sources: str | Path, output: str | Path | None = None, figures: str | Path | None = None, force: bool = False
) -> Path:
    """Write a page about checkpoints, runs and studies, and return its path.

    ``sources`` are checkpoints and directories of runs (``.run``) and of studies (``.study``). The page, one HTML file
    that needs no network and no scripts, tells of each checkpoint what it is and with which commands it was made, its
    sizes, its metrics with their splits, the models that its run kept, how the training went, and the pictures
    (``*.svg``) that the run left; of each study its tables, and accuracy against each number of its matrix. ``figures``
    is a directory that gets these charts as files as well.

    Raises:
        UsageError: there is no source, one is neither of these, or the output is in the way.
        Error: what lies there is damaged.
    """
    if not sources:
        raise UsageError("report: name a checkpoint, the directory of a run or that of a study")
    paths = [Path(source) for source in sources]
    target = Path(output) if output is not None else beside(paths[0], ENDING)
    if target.suffix != ".html":
        raise UsageError(f"-o {target}: a report's name ends in .html")
    check_output(target, force=force)
    if figures is not None and not Path(figures).is_dir():
        raise UsageError(f"{figures}: there is no such directory; make it first")
    found = read_sources(paths)
    parts = [*_overview([one for one in found if isinstance(one, Trained)])]
    for one in found:
        title = [heading(one.name)] if len(found) > 1 else []
        parts += [*title, *(_study(one) if isinstance(one, Studied) else _trained(one))]
    write_text(target, page(" and ".join(one.name for one in found[:3]) + (" ..." if len(found) > 3 else ""), parts))
    for one in found if figures is not None else ():
        for chart in charts(one.results) if isinstance(one, Studied) else ():
            write_text(Path(figures or "") / f"{slug(chart.title)}.svg", drawn(chart) + "\n")
    return target


def _overview(found: Sequence[Trained]) -> Iterator[str]:
    """Yield a table of all checkpoints, where there are several."""
    rows = []
    for one in found:
        if one.about is not None:
            scores = {f"{score['split']} accuracy": score.get("accuracy") for score in one.about["metrics"]}
            sizes = {key: one.about[key] for key in SIZES}
            rows.append({"checkpoint": one.name, "network": one.about["source"], **sizes, **scores})
    if len(rows) > 1:
        yield table(rows)


def _trained(one: Trained) -> Iterator[str]:
    """Yield what there is to tell of a checkpoint and its run."""
    history: Sequence[Mapping[str, Any]] = []
    if one.about is None:
        told = one.told or {}
        yield paragraph("This run has not come to its end.")
        data = public_word(told["data"]["name"]) if told.get("data") else None
        yield facts([("command", told.get("command")), ("method", told.get("method")), ("data", data)])
    else:
        about, history = one.about, one.about["history"]
        data = public_word(about["data"]["name"]) if about["data"] else None
        size = "x".join(map(str, about["input"]))
        yield facts(
            [("network", about["source"]), ("input", size), *((key, about[key]) for key in SIZES), ("data", data)]
        )
        if about["metrics"]:
            yield heading("How well it does", 3)
            yield table(about["metrics"])
    for entry in history:
        if entry.get("rows"):
            yield heading(f"Models of {entry['command']} {entry['method']}", 3)
            yield table(entry["rows"])
    if one.epochs:
        yield heading("Training", 3)
        yield figure(curves(one.epochs), _epochs(one.epochs))
    for name, svg in one.pictures.items():
        yield picture(svg, name)
    if history:
        yield heading("How it was made", 3)
        yield commands((public_line(entry["line"]), _remark(entry)) for entry in history)
        for given in (given for entry in history for given in entry.get("inputs", ()) if given.get("lines")):
            lines = commands((public_line(line), "") for line in given["lines"])
            yield folded(f"How its {given['role']} {Path(given['path']).name} was made", lines)


def _epochs(epochs: Sequence[Mapping[str, Any]]) -> str:
    phases = len({row["phase"] for row in epochs})
    seconds = sum(row.get("seconds", 0) for row in epochs)
    return f"{len(epochs)} epochs in {phases} phase{'s' * (phases > 1)}, {seconds:,.0f} s"


def _remark(entry: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in entry.get("versions", {}).items())
    seconds = f"{entry['seconds']:,.0f} s" if "seconds" in entry else ""
    return "; ".join(text for text in (str(entry.get("date", "")), seconds, versions) if text)


def _study(one: Studied) -> Iterator[str]:
    """Yield what there is to tell of a study."""
    results = one.results
    for chart in charts(results):
        bars = any(point.low is not None for panel in chart.panels for line in panel.lines.values() for point in line)
        yield figure(drawn(chart), chart.title + "; bars are 95 % intervals over seeds" * bars)
    if results["means"]:
        yield heading("Means over seeds, with half the width of their 95 % intervals", 3)
        yield table(_flat(results["means"]))
    if results["comparison_means"] or results["comparisons"]:
        yield heading("How alike the results are" + ", means over seeds" * bool(results["comparison_means"]), 3)
        yield table(_flat(results["comparison_means"] or results["comparisons"]))
    if results["rows"]:
        yield heading("All checkpoints", 3)
        yield table(_flat(results["rows"]), leave_out=("name", "checkpoint"))
    if results["failed"]:
        yield heading("What failed", 3)
        yield table(results["failed"], leave_out=("log",))
    yield heading("How it was made", 3)
    lines = ((public_line(line), "") for line in one.commands.values())
    yield folded(f"{len(one.commands)} commands", commands(lines))


def _flat(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with the values of the matrix as columns of their own, as texts: they are not what was measured."""
    rows = list(rows)
    who = ("name", "step", "a", "b")
    values = dict.fromkeys(key for row in rows for key in row["values"])
    return [
        {
            **{key: row[key] for key in who if key in row},
            **{key: str(row["values"].get(key, "")) for key in values},
            **{key: value for key, value in row.items() if key not in (*who, "values")},
        }
        for row in rows
    ]
