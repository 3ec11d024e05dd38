"""``kdtool measure``: measure the latency of ONNX files on this device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import checkpoints, json_option, latency_options
from kdtool.cli.output import as_json, facts, shown_value
from kdtool.cli.work import Work
from kdtool.errors import UsageError

EXAMPLES = """
\b
Examples:
  kdtool measure student.onnx teacher.onnx
  kdtool measure student.onnx --provider openvino --threads 4 --json > there.json
  kdtool measure --script measure.pyz
"""

OPTIONS = ("provider", "threads", "batch", "pairs", "seconds")


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    models: tuple[Path, ...] = tuple(parsed.params["checkpoints"])
    script: Path | None = parsed.params["script"]
    options = {name: parsed.params[name] for name in OPTIONS if parsed.params[name] is not None}
    if script is not None and (models or options or parsed.params["as_json"]):
        raise UsageError("--script writes the program that measures; give it alone")

    for path in models:
        if path.suffix == ".pt":
            raise UsageError(f"{path}: is a checkpoint, and measure takes ONNX files; write kdtool export {path}")

    def run(work: Work) -> str | None:
        if script is not None:
            from kdtool.exporting.measurement import write_script
            from kdtool.utils.files import atomic

            with atomic(script) as temporary:
                write_script(temporary)
            return str(script)
        # Not from kdtool.api, which imports torch: the device where a file is to run may have none.
        from kdtool.commands.measure import measure

        rows = measure(*work.checkpoints, **options)
        if parsed.params["as_json"]:
            return as_json(rows[0] if len(rows) == 1 else rows)
        return "\n\n".join(map(as_text, rows))

    return ChainStep(
        "measure",
        run,
        checkpoints=models,
        min_checkpoints=0 if script else 1,
        without_files="measure: no file given; name an ONNX file (kdtool measure FILE.onnx); kdtool export writes one",
        max_checkpoints=0 if script else None,
        onnx=True,
        files=models,
        output=(lambda _: script) if script else None,
        suffix=script.suffix if script else "",
        force=parsed.params["force"],
    )


def as_text(row: dict[str, Any]) -> str:
    """Return one measurement as text."""
    shown = {name: value for name, value in row.items() if name not in ("format", "structure")}
    shown["input"] = "x".join(map(str, row["input"]))
    return facts([(name.replace("_", " "), shown_value(name, value)) for name, value in shown.items()])


command = StepCommand(
    "measure",
    plan,
    alone=True,
    params=[
        checkpoints("[FILE.onnx]..."),
        json_option(),
        *latency_options(),
        click.Option(
            ["--pairs"], type=click.IntRange(min=1), metavar="INTEGER", help="pairs of samples  [default: 50]"
        ),
        click.Option(
            ["--seconds"],
            type=click.FloatRange(min=0, min_open=True),
            metavar="FLOAT",
            help="measure fewer pairs if they would take longer than this  [default: 20]",
        ),
        click.Option(
            ["--script"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="write a program of one file that does the same where kdtool is not installed; it needs onnxruntime",
        ),
        click.Option(["-f", "--force"], is_flag=True, help="overwrite an existing file"),
    ],
    help="Measure the latency of ONNX files in onnxruntime on this device. It needs neither torch nor the data set. "
    "kdtool export --latency-from FILE reads what --json prints.",
    epilog=EXAMPLES,
)
