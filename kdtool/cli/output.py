"""Format results as tables and as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

# Imported here for the commands; other packages need it too.
from kdtool.utils.formatting import (
    LONGEST_LINE,
    printable,
    printable_lines,
    shown_value as shown_value,
)
from kdtool.utils.strict_json import plain
from kdtool.utils.verbosity import is_quiet

if TYPE_CHECKING:
    from kdtool.cli.work import Work
    from kdtool.models.checkpoint import Checkpoint


def as_json(value: Any) -> str:
    """Return standard JSON, a list of numbers in one line; infinite numbers and NaN become null."""
    return _indented(plain(value), "\n")


def _indented(value: Any, newline: str) -> str:
    """Return plain data as JSON; ``newline`` ends a line and indents the next one.

    `json.dumps` would give each number a line of its own: 16 million of them for the confusion of 4,000 classes.
    """
    inner = f"{newline}  "
    if isinstance(value, dict) and value:
        items = (f"{json.dumps(key)}: {_indented(item, inner)}" for key, item in value.items())
        return f"{{{inner}{f',{inner}'.join(items)}{newline}}}"
    if isinstance(value, list) and not all(issubclass(kind, int | float | None) for kind in {*map(type, value)}):
        return f"[{inner}{f',{inner}'.join(_indented(item, inner) for item in value)}{newline}]"
    return json.dumps(value, allow_nan=False)


def table(
    columns: Mapping[str, str],
    rows: Iterable[Mapping[str, Any]],
    cell: Callable[[Mapping[str, Any], str], str] = lambda row, key: shown_value(key, row.get(key)),
) -> str:
    """Return rows as a text table; ``columns`` maps keys to headings, and columns without a value are left out.

    ``cell`` returns what is shown of a row for a key.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = list(rows)
    headings = {key: title for key, title in columns.items() if any(row.get(key) is not None for row in rows)}
    numeric = {key: all(isinstance(row.get(key), int | float | None) for row in rows) for key in headings}
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for key, title in headings.items():
        grid.add_column(title, justify="right" if numeric[key] else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(cell(row, key) for key in headings))
    return _render(Console, grid)


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and values as text, one pair per line."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {printable(value, LONGEST_LINE)}" for name, value in rows)


def _render(console: Any, grid: Any) -> str:
    text = io.StringIO()
    # So wide that nothing is cut: a terminal wraps long lines, a file keeps them. A table is as wide as its cells.
    console(file=text, width=1_000_000, color_system=None, markup=False, highlight=False, emoji=False).print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


SCORES = {
    "split": "split",
    "accuracy": "accuracy",
    "error": "error",
    "balanced_accuracy": "balanced",
    "top5": "top-5",
    "loss": "loss",
    "images": "images",
}

MODELS = {
    "model": "model",
    "taught_by": "taught by",
    "weight": "weight",
    "kept": "kept",
    "val_accuracy": "val accuracy",
    "split": "split",
    "error": "error",
    "parameters": "parameters",
    "nonzero": "nonzero",
    "compression": "compression",
    "macs": "MACs",
    "latency_ratio": "latency",
}


def zeros_note(size: Mapping[str, Any]) -> str:
    """Return a note about the zeros of a network, or an empty string if it has few."""
    if "nonzero" not in size or size["nonzero"] > 0.95 * size["parameters"]:
        return ""
    zeros = size["parameters"] - size["nonzero"]
    return f"note: {zeros:,} weights are zero; gzip makes the file smaller, but zeros do not run faster in onnxruntime"


def reached_note(reached: Mapping[str, Any]) -> str:
    """Return how much was removed, how much was asked for, and the reason for a difference."""
    digits = 2 if reached["asked"] > 0.99 else 1
    text = f"removed {reached['removed']:.{digits}%} of the {reached['of']}, asked for {reached['asked']:.{digits}%}"
    if "missed" in reached:
        return f"{text}; {reached['missed']}"
    if "capped" in reached:
        text = f"{text}; the rest cannot be removed ({reached['capped']})"
    return f"{text}; left dense, as they compute their weights: {reached['dense']}" if "dense" in reached else text


def show(text: str) -> None:
    """Print text that is no result, such as a table of a command that makes a checkpoint, on stderr."""
    if not is_quiet():
        click.echo(printable_lines(text), err=True)


def write_stand_in(checkpoint: Checkpoint, work: Work) -> None:
    """Write the checkpoint of a dry run, which is not trained, where the steps after it will look for it."""
    from kdtool.models.checkpoint import write

    if work.output is not None:
        write(work.output, checkpoint, tell=False)


def print_result(checkpoint: Checkpoint, work: Work) -> None:
    """Print the result of a training on stderr: the models that the run kept, or else the checkpoint's scores.

    In a dry run nothing is printed (see `write_stand_in`).
    """
    if work.dry_run:
        write_stand_in(checkpoint, work)
        return
    last = checkpoint.history[-1] if checkpoint.history else {}
    if last.get("rows"):
        show(table(MODELS, last["rows"]))
    elif checkpoint.metrics:
        show(table(SCORES, checkpoint.metrics))
    print_notes(last)


def print_notes(entry: Mapping[str, Any], prefix: str = "") -> None:
    """Print the notes on an entry of a checkpoint's history on stderr, each behind ``prefix``."""
    notes = [reached_note(entry["reached"])] if entry.get("reached") else []
    for note in (*notes, zeros_note(entry.get("size", {}))):
        if note:
            show(prefix + note)
