"""``kdtool compare``: how alike checkpoints are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.commands.evaluate import device_option, split_option
from kdtool.cli.common import WHICH_DATA, checkpoints, json_option
from kdtool.cli.output import as_json, facts, shown_value, table

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
    "interval": "95 % interval",
    "calibration_error": "calibration error",
    "parameters": "parameters",
    "nonzero": "nonzero",
    "macs": "MACs",
    "file_bytes": "file bytes",
    "latency_ratio": "latency ratio",
}

PAIRWISE = {
    "classified_differently": "images that get different classes",
    "l2": "L2 distance of the outputs, mean over images",
    "p": "McNemar's test of the errors, p",
}


def plan(given: Given) -> ChainStep:
    """Plan the step."""
    told: dict[str, Any] = {key: given.params[key] for key in ("split", "device") if given.params[key] is not None}
    picture: Path | None = given.params["output"]
    if given.params["latency"]:
        told["latency"] = True

    def run(work: Work) -> str | None:
        from kdtool import api

        drawn: dict[str, Any] = {"picture": work.output, "force": work.force} if work.output else {}
        a, b, *more = work.checkpoints
        result = api.compare(a, b, *more, **told, **drawn, **given.options)
        if work.output:
            click.echo(f"the images are in {work.output}", err=True)
        return as_json(result) if given.params["as_json"] else described(result)

    return ChainStep(
        "compare",
        run,
        checkpoints=tuple(given.params["checkpoints"]),
        least=2,
        most=None,
        output=(lambda _: picture) if picture else None,
        suffix=".png",
        force=given.params["force"],
    )


def described(result: dict[str, Any]) -> str:
    """Return a comparison, for a person."""
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


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def _lettered(models: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for place, model in enumerate(models):
        interval = f"{model['accuracy_low']:.4f} to {model['accuracy_high']:.4f}" if "accuracy_low" in model else None
        rows.append({**model, "letter": _letter(place) if len(models) > 2 else None, "interval": interval})
    return rows


def _matrix(key: str, pairs: Sequence[dict[str, Any]], count: int) -> str:
    letters = [_letter(place) for place in range(count)]
    rows: list[dict[str, Any]] = [{"letter": letter} for letter in letters]
    for pair in pairs:
        shown = shown_value(key, pair["mcnemar"]["p"] if key == "p" else pair[key])
        rows[pair["a"]][letters[pair["b"]]] = rows[pair["b"]][letters[pair["a"]]] = shown
    return table({"letter": "", **{letter: letter for letter in letters}}, rows)


command = StepCommand(
    "compare",
    plan,
    params=[
        checkpoints("[A] [B]..."),
        json_option(),
        split_option(),
        device_option(),
        click.Option(
            ["--latency"], is_flag=True, help="measure each beside the first in onnxruntime; takes seconds for each"
        ),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="a picture of the images that get different classes, .png",
        ),
        click.Option(["-f", "--force"], is_flag=True, help="overwrite the picture that is there"),
    ],
    groups=[WHICH_DATA],
    help="Show how alike checkpoints are: accuracy, calibration, images that get different classes, distance of the "
    "outputs, McNemar's test of the errors. Three or more are compared in pairs.",
    epilog=EXAMPLES,
)
