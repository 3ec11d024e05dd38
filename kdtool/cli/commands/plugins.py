"""``kdtool plugins``: list the installed methods and check that they can be imported."""

from __future__ import annotations

from dataclasses import asdict

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import json_option
from kdtool.cli.output import as_json, table
from kdtool.cli.plugin_check import check
from kdtool.cli.work import Work
from kdtool.utils.formatting import printable

COLUMNS = {"kind": "kind", "name": "name", "distribution": "distribution", "version": "version", "status": "status"}


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""

    def run(work: Work) -> str | None:
        from kdtool.plugins.entry_points import LONGEST_NAME, installed

        rows = [
            {**asdict(plugin), "status": "broken" if reason else "ok", "reason": reason}
            for plugin, reason in check(installed()).items()
        ]
        if parsed.params["as_json"]:
            return as_json(rows)
        for row in rows:
            row["name"] = printable(row["name"], LONGEST_NAME)
        reasons = [f"{row['name']}: {row['reason']}" for row in rows if row["reason"]]
        return "\n\n".join([table(COLUMNS, rows), *(["broken:\n" + "\n".join(reasons)] if reasons else [])])

    return ChainStep("plugins", run, min_checkpoints=0, max_checkpoints=0)


command = StepCommand(
    "plugins",
    plan,
    alone=True,
    params=[json_option()],
    help="List the installed methods: kind, name, distribution, version, and the reason if one is broken.",
)
