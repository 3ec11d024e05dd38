"""``kdtool trust``: list, add and remove packages whose code kdtool may import."""

from __future__ import annotations

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import json_option
from kdtool.cli.output import as_json, table
from kdtool.cli.work import Work
from kdtool.commands.trust import trust
from kdtool.utils.progress import say

EXAMPLES = """
\b
Examples:
  kdtool trust
  kdtool trust mypackage
  kdtool trust src/mypackage
  kdtool trust --remove mypackage
"""

COLUMNS = {"package": "package", "path": "path"}


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""

    def run(work: Work) -> str | None:
        rows = trust(*parsed.params["packages"], remove=parsed.params["remove"])
        if parsed.params["as_json"]:
            return as_json(rows)
        if not rows:
            say("no package is trusted; kdtool imports no code but its plugins")
            return None
        shown = [row if row["there"] else {**row, "path": f"{row['path']} (is not there)"} for row in rows]
        return table(COLUMNS, shown)

    return ChainStep("trust", run, min_checkpoints=0, max_checkpoints=0)


command = StepCommand(
    "trust",
    plan,
    alone=True,
    params=[
        click.Argument(["packages"], required=False, nargs=-1, metavar="[PACKAGE]..."),
        click.Option(["--remove"], is_flag=True, help="stop trusting these packages"),
        json_option(),
    ],
    help="List the packages whose code kdtool may import to build networks that commands and checkpoints name, such as "
    "mypackage.nets:make_net; with PACKAGE (its name or its path), add one. They are remembered in trusted.json in "
    "KDTOOL_CONFIG, else in ~/.config/kdtool. KDTOOL_TRUST has packages that are trusted without being remembered.",
    epilog=EXAMPLES,
)
