"""``kdtool export``: convert a network to another format and measure its size and latency."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import WHICH_DATA, checkpoint, json_option, output_options
from kdtool.cli.early import check_latency
from kdtool.cli.output import as_json, facts, show, shown_value, table, zeros_note
from kdtool.cli.work import Work
from kdtool.data.options import DataOptions
from kdtool.errors import Error
from kdtool.exporting.exporter import Exporter
from kdtool.plugins.places import split
from kdtool.plugins.registry import make
from kdtool.utils.files import beside
from kdtool.utils.formatting import three_digits

EXAMPLES = """
\b
Examples:
  kdtool export --onnx student.pt
  kdtool export student.pt -o student.onnx --against teacher.pt
  kdtool export student.pt --int8 --max-drop 1%
  kdtool export student.pt --json > costs.json
  kdtool export student.pt --openvino
  kdtool export student.pt --hub-folder student-on-the-hub
"""


NOT_KEPT = (
    "is finished already, and what was measured is not kept in it; leave out --json, measure an ONNX file with kdtool "
    "measure, or export it again with --force and without --resume"
)


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    path, against = (parsed.params[name] for name in ("checkpoint", "against"))
    assert parsed.method_class is not None
    own, _ = split(parsed.options, parsed.method_class, DataOptions)
    exporter: Exporter = make("exporters", parsed.method, **own)
    extra = {"against": against} if against is not None else {}

    def run(work: Work) -> str | None:
        from kdtool import api

        run_options: dict[str, Any] = {"output": work.output, "force": work.force, "resume": work.resume}
        costs = api.export(work.checkpoints[0], parsed.method, **run_options, **extra, **parsed.options)
        if costs.get("finished"):
            if parsed.params["as_json"]:
                raise Error(f"{work.output}: {NOT_KEPT}")
            return work.result
        if parsed.params["as_json"]:
            return as_json(costs)
        show(as_text(costs))
        if zeros_note(costs):
            show(zeros_note(costs))
        return work.result

    return ChainStep(
        "export",
        run,
        checkpoints=(path,) if path else (),
        output=lambda source: parsed.params["output"] or beside(source, exporter.ending),
        suffix=exporter.suffix,
        check_target=lambda output, force, source: exporter.check(
            output,
            force=force
            or (parsed.params["resume"] and exporter.is_cut_short(output))
            or (output == beside(source, exporter.ending) and _is_of_compression(source, output)),
        ),
        force=parsed.params["force"],
        resume=parsed.params["resume"],
        dry_run=parsed.params["dry_run"],
        files=(against,) if against else (),
        recognises=True,
        # Options of other exporters that have these names mean what they say.
        slow_check=partial(check_latency, parsed.options) if exporter.suffix == ".onnx" else None,
    )


def _is_of_compression(source: Path, output: Path) -> bool:
    """Return whether an output is there because the compression that made a checkpoint wrote it."""
    if not output.exists() or not source.exists():
        return False
    from kdtool.commands.history import is_of_compression
    from kdtool.models.checkpoint import read

    try:
        return is_of_compression(read(source), output)
    except Error:
        return False


COLUMNS = {
    "of": "",
    "file": "file",
    "float": "float32",
    "teacher": "teacher",
    "difference": "difference",
    "ratio": "ratio",
}

SIDE_BY_SIDE = (
    *("parameters", "nonzero", "macs", "file_bytes", "gzip_bytes"),
    *("accuracy", "float", "teacher", "side_by_side"),
)
"""The entries of the costs that the table has."""

IN_JSON_ONLY = ("tried", "max_abs", "max_abs_diff", "same_argmax", "batches", "student", "clock", "cpu_ms", "pairs")
"""Details of these entries."""


def as_text(costs: dict[str, Any]) -> str:
    """Return what an export measured as text: a table of the file beside its teacher, and what is not in it."""
    rows = costs.get("side_by_side") or []
    rest = {name: value for name, value in costs.items() if not rows or name not in SIDE_BY_SIDE}
    if not rows:
        return facts(list(_flat(rest)))
    shown = [
        {
            "of": row["of"].replace("_", " "),
            **{name: _shown(row["of"], name, row[name]) for name in COLUMNS if name != "of" and name in row},
        }
        for row in rows
    ]
    brief = {
        name: {key: item for key, item in value.items() if key not in (*IN_JSON_ONLY, "teacher")}
        if isinstance(value, dict)
        else value
        for name, value in rest.items()
    }
    return f"{table(COLUMNS, shown)}\n\n{facts(list(_flat(brief)))}"


def _shown(row: str, column: str, value: Any) -> str | None:
    if value is None:
        return None
    if column == "ratio":
        return f"{three_digits(value)}x"
    text = shown_value(row, value)
    return f"+{text}" if column == "difference" and value > 0 else text


def _flat(costs: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in costs.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        elif isinstance(value, list):
            rows.append((f"{prefix}{name}".replace("_", " "), ", ".join(map(str, value)) or "none"))
        elif value is not None:
            rows.append((f"{prefix}{name}".replace("_", " "), shown_value(name, value)))
    return rows


command = StepCommand(
    "export",
    plan,
    kind="exporters",
    default="onnx",
    flags=True,
    params=[
        checkpoint(),
        *output_options("CHECKPOINT with the suffix of the format, such as student-int8.onnx", trains=False),
        json_option(),
        click.Option(
            ["--against"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="checkpoint to compare the latency with  [default: the first teacher]",
        ),
    ],
    groups=[WHICH_DATA],
    help="Convert a network to another format, check the outputs, and measure size and latency.",
    epilog=EXAMPLES,
)
