"""``kdtool inspect``: show what a checkpoint contains and how it was made."""

from __future__ import annotations

from typing import Any

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import checkpoints, json_option
from kdtool.cli.output import SCORES, as_json, facts, shown_value, table

EXAMPLES = """
\b
Examples:
  kdtool inspect student.pt
  kdtool inspect student.pt --json
  kdtool inspect --stages teacher.pt
"""

STAGES = {"name": "stage", "blocks": "blocks", "parameters": "parameters", "output": "output", "dense": "dense"}

NO_STAGES = "no stages with residual or dense blocks that can be dropped; to make it smaller, use refine --method halve"


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""

    def run(work: Work) -> str | None:
        from kdtool import api

        options = {"stages": True} if parsed.params["stages"] else {}
        results = [api.inspect(path, **options) for path in work.checkpoints]
        if parsed.params["as_json"]:
            return as_json(results[0] if len(results) == 1 else results)
        return "\n\n".join(map(as_text, results))

    return ChainStep("inspect", run, checkpoints=tuple(parsed.params["checkpoints"]), max_checkpoints=None)


def as_text(about: dict[str, Any]) -> str:
    """Return the description of a checkpoint as text."""
    rows = [("checkpoint", about.get("path") or "in memory"), ("network", about.get("source", ""))]
    rows.append(("input", "x".join(map(str, about["input"]))))
    sizes = ("classes", "parameters", "nonzero", "macs", "compression", "file_bytes", "gzip_bytes")
    rows += [(key.replace("_", " "), shown_value(key, about[key])) for key in sizes if about.get(key) is not None]
    if about.get("early_epoch") is not None:
        rows.append(("early weights", f"of epoch {about['early_epoch']}"))
    data = about.get("data")
    if data:
        rows.append(("data", str(data["name"])))
    parts = [facts(rows)]
    if about["metrics"]:
        parts.append(table(SCORES, about["metrics"]))
    if "stages" in about:
        parts.append(_stages(about["stages"]))
    if about["history"]:
        parts.append("made by\n" + "\n".join(f"  {entry['line']}" for entry in about["history"]))
    return "\n\n".join(parts)


def _stages(stages: list[dict[str, Any]]) -> str:
    rows = [
        {
            **stage,
            "blocks": len(stage["blocks"]),
            "parameters": sum(stage["parameters"]),
            "output": "x".join(map(str, stage["output"] or ())),
            "dense": stage["dense"] or None,
        }
        for stage in stages
    ]
    return table(STAGES, rows) if rows else NO_STAGES


command = StepCommand(
    "inspect",
    plan,
    params=[
        checkpoints(),
        click.Option(["--stages"], is_flag=True, help="show the stages whose blocks refine --method depth can drop"),
        json_option(),
    ],
    help="Show a checkpoint: structure, size, data, scores and the commands that made it.",
    epilog=EXAMPLES,
)
