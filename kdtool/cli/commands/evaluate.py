"""``kdtool evaluate``: measure the accuracy and loss of checkpoints."""

from __future__ import annotations

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import WHICH_DATA, checkpoints, json_option
from kdtool.cli.output import SCORES, as_json, table

EXAMPLES = """
\b
Examples:
  kdtool evaluate teacher.pt student.pt student-int8.onnx
  kdtool evaluate student.pt --split val --json
"""


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    options = {name: parsed.params[name] for name in ("split", "device") if parsed.params[name] is not None}

    def run(work: Work) -> str | None:
        from kdtool import api

        rows = api.evaluate(list(work.checkpoints), **options, **parsed.options)
        return as_json(rows) if parsed.params["as_json"] else table({"checkpoint": "checkpoint", **SCORES}, rows)

    return ChainStep("evaluate", run, checkpoints=tuple(parsed.params["checkpoints"]), max_checkpoints=None, onnx=True)


SPLIT = ("train", "val", "test")


def split_option() -> click.Option:
    """Return the option ``--split``."""
    return click.Option(["--split"], type=click.Choice(SPLIT), help="split to measure on  [default: test]")


def device_option() -> click.Option:
    """Return the option ``--device``."""
    return click.Option(["--device"], metavar="TEXT", help="auto, cpu, cuda, cuda:1, mps  [default: auto]")


command = StepCommand(
    "evaluate",
    plan,
    params=[checkpoints(), json_option(), split_option(), device_option()],
    groups=[WHICH_DATA],
    help="Measure accuracy and loss of checkpoints and ONNX files, on the data set recorded in each unless "
    "--data is given.",
    epilog=EXAMPLES,
)
