"""``kdtool report``: a page about checkpoints, runs and studies."""

from __future__ import annotations

from pathlib import Path

import click

from kdtool.cli.chain import ChainStep, Work
from kdtool.cli.command import Given, StepCommand
from kdtool.cli.common import checkpoints
from kdtool.utils.files import beside

EXAMPLES = """
\b
Examples:
  kdtool report student.pt
  kdtool report teacher.pt student.pt unfinished.run -o report.html
  kdtool report recipe.study --figures docs
"""


def plan(given: Given) -> ChainStep:
    """Plan the step."""
    target, figures = given.params["output"], given.params["figures"]

    def run(work: Work) -> str | None:
        from kdtool import api

        about = {} if figures is None else {"figures": figures}
        path = api.report(*work.checkpoints, output=work.output, force=work.force, **about)
        return str(path) if work.last else None

    return ChainStep(
        "report",
        run,
        checkpoints=tuple(given.params["checkpoints"]),
        most=None,
        directories=True,
        output=lambda source: target or beside(source, "-report.html"),
        suffix=".html",
        force=given.params["force"],
    )


command = StepCommand(
    "report",
    plan,
    params=[
        checkpoints("[CHECKPOINT|RUN|STUDY]..."),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="where to write  [default: CHECKPOINT-report.html]",
        ),
        click.Option(
            ["--figures"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="write the charts of studies there too, as SVG",
        ),
        click.Option(["-f", "--force"], is_flag=True, help="overwrite what is there"),
    ],
    help="Write a page about checkpoints, runs and studies: how they were made, their sizes and scores, how the "
    "training went, accuracy against each number of a study.",
    epilog=EXAMPLES,
)
