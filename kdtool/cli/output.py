"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

# Named again, for the commands: the core needs it too.
from kdtool.utils.formatting import shown_value as shown_value


def as_json(value: Any) -> str:
    """Return JSON that any reader takes: numbers that are not finite become null."""
    return json.dumps(_plain(value), indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as a table; ``columns`` are the keys with their headings, and empty ones are left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = list(rows)
    shown = {key: title for key, title in columns.items() if any(row.get(key) is not None for row in rows)}
    numeric = {key: all(isinstance(row.get(key), int | float | None) for row in rows) for key in shown}
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for key, title in shown.items():
        made.add_column(title, justify="right" if numeric[key] else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(shown_value(key, row.get(key)) for key in shown))
    return _rendered(Console, made)


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and values below each other."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _rendered(console: Any, made: Any) -> str:
    text = io.StringIO()
    # Wide enough that nothing is cut: the terminal wraps, a file does not.
    console(file=text, width=1000, color_system=None, markup=False, highlight=False, emoji=False).print(made)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


SCORES = {"split": "split", "accuracy": "accuracy", "error": "error", "loss": "loss", "images": "images"}

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
    """Return what to know about a network with many zeros; empty where it has few."""
    if "nonzero" not in size or size["nonzero"] > 0.95 * size["parameters"]:
        return ""
    zeros = size["parameters"] - size["nonzero"]
    return f"note: {zeros:,} weights are zero; gzip makes them small, but zeros do not run faster in onnxruntime"


def reached_note(reached: Mapping[str, Any]) -> str:
    """Return how much of what was asked for was removed."""
    digits = 2 if reached["asked"] > 0.99 else 1
    text = f"removed {reached['removed']:.{digits}%} of the {reached['of']}, asked for {reached['asked']:.{digits}%}"
    if "missed" in reached:
        return f"{text}; {reached['missed']}"
    return f"{text}; the rest has to stay ({reached['capped']})" if "capped" in reached else text


def tell_result(checkpoint: Any) -> None:
    """Say on stderr how a checkpoint came out: the models that its run kept, else its scores."""
    last = checkpoint.history[-1] if checkpoint.history else {}
    if last.get("rows"):
        click.echo(table(MODELS, last["rows"]), err=True)
    elif checkpoint.metrics:
        click.echo(table(SCORES, checkpoint.metrics), err=True)
    tell_notes(last)


def tell_notes(entry: Mapping[str, Any], about: str = "") -> None:
    """Say on stderr what a history's entry has to be known of ``about``."""
    notes = [reached_note(entry["reached"])] if entry.get("reached") else []
    for note in (*notes, zeros_note(entry.get("size", {}))):
        if note:
            click.echo(about + note, err=True)
