"""``kdtool compress``: find and train the best student within a budget."""

from __future__ import annotations

from functools import partial
from typing import Any

from kdtool.cli.chain import ChainStep, PartlyDone
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import (
    DATA,
    TRAINING,
    checkpoint,
    json_option,
    output_options,
    run_options,
    track_option,
    training_step,
)
from kdtool.cli.early import check_latency
from kdtool.cli.method_options import Section
from kdtool.cli.output import as_json, print_result, show, table
from kdtool.cli.several_processes import processes_option
from kdtool.cli.work import Work
from kdtool.compression.options import QUANTISED, BudgetOptions, check_epochs, refused
from kdtool.utils.files import beside
from kdtool.utils.formatting import three_digits
from kdtool.utils.processes import is_first

EXAMPLES = """
\b
Examples:
  kdtool compress teacher.pt --max-latency 0.4x
  kdtool compress teacher.pt --max-latency 5ms --max-size 2MB --max-drop 1% --hours 2
  kdtool compress teacher.pt --max-macs 0.3x --epochs 40 --method kd:0.9+at:1000
  kdtool compress teacher.pt --max-latency 0.4x --candidates halve,filter-l1 --no-quantised
  kdtool compress teacher.pt --max-latency 0.4x export --onnx
"""

COLUMNS = {
    "model": "model",
    "val_accuracy": "val accuracy",
    "epochs": "epochs",
    "latency_ms": "ms",
    "latency_ratio": "latency",
    "file_bytes": "file bytes",
    "macs": "MACs",
    "parameters": "parameters",
    "dominated_by": "dominated by",
    "note": "",
}


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step."""
    path, json = parsed.params["checkpoint"], parsed.params["as_json"]
    check_epochs(parsed.options.get("epochs", 1))

    def run(work: Work) -> str | None:
        from kdtool import api
        from kdtool.compression.command import BudgetNotMetError
        from kdtool.compression.record import results_of

        try:
            student = api.compress(work.checkpoints[0], parsed.method, **run_options(parsed, work))
        except BudgetNotMetError as error:
            if not is_first():
                raise
            show(as_table(results_of(error.checkpoint)))
            if json:
                raise PartlyDone(str(error), as_json(results_of(error.checkpoint))) from error
            raise
        if work.dry_run:
            print_result(student, work)
            return work.result
        if not is_first():  # the run is the first process's
            return work.result
        results = results_of(student)
        show(as_table(results))
        # A step that follows prints the results of the chain; these are in the run's results.json.
        return as_json(results) if json and work.last else work.result

    return training_step(
        parsed,
        "compress",
        run,
        lambda source: beside(source, "-compressed.pt"),
        checkpoints=(path,) if path else (),
        files=(parsed.options["latency_from"],) if parsed.options.get("latency_from") else (),
        endings=(QUANTISED,) if parsed.options.get("quantised", True) else (),
        slow_check=partial(check_latency, parsed.options),
    )


def as_table(results: dict[str, Any]) -> str:
    """Return what was tried as a table, and the winner's test accuracy beside the teacher's."""
    lines = [table(COLUMNS, [row for row in results["rows"] if row["val_accuracy"] is not None])]
    left = [row for row in results["rows"] if row["val_accuracy"] is None]
    if left:
        lines.append(f"{len(left)} more were measured and not trained; results.json in the run has them")
    measured = results.get("measured") or {}
    scores = {"student": results["metrics"], "teacher": results["teacher_metrics"]}
    accuracies = {
        name: row["accuracy"] for name, metrics in scores.items() for row in metrics if row["split"] == "test"
    }
    if results["quantised_file"] and measured["accuracy"]:
        accuracies["file in 8 bits"] = measured["accuracy"]["accuracy"]
    if accuracies:
        lines.append("test accuracy: " + ", ".join(f"{name} {value:.4f}" for name, value in accuracies.items()))
    latency = measured.get("latency") or {}
    if latency.get("ratio") is not None:
        limit, ratio = results["limits"]["latency_ratio"], latency["ratio"]
        within = f", {ratio / limit:.2f} of the budget" if limit else ""
        wall = f"{three_digits(latency['student']['p50_ms'])} ms of wall time"
        lines.append(f"latency as exported: {wall}, {ratio:.3f} of the teacher's{within}")
    return "\n".join(lines)


command = StepCommand(
    "compress",
    plan,
    kind="distillers",
    default="kd",
    params=[
        checkpoint("TEACHER"),
        *output_options("TEACHER-compressed.pt"),
        json_option(),
        track_option(),
        processes_option(auto=False),
    ],
    groups=[
        Section("Budget", BudgetOptions),
        DATA,
        TRAINING,
    ],
    refused=refused,
    help="Find and train the most accurate student within a budget of latency, size or MACs. Installed methods propose "
    "networks that just meet it, measured before anything is trained; --method trains them.",
    epilog=EXAMPLES,
)
