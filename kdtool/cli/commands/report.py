"""``kdtool report``: write a report on checkpoints, runs and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import checkpoints
from kdtool.cli.work import Work
from kdtool.errors import UsageError
from kdtool.utils.files import beside

SUFFIXES = (".html", ".md", ".csv")
"""The formats of a report; `kdtool.reporting.page` has them too, but imports torch."""

EXAMPLES = """
\b
Examples:
  kdtool report student.pt
  kdtool report teacher.pt student.pt unfinished.run -o report.html
  kdtool report teacher.pt student.pt --latency --per-class -o report.md
  kdtool report teacher.pt student.pt -o table.csv
  kdtool report recipe.study --figures docs
"""


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    target, figures = parsed.params["output"], parsed.params["figures"]
    if target is not None and target.suffix not in SUFFIXES:
        raise UsageError(f"-o {target}: the name of a report must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")

    def run(work: Work) -> str | None:
        from kdtool import api

        options: dict[str, Any] = {} if figures is None else {"figures": figures}
        options |= {name: True for name in ("latency", "per_class") if parsed.params[name]}
        path = api.report(*work.checkpoints, output=work.output, force=work.force, **options)
        return str(path) if work.last else None

    return ChainStep(
        "report",
        run,
        checkpoints=tuple(parsed.params["checkpoints"]),
        max_checkpoints=None,
        onnx=True,
        directories=True,
        output=lambda source: target or beside(source, "-report.html"),
        suffix=target.suffix if target is not None else ".html",
        force=parsed.params["force"],
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
            help="output file: .html, .md or .csv  [default: CHECKPOINT-report.html]",
        ),
        click.Option(
            ["--figures"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="also write the charts of studies to this directory, as SVG",
        ),
        click.Option(["--latency"], is_flag=True, help="measure the networks in onnxruntime; takes seconds for each"),
        click.Option(
            ["--per-class"],
            is_flag=True,
            help="measure the networks on their data: each class, confusion matrix, balanced and top-5 accuracy",
        ),
        click.Option(["-f", "--force"], is_flag=True, help="overwrite existing files"),
    ],
    help="Write a report on checkpoints, ONNX files, runs and studies: the commands that made them, sizes, "
    "scores beside the teacher's, training curves, and charts of the accuracy over each value of a study.",
    epilog=EXAMPLES,
)
