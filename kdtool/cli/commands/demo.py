"""``kdtool demo``: the main job on data that needs no download."""

from __future__ import annotations

from pathlib import Path

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import json_option
from kdtool.cli.output import as_json, table
from kdtool.errors import UsageError

COLUMNS = {
    "model": "model",
    "taught_by": "taught by",
    "test_error": "test error",
    "parameters": "parameters",
    "nonzero": "nonzero",
    "compression": "compression",
    "macs": "MACs",
    "file_bytes": "file bytes",
    "gzip_bytes": "gzip bytes",
    "latency_ratio": "latency ratio",
}


def plan(given: Given) -> ChainStep:
    """Plan the step."""
    where: Path = given.params["output"]
    if where.exists() and not where.is_dir():
        raise UsageError(f"{where}: is a file; name a directory with -o")

    def run(work: Work) -> str | None:
        from kdtool import demo

        rows = demo.run(where, force=given.params["force"])
        return as_json(rows) if given.params["as_json"] else table(COLUMNS, rows)

    return ChainStep("demo", run, least=0, most=0)


command = StepCommand(
    "demo",
    plan,
    alone=True,
    params=[
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            default=Path("kdtool-demo"),
            metavar="DIR",
            help="where to work  [default: kdtool-demo]",
        ),
        click.Option(["-f", "--force"], is_flag=True, help="do again what is done there already"),
        json_option(),
    ],
    help="Do the main job on real digits: train a teacher, distil it four times, prune, export and measure.",
)
