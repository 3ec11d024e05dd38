"""``kdtool demo``: the whole workflow on data that needs no download."""

from __future__ import annotations

from pathlib import Path

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import json_option
from kdtool.cli.output import as_json, table
from kdtool.cli.work import Work
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


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    directory: Path = parsed.params["output"]
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory}: is a file; name a directory with -o")

    def run(work: Work) -> str | None:
        from kdtool import demo

        if parsed.params["dry_run"]:
            demo.dry_run()
            return None
        rows = demo.run(directory, force=parsed.params["force"])
        return as_json(rows) if parsed.params["as_json"] else table(COLUMNS, rows)

    return ChainStep("demo", run, min_checkpoints=0, max_checkpoints=0)


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
            help="working directory  [default: kdtool-demo]",
        ),
        click.Option(["-f", "--force"], is_flag=True, help="repeat steps that are already done"),
        click.Option(["--dry-run"], is_flag=True, help="say what would be trained, and in how much time, and end"),
        json_option(),
    ],
    help="Show the whole workflow on the digits data set (no download): train a teacher, distil it four times, prune, "
    "export and measure.",
)
