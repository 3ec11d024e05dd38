"""`kdtool report`: what checkpoints, runs and studies are, their scores, and how they were made."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdtool.errors import UsageError
from kdtool.reporting.blocks import Block, Heading
from kdtool.reporting.cells import MOST_COLUMNS, is_plain
from kdtool.reporting.classes import class_scores
from kdtool.reporting.html import page, render_all
from kdtool.reporting.latency import latencies
from kdtool.reporting.markdown import Markdown
from kdtool.reporting.outputs import figures_of, unwritten, write_all
from kdtool.reporting.overview import Measured, overview, rows_of
from kdtool.reporting.sections import flat, of_checkpoint, of_study
from kdtool.reporting.sources import CheckpointSource, StudySource, read_sources
from kdtool.utils.files import beside, check_output
from kdtool.utils.formatting import printable_lines

SUFFIX = "-report.html"

SUFFIXES = (".html", ".md", ".csv")
"""The formats of a report."""


def report(
    *sources: str | Path,
    output: str | Path | None = None,
    figures: str | Path | None = None,
    latency: bool = False,
    per_class: bool = False,
    force: bool = False,
) -> Path:
    """Write a report about checkpoints, runs and studies, and return its path.

    ``sources`` are checkpoints, and directories of runs (``.run``) and studies (``.study``). The ending of ``output``
    decides the format. ``.html`` is one page that needs no network and no scripts. For each checkpoint it shows the
    network, its sizes and its metrics beside those of its teacher, the models that its run kept, the curves of the
    training, the pictures (``*.svg``) in the run's directory, the commands that made it, and links to its files; of
    several networks also the accuracy against what they cost. For each study it shows the tables, and charts of the
    accuracy against each number of the matrix. ``.md`` is the same in Markdown, with its charts as files beside it.
    ``.csv`` has a row for each network, or for each checkpoint of a study, with all digits. ``figures`` is a directory
    to which the charts of studies are written as well; of several studies their names begin with that of the study.
    Existing files are replaced only with ``force``, but a chart that is there with the same content is no error; if one
    file may not be replaced, none is written. ``latency`` measures the networks in onnxruntime, which takes seconds for
    each. ``per_class`` measures them on the data set that each remembers, and shows recall, precision and F1 of each
    class, the confusion matrix, the balanced accuracy and the top-5 accuracy.

    Raises:
        UsageError: there is no source, a source is neither a checkpoint nor such a directory, or the output or a chart
            exists already.
        Error: a source is damaged.
    """
    if not sources:
        raise UsageError("report: nothing to report; name a checkpoint, or the directory of a run or a study")
    paths = [Path(source) for source in sources]
    target = Path(output) if output is not None else beside(paths[0], SUFFIX)
    if target.suffix not in SUFFIXES:
        raise UsageError(f"-o {target}: the name of a report must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    check_output(target, force=force)
    if figures is not None and not Path(figures).is_dir():
        raise UsageError(f"{figures}: no such directory; create it first")
    sections = read_sources(paths)
    files = figures_of(sections, Path(figures)) if figures is not None else {}
    unwritten(files, force=force)  # before minutes of measurements
    networks = [section for section in sections if isinstance(section, CheckpointSource)]
    measured: dict[str, dict[str, Any]] = {}
    for numbers in (latencies(networks) if latency else {}, class_scores(networks) if per_class else {}):
        for path, row in numbers.items():
            measured[path] = {**measured.get(path, {}), **row}
    text, beside_it = _rendered(target, sections, measured)
    # All are checked before the first is written.
    write_all(unwritten({**files, **beside_it}, force=force))
    write_all({target: text.encode(errors="replace")})  # the name of a file may be no UTF-8
    return target


def _rendered(
    target: Path, sections: Sequence[CheckpointSource | StudySource], measured: Measured
) -> tuple[str, dict[Path, bytes]]:
    """Return the text of a report, and the files that it shows, by their paths."""
    names = _joined([section.name for section in sections])
    if target.suffix == ".csv":
        return _csv(list(_rows(sections, measured))), {}
    blocks = list(_blocks(sections, measured, target.parent))
    if target.suffix == ".html":
        return page(names, render_all(blocks)), {}
    writer = Markdown(target.stem)
    text = writer.text(names, blocks)
    return text, {target.parent / name: content for name, content in writer.charts.items()}


def _blocks(sections: Sequence[CheckpointSource | StudySource], measured: Measured, directory: Path) -> Iterator[Block]:
    yield from overview([section for section in sections if isinstance(section, CheckpointSource)], measured)
    for section in sections:
        if isinstance(section, StudySource):
            blocks = of_study(section, directory)
        else:
            path = section.about["path"] if section.about else None
            blocks = of_checkpoint(section, directory, measured.get(path) if path else None)
        if len(sections) > 1:
            yield Heading(section.name)
            yield from blocks
        else:  # the title of the report is the heading above
            yield from (replace(block, level=2) if isinstance(block, Heading) else block for block in blocks)


def _rows(sections: Sequence[CheckpointSource | StudySource], measured: Measured) -> Iterator[dict[str, Any]]:
    yield from rows_of([section for section in sections if isinstance(section, CheckpointSource)], measured)
    for section in sections:
        if isinstance(section, StudySource):
            yield from ({"study": section.name, **row} for row in flat(section.results["rows"]))


def _joined(names: Sequence[str]) -> str:
    """Return names as one text, of more than four the first three."""
    shown = list(names) if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV, with a column for each of the first keys that has a text or a number in some row."""
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if is_plain(value)))[:MOST_COLUMNS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_harmless, keys))
    for row in rows:
        writer.writerow([_harmless(value) if is_plain(value := row.get(key)) else "" for key in keys])
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """Return a value that no spreadsheet takes for a formula, without control characters."""
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else "") + printable_lines(value, None)
