"""``kdtool compare``: compare the predictions, sizes and latency of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import (
    WHICH_DATA,
    checkpoints,
    evaluation_options,
    json_option,
    latency_options,
    picture_options,
)
from kdtool.cli.early import check_latency
from kdtool.cli.output import as_json, facts, shown_value, table
from kdtool.cli.work import Work
from kdtool.errors import UsageError
from kdtool.utils.progress import say

EXAMPLES = """
\b
Examples:
  kdtool compare teacher.pt student.pt
  kdtool compare teacher.pt student.pt pruned.pt --latency -o differ.png
  kdtool distill --method ikd teacher.pt compare teacher.pt
"""

COLUMNS = {
    "letter": "",
    "checkpoint": "checkpoint",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "top5": "top-5",
    "interval": "95 % interval",
    "calibration_error": "calibration error",
    "parameters": "parameters",
    "nonzero": "nonzero",
    "macs": "MACs",
    "file_bytes": "file bytes",
    "latency_ratio": "latency ratio",
}

PAIRWISE = {
    "classified_differently": "images classified differently",
    "l2": "L2 distance of the outputs, mean over images",
    "p": "p-value of McNemar's test of the errors",
}


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    options: dict[str, Any] = {key: parsed.params[key] for key in ("split", "device") if parsed.params[key] is not None}
    picture: Path | None = parsed.params["output"]
    how = {key: parsed.params[key] for key in ("provider", "threads", "batch") if parsed.params[key] is not None}
    if parsed.params["latency"]:
        options |= {"latency": True, **how}
    elif how:
        raise UsageError(f"--{next(iter(how))}: belongs to --latency; give that too")

    def run(work: Work) -> str | None:
        from kdtool import api

        drawn: dict[str, Any] = {"picture": work.output, "force": work.force} if work.output else {}
        a, b, *more = work.checkpoints
        result = api.compare(a, b, *more, **options, **drawn, **parsed.options)
        if work.output:
            say(f"picture: {work.output}")
        return as_json(result) if parsed.params["as_json"] else as_text(result)

    return ChainStep(
        "compare",
        run,
        checkpoints=tuple(parsed.params["checkpoints"]),
        min_checkpoints=2,
        max_checkpoints=None,
        onnx=True,
        output=(lambda _: picture) if picture else None,
        suffix=".png",
        force=parsed.params["force"],
        slow_check=partial(check_latency, how),
    )


def as_text(result: dict[str, Any]) -> str:
    """Return a comparison as text."""
    models = result.get("models") or [result[key] for key in ("a", "b") if isinstance(result.get(key), dict)]
    parts = [table(COLUMNS, _lettered(models))] if models else []
    single = {key: value for key, value in result.items() if not isinstance(value, dict | list)}
    if "mcnemar" in result:
        single |= {"mcnemar_p": result["mcnemar"]["p"], "mcnemar_test": result["mcnemar"]["test"]}
    parts.append(facts([(key.replace("_", " "), shown_value(key, value)) for key, value in single.items()]))
    for key, title in PAIRWISE.items():
        if "pairs" in result:
            parts.append(f"{title}:\n{_matrix(key, result['pairs'], len(models))}")
    return "\n\n".join(parts)


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _lettered(models: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for index, model in enumerate(models):
        interval = f"{model['accuracy_low']:.4f} to {model['accuracy_high']:.4f}" if "accuracy_low" in model else None
        rows.append({**model, "letter": _letter(index) if len(models) > 2 else None, "interval": interval})
    return rows


def _matrix(key: str, pairs: Sequence[dict[str, Any]], count: int) -> str:
    letters = [_letter(index) for index in range(count)]
    rows: list[dict[str, Any]] = [{"letter": letter} for letter in letters]
    for pair in pairs:
        cell = shown_value(key, pair["mcnemar"]["p"] if key == "p" else pair[key])
        rows[pair["a"]][letters[pair["b"]]] = rows[pair["b"]][letters[pair["a"]]] = cell
    return table({"letter": "", **{letter: letter for letter in letters}}, rows)


command = StepCommand(
    "compare",
    plan,
    params=[
        checkpoints("[A] [B]..."),
        json_option(),
        *evaluation_options(),
        click.Option(
            ["--latency"],
            is_flag=True,
            help="measure the latency relative to the first checkpoint in onnxruntime; takes seconds each",
        ),
        *latency_options(),
        *picture_options("images that are classified differently"),
    ],
    groups=[WHICH_DATA],
    help="Compare checkpoints and ONNX files: accuracy, calibration error, images classified differently, distance of "
    "the outputs, and McNemar's test of the errors. Three or more checkpoints are compared in pairs.",
    epilog=EXAMPLES,
)
