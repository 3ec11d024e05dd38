"""``kdtool inspect``: what a checkpoint is and how it was made."""

from __future__ import annotations

from typing import Any

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
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

NO_STAGES = "no stages of residual or dense blocks that could be left out; to make it smaller, make it narrower: halve"


def plan(given: Given) -> ChainStep:
    """Plan the step."""

    def run(work: Work) -> str | None:
        from kdtool import api

        wanted = {"stages": True} if given.params["stages"] else {}
        found = [api.inspect(path, **wanted) for path in work.checkpoints]
        if given.params["as_json"]:
            return as_json(found[0] if len(found) == 1 else found)
        return "\n\n".join(map(described, found))

    return ChainStep("inspect", run, checkpoints=tuple(given.params["checkpoints"]), most=None)


def described(about: dict[str, Any]) -> str:
    """Return what a checkpoint is, for a person."""
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


def _stages(found: list[dict[str, Any]]) -> str:
    rows = [
        {
            **stage,
            "blocks": len(stage["blocks"]),
            "parameters": sum(stage["parameters"]),
            "output": "x".join(map(str, stage["output"] or ())),
            "dense": stage["dense"] or None,
        }
        for stage in found
    ]
    return table(STAGES, rows) if rows else NO_STAGES


command = StepCommand(
    "inspect",
    plan,
    params=[
        checkpoints(),
        click.Option(
            ["--stages"], is_flag=True, help="show the stages whose blocks refine --method depth can leave out"
        ),
        json_option(),
    ],
    help="Show what a checkpoint is: structure, size, data, scores and the commands that made it.",
    epilog=EXAMPLES,
)
