"""``kdtool models``: list the networks that can be built, with their parameters."""

from __future__ import annotations

from typing import Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import json_option
from kdtool.cli.output import as_json, table
from kdtool.cli.work import Work
from kdtool.errors import UsageError
from kdtool.plugins.entry_points import names

EXAMPLES = """
\b
Examples:
  kdtool models
  kdtool models 'resnet1*'
  kdtool models timm:convnext --count
  kdtool models 'kdtool:*' --json
"""

COLUMNS = {"network": "network", "parameters": "parameters"}

AT_ONCE = 40
"""So many networks are counted without being asked."""


_PATTERN = "write a part of its name, or a pattern with *"


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    pattern: str = parsed.params["pattern"] or ""

    def run(work: Work) -> str | None:
        from kdtool.commands.models import networks

        rows = networks(pattern, most=None if parsed.params["count"] else AT_ONCE)
        if not rows:
            hint = f"for those of {pattern} write {pattern}:" if pattern in names("teachers") else _PATTERN
            raise UsageError(f"models: no network matches {pattern!r}; {hint}")
        if parsed.params["as_json"]:
            return as_json(rows)
        if uncounted(rows):
            click.echo(
                f"{uncounted(rows):,} of {len(rows):,} networks are not counted yet; a narrower pattern or --count "
                "counts their parameters",
                err=True,
            )
        return table(COLUMNS, rows)

    return ChainStep("models", run, min_checkpoints=0, max_checkpoints=0)


def uncounted(rows: list[dict[str, Any]]) -> int:
    """Return the number of networks whose parameters are not known and were not tried."""
    return sum("parameters" not in row for row in rows)


command = StepCommand(
    "models",
    plan,
    alone=True,
    params=[
        click.Argument(["pattern"], required=False, metavar="[PATTERN]"),
        json_option(),
        click.Option(["--count"], is_flag=True, help=f"count the parameters of all, not only of up to {AT_ONCE}"),
    ],
    help="List the networks that kdtool teacher builds, with their parameters for their own classes and images. "
    "PATTERN is a part of the name, or a pattern of the whole name with * and ?, with or without the source. The "
    "numbers are kept in the cache.",
    epilog=EXAMPLES,
)
