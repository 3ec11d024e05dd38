"""``kdtool refine``: a smaller structure."""

from __future__ import annotations

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import checkpoint, output
from kdtool.utils.files import beside

EXAMPLES = """
\b
Examples:
  kdtool refine teacher.pt
  kdtool refine teacher.pt --method halve --times 2
  kdtool refine teacher.pt --method depth --keep 1,1,2,2 --init inherit
  kdtool refine teacher.pt --method width-depth --target-macs 0.25x
  kdtool refine teacher.pt --method like --arch timm:resnet18
"""


def plan(given: Given) -> ChainStep:
    """Plan the step."""
    seed = {"seed": given.params["seed"]} if given.params["seed"] is not None else {}
    path = given.params["checkpoint"]

    def run(work: Work) -> str | None:
        from kdtool import api

        api.refine(work.checkpoints[0], given.method, output=work.output, force=work.force, **seed, **given.options)
        return work.result

    return ChainStep(
        "refine",
        run,
        checkpoints=(path,) if path else (),
        output=lambda source: given.params["output"] or beside(source, f"-{given.method}.pt"),
        hands_on=True,
        force=given.params["force"],
        resume=given.params["resume"],
    )


command = StepCommand(
    "refine",
    plan,
    kind="refiners",
    default="halve",
    params=[
        checkpoint(),
        *output("CHECKPOINT-METHOD.pt"),
        click.Option(
            ["--seed"], type=click.IntRange(min=0), metavar="INTEGER", help="seed of fresh weights  [default: 0]"
        ),
    ],
    help="Make a smaller structure of a network; it is not trained yet.",
    epilog=EXAMPLES,
)
