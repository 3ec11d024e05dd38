"""``kdtool run``: run a study from a recipe file."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click

from kdtool.cli.chain import ChainStep, InterruptedStep, PartlyDone
from kdtool.cli.command import ParsedCommand, StepCommand
from kdtool.cli.common import json_option
from kdtool.cli.files import check_file
from kdtool.cli.method_options import Section
from kdtool.cli.output import as_json, shown_value, table
from kdtool.cli.work import Work
from kdtool.errors import Error, UsageError
from kdtool.study.recipe import EXPORT, ONNX, Recipe, in_step, read_recipe
from kdtool.training.side_by_side.placement import Placement
from kdtool.utils.formatting import printable_lines
from kdtool.utils.progress import progress

EXAMPLES = """
\b
Examples:
  kdtool run recipe.toml --dry-run
  kdtool run recipe.toml --jobs 4
  kdtool run recipe.toml --ray auto --ray-gpus 1
  kdtool run recipe.toml --json > results.json

\b
A recipe:
  [matrix]
  seed = [0, 1, 2]
  ratio = [0.5, 0.8]
  [[step]]
  name = "teacher"
  run = "teacher kdtool:lenet-5 --data mnist --seed {seed}"
  [[step]]
  name = "pruned"
  from = "teacher"
  run = "prune --ratio {ratio}"
  [[compare]]
  of = ["teacher", "pruned"]
"""

ROWS = {
    "accuracy": "accuracy",
    "error": "error",
    "val_accuracy": "val accuracy",
    "parameters": "parameters",
    "nonzero": "nonzero",
    "compression": "compression",
    "macs": "MACs",
    "file_bytes": "file bytes",
    "gzip_bytes": "gzip bytes",
    "latency_ms": "latency ms",
    "latency_ratio": "latency",
    "accuracy_difference": "accuracy b - a",
    "classified_differently": "classified differently",
    "agreement": "agreement",
    "l2": "L2",
    "l2_sum": "L2 sum",
    "mcnemar_p": "McNemar p",
    "epochs": "epochs",
    "trial_epochs": "trial epochs",
    "recipe": "recipe",
    "optimizer": "optimiser",
    "batch_size": "batch size",
    "chosen": "chosen",
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
}

SPREAD = ("accuracy", "val_accuracy", "accuracy_difference", "classified_differently", "l2")
"""The columns whose means are shown with their confidence interval."""


def plan(parsed: ParsedCommand) -> ChainStep:
    """Return the planned step; all commands of the recipe are checked here."""
    path: Path | None = parsed.params["recipe"]
    if path is None:
        raise UsageError("run: no recipe given; name it (kdtool run recipe.toml)")
    if path.suffix in (".pt", ".onnx"):
        raise UsageError(f"{path}: is a network, and run takes a recipe, FILE.toml; see kdtool run --help")
    recipe = read_recipe(path, parsed.params["output"])
    check_commands(recipe)

    def run(work: Work) -> str | None:
        if parsed.params["dry_run"]:
            from kdtool.study.record import done_already

            return "\n".join(lines(recipe, set() if parsed.params["force"] else done_already(recipe)))
        from kdtool import api

        try:
            result = api.run_study(recipe, jobs=parsed.params["jobs"], force=parsed.params["force"], **parsed.options)
        except KeyboardInterrupt as interrupt:
            raise InterruptedStep("run was interrupted; run the same command to continue", interrupt) from interrupt
        text = as_json(result) if parsed.params["as_json"] else as_text(result)
        if result["failed"] or result["not_run"]:
            raise PartlyDone(failure(result), text)
        return text

    return ChainStep("run", run, min_checkpoints=0, max_checkpoints=0)


def check_commands(recipe: Recipe) -> None:
    """Parse every command of a recipe, as the command line does.

    Raises:
        UsageError: a command makes no checkpoint or its options are wrong; the message names the step.
    """
    outputs = {recipe.directory / command.file for command in recipe.commands}
    with progress("check the steps", len(recipe.commands)) as advance:  # thousands take seconds
        for command in recipe.commands:
            try:
                _check(command.words(recipe.directory), outputs)
            except click.ClickException as error:
                raise in_step(recipe, command, Error(error.format_message())) from error
            except Error as error:
                raise in_step(recipe, command, error) from error
            advance()


def _check(words: Sequence[str], outputs: Collection[Path]) -> None:
    from kdtool.cli.main import cli

    root = click.Context(cli, info_name="kdtool", obj={"recipe": True})
    name, command, rest = cli.resolve_command(root, list(words))
    if not isinstance(command, StepCommand) or command.alone:
        raise UsageError(f"{name} makes no checkpoint, so it cannot be a step")
    if "--help" in rest:
        raise UsageError("--help makes no checkpoint, so it cannot be a step")
    with command.make_context(name, rest, parent=root, allow_extra_args=True) as context:
        step: ChainStep = command.invoke(context)
        following = context.args
        for option in ("output", "force", "resume", "as_json"):
            if context.params.get(option):
                raise UsageError(f"the study sets --{option.removeprefix('as_')} itself; leave it out")
    if following:
        raise UsageError(f"{following[0]} begins another command; write it as a [[step]] of its own")
    if name == EXPORT and step.suffix != ONNX:
        raise UsageError(f"export writes {step.suffix} files here; a step of a study writes {ONNX} files")
    if not (step.makes_checkpoint or name == EXPORT):
        raise UsageError(f"{name} makes no checkpoint, so it cannot be a step")
    if len(step.checkpoints) < step.min_checkpoints:
        raise UsageError(f'{name} needs a checkpoint; name the step that makes it, for example from = "teacher"')
    if step.each and len(step.checkpoints) > 1:
        raise UsageError(f"{name} takes one checkpoint in a step, not {len(step.checkpoints)}")
    for path in (*step.checkpoints, *step.files):
        if path not in outputs:
            check_file(path)
    if step.slow_check is not None:
        step.slow_check()


def lines(recipe: Recipe, done: Collection[str]) -> list[str]:
    """Return the commands as they are typed in a shell; a comment marks those whose names are in ``done``.

    Comparisons are written as the commands that make them, each of them once.
    """
    from kdtool.study.comparisons import groups_of

    commands = [
        shlex.join(["kdtool", *command.words(recipe.directory), "-o", str(recipe.directory / command.file)])
        + "  # done" * (command.name in done)
        for command in recipe.commands
    ]
    groups = (group for comparison in recipe.comparisons for group in groups_of(recipe, comparison))
    compared = (["kdtool", "compare", *(str(recipe.directory / command.file) for command in group)] for group in groups)
    return [*commands, *dict.fromkeys(map(shlex.join, compared))]


def as_text(result: dict[str, Any]) -> str:
    """Return a study's results as text."""
    titles = {"rows": "", "means": "means over seeds, with 95 % intervals from three seeds on", "comparisons": "pairs"}
    titles["comparison_means"] = "pairs, means over seeds, with 95 % intervals from three seeds on"
    parts = []
    for key, title in titles.items():
        if result[key]:
            head = f"{title}:\n" if title else ""
            parts.append(head + _table(result[key]))
    return "\n\n".join(parts)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    from kdtool.reporting.cells import cell
    from kdtool.reporting.sections import flat
    from kdtool.study.alike import same_settings

    shown, measured, same = flat(rows), {key for row in rows for key in row}, same_settings(rows)
    settings = {key: key for key in shown[0] if key not in measured}
    columns = {"step": "step", "a": "a", "b": "b", **settings, "seeds": "seeds", **ROWS}
    return table(
        {key: title for key, title in columns.items() if key not in same},
        shown,
        lambda row, key: cell(row, key) if key in SPREAD else shown_value(key, row.get(key)),
    )


