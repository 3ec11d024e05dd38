"""``kdtool compare``: how alike two checkpoints are."""

from __future__ import annotations

from typing import Any

from kdtool.cli.chain import Step, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import WHICH_DATA, checkpoints, json_option
from kdtool.cli.evaluate import device_option, split_option
from kdtool.cli.output import as_json, facts, shown_value, table

EXAMPLES = """
\b
Examples:
  kdtool compare teacher.pt student.pt
  kdtool distill --method ikd teacher.pt compare teacher.pt
"""

COLUMNS = {
    "checkpoint": "checkpoint",
    "accuracy": "accuracy",
    "parameters": "parameters",
    "nonzero": "nonzero",
    "macs": "MACs",
}


def plan(given: Given) -> Step:
    """Plan the step."""
    told = {name: given.params[name] for name in ("split", "device") if given.params[name] is not None}

    def run(work: Work) -> str | None:
        from kdtool import api

        a, b = work.checkpoints
        result = api.compare(a, b, **told, **given.options)
        return as_json(result) if given.params["as_json"] else described(result)

    return Step("compare", run, checkpoints=tuple(given.params["checkpoints"]), least=2, most=2)


def described(result: dict[str, Any]) -> str:
    """Return a comparison, for a person."""
    both = [result[key] for key in ("a", "b") if isinstance(result.get(key), dict)]
    rows = [(key.replace("_", " "), shown_value(key, value)) for key, value in result.items() if key not in ("a", "b")]
    return "\n\n".join([*([table(COLUMNS, both)] if both else []), facts(rows)])


command = StepCommand(
    "compare",
    plan,
    params=[checkpoints("[A] [B]"), json_option(), split_option(), device_option()],
    groups=[WHICH_DATA],
    help="Show how alike two checkpoints are: images that get different classes, distance of their outputs.",
    epilog=EXAMPLES,
)
