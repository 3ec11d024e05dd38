"""``kdtool export``: another format, with what it costs to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import checkpoint, json_option, output
from kdtool.cli.output import as_json, facts, shown_value, zeros_note
from kdtool.exporting.exporter import Exporter
from kdtool.utils.files import beside

EXAMPLES = """
\b
Examples:
  kdtool export --onnx student.pt
  kdtool export student.pt -o student.onnx --against teacher.pt
  kdtool export student.pt --json > costs.json
"""


def plan(given: Given) -> ChainStep:
    """Plan the step."""
    path, against, data_dir = (given.params[name] for name in ("checkpoint", "against", "data_dir"))
    suffix = given.method_class.suffix if given.method_class and issubclass(given.method_class, Exporter) else ""
    beyond = {name: value for name, value in (("against", against), ("data_dir", data_dir)) if value is not None}

    def run(work: Work) -> str | None:
        from kdtool import api

        costs = api.export(
            work.checkpoints[0], given.method, output=work.output, force=work.force, **beyond, **given.options
        )
        if given.params["as_json"]:
            return as_json(costs)
        click.echo(facts(list(_flat(costs))), err=True)
        if zeros_note(costs):
            click.echo(zeros_note(costs), err=True)
        return work.result

    return ChainStep(
        "export",
        run,
        checkpoints=(path,) if path else (),
        output=lambda source: given.params["output"] or beside(source, suffix),
        suffix=suffix,
        force=given.params["force"],
        resume=given.params["resume"],
        files=(against,) if against else (),
    )


def _flat(costs: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in costs.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        elif value is not None:
            rows.append((f"{prefix}{name}".replace("_", " "), shown_value(name, value)))
    return rows


command = StepCommand(
    "export",
    plan,
    kind="exporters",
    default="onnx",
    flags=True,
    params=[
        checkpoint(),
        *output("CHECKPOINT with the format's ending"),
        json_option(),
        click.Option(
            ["--against"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="checkpoint to compare the latency with  [default: the first teacher]",
        ),
        click.Option(
            ["--data-dir"],
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="where data sets live, for the file's accuracy (or set KDTOOL_DATA)",
        ),
    ],
    help="Write a network in another format, check it and measure it.",
    epilog=EXAMPLES,
)