def failure(result: dict[str, Any]) -> str:
    """Print each step that failed or did not run on stderr, and return a summary in one line."""
    failed = [f"{step['name']}: {step['error']}" for step in result["failed"]]
    for line in failed:
        click.echo(printable_lines(f"failed: {line}"), err=True)
    for name in result["not_run"]:
        click.echo(f"not run: {name}", err=True)
    rest = f", {len(result['not_run'])} not run" if result["not_run"] else ""
    return f"{len(failed)} failed{rest}; run the same command to try them again"


command = StepCommand(
    "run",
    plan,
    alone=True,
    params=[
        click.Argument(["recipe"], required=False, type=click.Path(path_type=Path), metavar="RECIPE"),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="directory of the results  [default: the recipe's own setting, else RECIPE.study]",
        ),
        click.Option(
            ["--jobs"],
            type=click.IntRange(min=1),
            default=1,
            metavar="INTEGER",
            help="number of commands that run at the same time, each with its share of the cores, or a GPU  "
            "[default: 1]",
        ),
        click.Option(["-f", "--force"], is_flag=True, help="repeat steps that are already done"),
        click.Option(
            ["--dry-run"],
            is_flag=True,
            help="check the recipe and print its commands, but run none; # done marks steps that would not run again",
        ),
        json_option(),
    ],
    groups=[Section("Cluster", Placement)],
    help="Run a study: the steps of a recipe for every combination of the values in its matrix. Finished steps are not "
    "repeated and interrupted ones continue. If a step fails, only the steps that depend on it are not run.",
    epilog=EXAMPLES,
)
