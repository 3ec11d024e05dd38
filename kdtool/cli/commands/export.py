"""``kdtool export``: convert a network to another format and measure its size and latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import WHICH_DATA, checkpoint, json_option, output_options
from kdtool.cli.output import as_json, facts, shown_value, zeros_note
from kdtool.data.options import DataOptions
from kdtool.exporting.exporter import Exporter
from kdtool.plugins.options import split
from kdtool.plugins.registry import make
from kdtool.utils.files import beside

EXAMPLES = """
\b
Examples:
  kdtool export --onnx student.pt
  kdtool export student.pt -o student.onnx --against teacher.pt
  kdtool export student.pt --int8 --max-drop 1%
  kdtool export student.pt --json > costs.json
"""


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    path, against = (parsed.params[name] for name in ("checkpoint", "against"))
    assert parsed.method_class is not None
    own, _ = split(parsed.options, parsed.method_class, DataOptions)
    exporter: Exporter = make("exporters", parsed.method, **own)
    extra = {"against": against} if against is not None else {}

    def run(work: Work) -> str | None:
        from kdtool import api

        costs = api.export(
            work.checkpoints[0], parsed.method, output=work.output, force=work.force, **extra, **parsed.options
        )
        if parsed.params["as_json"]:
            return as_json(costs)
        click.echo(facts(list(_flat(costs))), err=True)
        if zeros_note(costs):
            click.echo(zeros_note(costs), err=True)
        return work.result

    return ChainStep(
        "export",
        run,
        checkpoints=(path,) if path else (),
        output=lambda source: parsed.params["output"] or beside(source, exporter.ending),
        suffix=exporter.suffix,
        force=parsed.params["force"],
        resume=parsed.params["resume"],
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
        *output_options("CHECKPOINT with the suffix of the format, such as student-int8.onnx"),
        json_option(),
        click.Option(
            ["--against"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="checkpoint to compare the latency with  [default: the first teacher]",
        ),
    ],
    groups=[WHICH_DATA],
    help="Convert a network to another format, check the outputs, and measure size and latency.",
    epilog=EXAMPLES,
)
