"""``kdtool refine``: make the structure of a network smaller."""

from __future__ import annotations

from typing import Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import LABELLED_DATA, checkpoint, output_options
from kdtool.cli.output import write_stand_in
from kdtool.cli.work import Work
from kdtool.utils.files import beside

EXAMPLES = """
\b
Examples:
  kdtool refine teacher.pt
  kdtool refine teacher.pt --method halve --times 2
  kdtool refine teacher.pt --method depth --keep 1,1,2,2 --init inherit
  kdtool refine teacher.pt --init inherit --repair least-squares
  kdtool refine teacher.pt --method width-depth --target-macs 0.25x
  kdtool refine teacher.pt --method like --arch timm:resnet18
"""


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    seed = {"seed": parsed.params["seed"]} if parsed.params["seed"] is not None else {}
    path = parsed.params["checkpoint"]

    def run(work: Work) -> str | None:
        from kdtool import api

        run_options: dict[str, Any] = {
            "output": work.output,
            "force": work.force,
            "resume": work.resume,
            **work.only_said,
        }
        refined = api.refine(work.checkpoints[0], parsed.method, **run_options, **seed, **parsed.options)
        if work.dry_run:
            write_stand_in(refined, work)
        return work.result

    return ChainStep(
        "refine",
        run,
        checkpoints=(path,) if path else (),
        output=lambda source: parsed.params["output"] or beside(source, f"-{parsed.method}.pt"),
        makes_checkpoint=True,
        recognises=True,
        force=parsed.params["force"],
        resume=parsed.params["resume"],
        dry_run=parsed.params["dry_run"],
    )


command = StepCommand(
    "refine",
    plan,
    kind="refiners",
    default="halve",
    params=[
        checkpoint(),
        *output_options("CHECKPOINT-METHOD.pt", trains=False),
        click.Option(
            ["--seed"], type=click.IntRange(min=0), metavar="INTEGER", help="seed of new weights  [default: 0]"
        ),
    ],
    groups=[LABELLED_DATA],
    help="Make the structure of a network smaller, without training it. The data are only for --repair.",
    epilog=EXAMPLES,
)
