"""``kdtool evaluate``: how well checkpoints do."""

from __future__ import annotations

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import WHICH_DATA, checkpoints, json_option
from kdtool.cli.output import SCORES, as_json, table

EXAMPLES = """
\b
Examples:
  kdtool evaluate teacher.pt student.pt
  kdtool evaluate student.pt --split val --json
"""


def plan(given: Given) -> ChainStep:
    """Plan the step."""
    told = {name: given.params[name] for name in ("split", "device") if given.params[name] is not None}

    def run(work: Work) -> str | None:
        from kdtool import api

        rows = api.evaluate(list(work.checkpoints), **told, **given.options)
        return as_json(rows) if given.params["as_json"] else table({"checkpoint": "checkpoint", **SCORES}, rows)

    return ChainStep("evaluate", run, checkpoints=tuple(given.params["checkpoints"]), most=None)


SPLIT = ("train", "val", "test")


def split_option() -> click.Option:
    """Return the option that names a split."""
    return click.Option(["--split"], type=click.Choice(SPLIT), help="which images  [default: test]")


def device_option() -> click.Option:
    """Return the option that names a device."""
    return click.Option(["--device"], metavar="TEXT", help="auto, cpu, cuda, cuda:1, mps  [default: auto]")


command = StepCommand(
    "evaluate",
    plan,
    params=[checkpoints(), json_option(), split_option(), device_option()],
    groups=[WHICH_DATA],
    help="Measure accuracy and loss of checkpoints, on the data they remember.",
    epilog=EXAMPLES,
)
