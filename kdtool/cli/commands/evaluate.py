"""``kdtool evaluate``: measure the accuracy and loss of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import WHICH_DATA, checkpoints, evaluation_options, json_option, picture_options
from kdtool.cli.output import SCORES, as_json, table
from kdtool.cli.work import Work
from kdtool.utils.formatting import printable
from kdtool.utils.progress import say

EXAMPLES = """
\b
Examples:
  kdtool evaluate teacher.pt student.pt student-int8.onnx
  kdtool evaluate student.pt --split val --json
  kdtool evaluate student.pt --per-class -o confusion.png
"""

CLASSES = {
    "class": "class",
    "images": "images",
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "taken_for": "most often taken for",
}


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    options = {name: parsed.params[name] for name in ("split", "device") if parsed.params[name] is not None}

    picture: Path | None = parsed.params["output"]
    if parsed.params["per_class"]:
        options["per_class"] = True

    def run(work: Work) -> str | None:
        from kdtool import api

        drawn: dict[str, Any] = {"picture": work.output, "force": work.force} if work.output else {}
        rows = api.evaluate(list(work.checkpoints), **options, **drawn, **parsed.options)
        if work.output:
            say(f"picture: {work.output}")
        return as_json(rows) if parsed.params["as_json"] else as_text(rows)

    return ChainStep(
        "evaluate",
        run,
        checkpoints=tuple(parsed.params["checkpoints"]),
        max_checkpoints=None,
        onnx=True,
        output=(lambda _: picture) if picture else None,
        suffix=".png",
        force=parsed.params["force"],
    )


def as_text(rows: list[dict[str, Any]]) -> str:
    """Return the scores as a table, followed by one of the classes of each checkpoint, if they were asked for."""
    parts = [table({"checkpoint": "checkpoint", **SCORES}, rows)]
    for row in rows:
        if "classes" in row:
            title = f"{row['checkpoint']}:\n" if len(rows) > 1 else ""
            parts.append(title + table(CLASSES, _with_confusions(row)))
    return "\n\n".join(parts)


def _with_confusions(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the classes, each with the class that it is most often taken for."""
    from kdtool.utils.classification import most_taken_for

    shown = []
    names = [about["class"] for about in row["classes"]]
    for about, wrong in zip(row["classes"], most_taken_for(names, row["confusion"]), strict=True):
        taken = f"{printable(wrong[0], 40)} ({wrong[1]})" if wrong is not None else None
        shown.append({**about, "class": printable(about["class"], 40), "taken_for": taken})
    return shown


command = StepCommand(
    "evaluate",
    plan,
    params=[
        checkpoints(),
        json_option(),
        *evaluation_options(),
        click.Option(["--per-class"], is_flag=True, help="show recall, precision and F1 of each class"),
        *picture_options("the confusion matrix"),
    ],
    groups=[WHICH_DATA],
    help="Measure accuracy and loss of checkpoints and ONNX files, on the data set recorded in each unless "
    "--data is given.",
    epilog=EXAMPLES,
)
